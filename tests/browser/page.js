// Runs inside Chromium: npm stanza (somebody else's Jingle) over real WebRTC. Driven by run.mjs through window.peer.
import { createClient } from 'stanza';

const calls = [];
const players = []; // one that nobody holds is collected
let client;
const tell = (event, more = {}) => window.report(JSON.stringify({ event, ...more }));

// A steady tone instead of a microphone: asking for the microphone would make Chromium show its addresses.
function tone(hz) {
    const context = new AudioContext();
    const oscillator = new OscillatorNode(context, { frequency: hz });
    const level = new GainNode(context, { gain: 0.4 });
    const out = context.createMediaStreamDestination();
    oscillator.connect(level).connect(out);
    oscillator.start();
    return out.stream;
}

// What nobody plays is not decoded, and has no energy.
function play(track) {
    const player = new Audio();
    player.srcObject = new MediaStream([track]);
    players.push(player);
    player.play().catch((error) => tell('silent', { text: error.message }));
}

async function prepare(session, hz) {
    calls.push(session);
    // Of a call that comes in, the track may be there already.
    session.pc.addEventListener('track', (event) => play(event.track));
    session.pc.getReceivers().forEach((receiver) => play(receiver.track));
    watch(session);
    const stream = tone(hz);
    for (const track of stream.getTracks()) await session.addTrack(track, stream);
}

// Hidden addresses and candidates one by one: as a call's.
function watch(session) {
    session.pc.addEventListener('icecandidate', (event) => {
        if (event.candidate) tell('candidate', { candidate: event.candidate.candidate });
    });
    session.pc.addEventListener('connectionstatechange', () => tell('state', { state: session.pc.connectionState }));
}

async function sha256(bytes) {
    const digest = await crypto.subtle.digest('SHA-256', bytes);
    return [...new Uint8Array(digest)].map((it) => it.toString(16).padStart(2, '0')).join('');
}

// Whoever was not seen is not there yet.
const present = new Set();
async function seen(jid) {
    while (!present.has(jid)) await new Promise((done) => setTimeout(done, 20));
}

const last = () => calls[calls.length - 1];
const contentName = () => last().pc.localDescription.sdp.match(/a=mid:(\S+)/)[1];
const creator = () => 'initiator';

window.peer = {
    connect({ jid, password, websocket, hz }) {
        client = createClient({
            jid, password, allowResumption: false, transports: { websocket, bosh: false }, jingle: { iceServers: [] },
        });
        client.on('jingle:incoming', async (session) => {
            tell('incoming', { sid: session.sid });
            if (!session.addTrack) { // files
                calls.push(session);
                watch(session);
                await session.accept();
                return;
            }
            await prepare(session, hz);
            await session.ring();
            await session.accept();
        });
        for (const name of ['accepted', 'ringing', 'hold', 'resumed', 'mute', 'unmute']) {
            client.on('jingle:' + name, () => tell(name));
        }
        client.on('jingle:terminated', (_session, reason) => tell('terminated', { reason: reason?.condition ?? reason }));
        client.on('raw:incoming', (xml) => /^<iq[^>]* type=.error/.test(xml) && tell('refused', { xml: xml.slice(0, 600) }));
        client.on('raw:outgoing', (xml) => /session-accept/.test(xml) && tell('accepts', { xml: xml.slice(0, 2000) }));
        client.on('available', (presence) => present.add(presence.from));
        client.on('unavailable', (presence) => present.delete(presence.from));
        client.jingle.on('sentFile', () => tell('sent'));
        client.jingle.on('receivedFile', async (_session, file, meta) => {
            const bytes = await file.arrayBuffer();
            tell('file', { name: meta?.name ?? file.name, bytes: bytes.byteLength, sha256: await sha256(bytes) });
        });
        client.jingle.on('log', (level, ...what) => tell('log', { level, text: what.map(String).join(' ').slice(0, 300) }));
        return new Promise((resolve, reject) => {
            client.on('session:started', async () => {
                await client.getRoster();
                client.sendPresence();
                resolve({ jid: client.jid });
            });
            client.on('auth:failed', () => reject(new Error('sign-in failed')));
            client.connect();
        });
    },
    async call({ to, hz }) {
        const session = client.jingle.createMediaSession(to);
        await prepare(session, hz);
        await session.start({ offerToReceiveAudio: true });
        return { sid: session.sid };
    },
    async sendFile({ to, name, base64 }) {
        const bytes = Uint8Array.from(atob(base64), (it) => it.charCodeAt(0));
        await seen(to);
        const session = client.jingle.createFileTransferSession(to);
        calls.push(session);
        watch(session);
        const file = new File([bytes], name, { type: 'application/octet-stream', lastModified: 1700000000000 });
        await session.start(file);
        return { sid: session.sid, sha256: await sha256(bytes) };
    },
    hold: () => last().hold(),
    resume: () => last().resume(),
    mute: () => last().mute(creator(), contentName()),
    unmute: () => last().unmute(creator(), contentName()),
    end: () => last().end('success'),
    disconnect: () => client.disconnect(),
    async stats() {
        const all = await last().pc.getStats();
        const out = { state: last().pc.connectionState, packetsIn: 0, packetsOut: 0, energy: 0, seconds: 0 };
        all.forEach((it) => {
            if (it.type === 'inbound-rtp') {
                out.packetsIn += it.packetsReceived;
                out.energy += it.totalAudioEnergy ?? 0;
                out.seconds += it.totalSamplesDuration ?? 0;
            }
            if (it.type === 'outbound-rtp') out.packetsOut += it.packetsSent;
            if (it.type === 'transport') Object.assign(out, { srtp: it.srtpCipher, dtls: it.tlsVersion });
        });
        return out;
    },
};
