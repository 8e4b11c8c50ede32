"""Somebody else's files: Jingle file transfer (XEP-0234) over SOCKS5 and in-band bytestreams by slixmpp (PyPI).

peer.py JID PASSWORD HOST PORT LISTEN-ADDRESS: signs in; commands come as JSON lines on stdin ({"do": "send", …}), events
({"event": …}) go as JSON lines to stdout. Ends with its stdin. `bad` in a command names what it does wrong on purpose.
"""
import asyncio
import base64
import hashlib
import json
import os
import sys
import uuid
import xml.etree.ElementTree as ET

import slixmpp
from slixmpp.exceptions import IqError, IqTimeout, XMPPError
from slixmpp.xmlstream.handler import CoroutineCallback
from slixmpp.xmlstream.matcher import MatchXPath

import s5b as socks
from s5b import S5b

JINGLE = "urn:xmpp:jingle:1"
FILES = "urn:xmpp:jingle:apps:file-transfer:5"
HASHES = "urn:xmpp:hashes:2"
IBB = "urn:xmpp:jingle:transports:ibb:1"
IBB_STREAM = "http://jabber.org/protocol/ibb"


def element(ns, tag, /, *children, text=None, **attributes):
    it = ET.Element(f"{{{ns}}}{tag}", {k.replace("_", "-"): str(v) for k, v in attributes.items()})
    it.text = text
    it.extend(children)
    return it


class Ibb:
    """In-band, by slixmpp's own streams (XEP-0261 over XEP-0047)."""
    ns = IBB

    def __init__(self, peer, to, initiator, sid=None, block=4096, bad=()):
        self.peer, self.to, self.initiator, self.bad = peer, to, initiator, set(bad)
        self.sid, self.block = sid or uuid.uuid4().hex[:12], block
        self.kind = "ibb"
        self.started = asyncio.get_running_loop().create_future()
        if not initiator:  # it may open before anybody waits for it
            peer.add_event_handler(f"stream:{self.sid}:{to}", lambda it: self.started.done() or self.started.set_result(it),
                                   disposable=True)

    async def gather(self):
        pass

    def to_xml(self):
        return element(IBB, "transport", sid=self.sid, block_size=self.block)

    def heard(self, _):
        pass

    def close(self):
        pass

    async def connect(self, _):
        plugin = self.peer.plugin["xep_0047"]
        if not self.initiator:
            return InBand(self, await asyncio.wait_for(self.started, 30))
        block = self.block * 2 if "open-larger" in self.bad else self.block
        sid = "nobody-knows" if "open-unknown" in self.bad else self.sid
        return InBand(self, await plugin.open_stream(slixmpp.JID(self.to), block_size=block, sid=sid, timeout=30))


class InBand:
    def __init__(self, transport, stream):
        self.transport, self.stream, self.sent = transport, stream, 0

    async def read(self):
        while True:
            try:
                return self.stream.recv_queue.get_nowait()
            except asyncio.QueueEmpty:
                if self.stream.stream_in_closed:
                    return b""
                await asyncio.sleep(0.005)

    async def raw(self, text, sid=None, seq=None):
        """One block as told, not as slixmpp would make it."""
        iq = self.transport.peer.make_iq_set(ito=self.transport.to)
        seq = (self.stream.send_seq + 1) % 65536 if seq is None else seq
        iq.xml.append(element(IBB_STREAM, "data", text=text, sid=sid or self.stream.sid, seq=seq))
        await iq.send(timeout=20)

    async def write(self, data):
        bad = self.transport.bad
        for at in range(0, len(data), self.stream.block_size):
            block = data[at:at + self.stream.block_size]
            self.sent += 1
            if self.sent == 4:  # in the middle of a stream that runs well
                coded = base64.b64encode(block).decode()
                if "seq-skipped" in bad:
                    await self.raw(coded, seq=self.stream.send_seq + 2)
                if "seq-repeated" in bad:
                    await self.raw(coded, seq=self.stream.send_seq)
                if "bad-base64" in bad:
                    await self.raw(coded[:40] + "!*" + coded[42:])
                if "padding-inside" in bad:
                    await self.raw(coded[:40] + "=" + coded[41:])
                if "oversize" in bad:
                    await self.raw(base64.b64encode(bytes(self.stream.block_size + 1)).decode())
                if "unknown-sid" in bad:
                    await self.raw(coded, sid="nobody-knows", seq=0)
            await self.stream.send(block, timeout=60)

    def close(self):
        if not self.stream.stream_out_closed:
            self.stream.close(timeout=20).add_done_callback(lambda it: it.cancelled() or it.exception())


TRANSPORTS = {socks.NS: S5b, IBB: Ibb}
WAYS = {"s5b": S5b, "ibb": Ibb}


class Session:
    def __init__(self, peer, to, sid, initiator, plan):
        self.peer, self.to, self.sid, self.initiator, self.plan = peer, to, sid, initiator, plan
        self.bad = set(plan.get("bad", []))
        self.accepted = asyncio.get_running_loop().create_future()
        self.replaced = asyncio.get_running_loop().create_future()
        self.over, self.transport, self.checksum = asyncio.Event(), None, asyncio.get_running_loop().create_future()
        self.name, self.creator, self.offset = "a-file", "initiator", 0

    def say(self, event, **more):
        self.peer.say(event, sid=self.sid, **more)

    async def send(self, action, *children):
        iq = self.peer.make_iq_set(ito=self.to)
        jingle = element(JINGLE, "jingle", *children, action=action, sid=self.sid)
        if action == "session-initiate":
            jingle.set("initiator", self.peer.boundjid.full)
        if action == "session-accept":
            jingle.set("responder", self.peer.boundjid.full)
        iq.xml.append(jingle)
        return await iq.send(timeout=30)

    def content(self, *children):
        it = element(JINGLE, "content", *children, creator=self.creator, name=self.name)
        if any(child.tag.endswith("description") for child in children):
            it.set("senders", "initiator")
        return it

    async def tell(self, transport):
        await self.send("transport-info", self.content(transport))

    async def end(self, reason, text=None):
        if not self.over.is_set():
            self.over.set()
            try:
                await self.send("session-terminate", element(JINGLE, "reason", element(JINGLE, reason)))
            except (IqError, IqTimeout):
                pass
        self.peer.sessions.pop(self.sid, None)
        self.say("ended", reason=reason, by="us", text=text)

    def heard_end(self, jingle):
        self.over.set()
        self.peer.sessions.pop(self.sid, None)
        reason = jingle.find(f"{{{JINGLE}}}reason")
        names = [it.tag.split("}")[1] for it in reason] if reason is not None else []
        self.say("ended", reason=names[0] if names else None, all=names, by="them")

    async def stream(self):
        """Connects the transport, and the next one when it fails, as the initiator's side says."""
        stream = await self.transport.connect(self.tell)
        if stream is not None:
            self.say("connected", kind=self.transport.kind)
            return stream
        self.say("transport failed", kind=self.transport.ns)
        if self.initiator:
            self.transport = Ibb(self.peer, self.to, True, bad=self.bad)
            await self.send("transport-replace", self.content(self.transport.to_xml()))
        await asyncio.wait_for(self.replaced, 30)
        stream = await self.transport.connect(self.tell)
        self.say("connected", kind=self.transport.kind)
        return stream


class Peer(slixmpp.ClientXMPP):
    def __init__(self, jid, password, listen_on):
        super().__init__(jid, password, plugin_config={
            "feature_mechanisms": {"unencrypted_scram": True, "unencrypted_plain": True},
            "xep_0047": {"max_block_size": 65535},
        })
        self.listen_on, self.sessions, self.plan, self.proxy = listen_on, {}, {}, None
        self.enable_plaintext, self.enable_starttls, self.enable_direct_tls = True, False, False
        for plugin in ("xep_0030", "xep_0047", "xep_0065", "xep_0115"):
            self.register_plugin(plugin)
        self.add_event_handler("session_start", self.started)
        self.present = set()
        self.add_event_handler("presence_available", lambda it: self.present.add(it["from"].full))
        self.add_event_handler("presence_unavailable", lambda it: self.present.discard(it["from"].full))
        self.add_event_handler("failed_auth", lambda _: self.say("failed", what="sign-in"))
        matcher = MatchXPath(f"{{jabber:client}}iq/{{{JINGLE}}}jingle")
        self.register_handler(CoroutineCallback("jingle", matcher, self.jingle))

    def say(self, event, **more):
        print(json.dumps({"event": event, **more}), flush=True)

    async def started(self, _):
        for feature in (JINGLE, FILES, HASHES, "urn:xmpp:hash-function-text-names:sha-256", socks.NS, IBB):
            self.plugin["xep_0030"].add_feature(feature)
        await self.plugin["xep_0115"].update_caps()
        await self.get_roster()
        self.send_presence()
        try:
            proxy = f"proxy.{self.boundjid.domain}"
            host = (await self.plugin["xep_0065"].get_network_address(proxy, timeout=10))["socks"]["streamhost"]
            self.proxy = (proxy, host["host"], host["port"])
        except (IqError, IqTimeout):
            pass
        self.say("online", jid=self.boundjid.full)

    async def jingle(self, iq):
        if iq["type"] != "set":
            return
        jingle = iq.xml.find(f"{{{JINGLE}}}jingle")
        action, sid, sender = jingle.get("action"), jingle.get("sid"), iq["from"].full
        session = self.sessions.get(sid)
        self.say("jingle", action=action, sid=sid)
        if action == "session-initiate":
            iq.reply().send()
            session = self.sessions[sid] = Session(self, sender, sid, False, self.plan)
            return self.spawn(self.receive(session, jingle), session)
        if session is None or session.to != sender:
            # A terminate that crosses ours is nothing to wonder about.
            raise XMPPError("item-not-found", etype="cancel")
        iq.reply().send()
        content = jingle.find(f"{{{JINGLE}}}content")
        transport = next((it for it in content if it.tag.endswith("}transport")), None) if content is not None else None
        if action == "session-terminate":
            session.heard_end(jingle)
        elif action == "session-accept":
            ranged = content.find(f".//{{{FILES}}}range")
            session.offset = int(ranged.get("offset", 0)) if ranged is not None else 0
            session.accepted.set_result(transport)
        elif action == "transport-info" and transport is not None and session.transport:
            session.transport.heard(transport)
        elif action == "transport-replace":
            if "no-replace" in session.bad or transport.tag != f"{{{IBB}}}transport":
                return await session.send("transport-reject", session.content(transport))
            block = int(transport.get("block-size"))
            session.transport = Ibb(self, sender, session.initiator, transport.get("sid"), block, session.bad)
            # The stream may open as soon as the answer is there.
            await self.plugin["xep_0047"].api["preauthorize_sid"](self.boundjid, transport.get("sid"), iq["from"], None)
            await session.send("transport-accept", session.content(session.transport.to_xml()))
            session.replaced.set_result(True)
        elif action == "transport-accept":
            session.transport.block = min(session.transport.block, int(transport.get("block-size", "4096")))
            session.replaced.set_result(True)
        elif action == "transport-reject":
            session.replaced.set_exception(RuntimeError("they refuse the other transport"))
        elif action == "session-info":
            for it in jingle:
                name = it.tag.split("}")[1]
                session.say("info", name=name)
                if name == "checksum" and not session.checksum.done():
                    session.checksum.set_result(it.find(f".//{{{HASHES}}}hash"))

    def spawn(self, work, session):
        async def guarded():
            try:
                await work
            except (IqError, IqTimeout) as why:
                condition = why.iq["error"]["condition"] if isinstance(why, IqError) else "timeout"
                session.say("error", condition=condition)
            except Exception as why:
                session.say("error", text=repr(why))
                await session.end("failed-application")
            if session.transport:
                session.transport.close()
        return asyncio.ensure_future(guarded())

    async def receive(self, session, jingle):
        plan = session.plan
        content = jingle.find(f"{{{JINGLE}}}content")
        session.name, session.creator = content.get("name"), content.get("creator", "initiator")
        description = next(it for it in content if it.tag.endswith("}description"))
        offered = next(it for it in content if it.tag.endswith("}transport"))
        file = description.find(f"{{{FILES}}}file")
        field = lambda name: (file.findtext(f"{{{FILES}}}{name}") if file is not None else None)
        algorithm = next((h.get("algo") for h in file if h.tag.endswith("hash") or h.tag.endswith("hash-used")), None)
        session.say("incoming", name=field("name"), size=field("size"), algorithm=algorithm, transport=offered.tag,
                    senders=content.get("senders"), creator=session.creator, ns=description.tag,
                    candidates=[c.attrib for c in offered], attributes=offered.attrib)
        if "decline" in session.bad:
            return await session.end("decline")
        kind = TRANSPORTS.get(offered.tag[1:].split("}")[0])
        if kind is None:
            return await session.end("unsupported-transports")
        if kind is Ibb:
            block = min(int(offered.get("block-size")), plan.get("block", 65535))
            session.transport = Ibb(self, session.to, False, offered.get("sid"), block, session.bad)
            await self.plugin["xep_0047"].api["preauthorize_sid"](self.boundjid, session.transport.sid, slixmpp.JID(session.to), None)
        else:
            session.transport = S5b(self, session.to, False, offered.get("sid"), session.bad)
            session.transport.theirs = [socks.Candidate.of(c) for c in offered if c.tag.endswith("}candidate")]
            await session.transport.gather()
            if "equal" in session.bad:  # as the best of theirs
                session.transport.own[0].priority = max(c.priority for c in session.transport.theirs)
        offset = plan.get("offset", 0)
        if offset:
            file.append(element(FILES, "range", offset=offset))
        await session.send("session-accept", session.content(description, session.transport.to_xml()))
        stream = await session.stream()
        size, got, path = int(field("size")), bytearray(), plan["path"]
        while len(got) < size - offset:
            data = await stream.read()
            if not data:
                break
            got += data
            if plan.get("stop_at") is not None and len(got) >= plan["stop_at"]:
                session.say("stopped", bytes=len(got))
                stream.close()
                return await session.end("cancel")
        stored = file.find(f"{{{HASHES}}}hash")
        if stored is None or not stored.text:
            stored = await asyncio.wait_for(session.checksum, 20)
        if offset:
            with open(path, "rb") as it:
                got = it.read(offset) + got
        digest = hashlib.new(stored.get("algo").replace("sha-", "sha"), got).digest()
        right = digest == base64.b64decode(stored.text)
        with open(path, "wb") as it:
            it.write(got)
        session.say("file", bytes=len(got), right=right, sha256=hashlib.sha256(got).hexdigest(), kind=session.transport.kind)
        if "received-first" in session.bad:
            received = element(FILES, "received", creator=session.creator, name=session.name)
            await session.send("session-info", received)
        stream.close()
        await session.end("success" if right else "media-error")

    async def offer(self, session, plan):
        with open(plan["path"], "rb") as it:
            data = it.read()
        bad = session.bad
        digest = base64.b64encode(hashlib.sha256(data if "hash-lie" not in bad else data + b"x").digest()).decode()
        late = plan.get("late_checksum", False)
        stored = element(HASHES, "hash-used", algo="sha-256") if late else element(HASHES, "hash", algo="sha-256", text=digest)
        size = len(data) - 1000 if "size-lie" in bad else len(data)
        file = element(FILES, "file", element(FILES, "name", text=plan.get("name", os.path.basename(plan["path"]))),
                       element(FILES, "size", text=str(size)), element(FILES, "media-type", text="application/octet-stream"), stored)
        description = element(FILES, "description", file)
        session.transport = WAYS[plan.get("way", "s5b")](self, session.to, True, bad=bad)
        if isinstance(session.transport, Ibb):
            session.transport.block = plan.get("block", 4096)
        await session.transport.gather()
        while session.to not in self.present:  # who was not seen is not there yet
            await asyncio.sleep(0.02)
        if isinstance(session.transport, S5b) and plan.get("hosts"):
            session.transport.own = [socks.Candidate(h, p, "direct", jid=self.boundjid.full, local=n)
                                     for n, (h, p) in enumerate(plan["hosts"])]
        if "priority" in plan:
            session.transport.own[0].priority = plan["priority"]
        await session.send("session-initiate", session.content(description, session.transport.to_xml()))
        accepted = await asyncio.wait_for(session.accepted, 60)
        if isinstance(session.transport, S5b):
            session.transport.theirs = [socks.Candidate.of(c) for c in accepted if c.tag.endswith("}candidate")]
            session.say("accepted", candidates=[c.attrib for c in accepted], sid_same=accepted.get("sid") == session.transport.sid,
                        mode=accepted.get("mode"))
        else:
            block = int(accepted.get("block-size", session.transport.block))
            session.say("accepted", block_size=block)
            session.transport.block = min(block, session.transport.block)
        stream = await session.stream()
        end = min(len(data), plan.get("stop_at", len(data)))
        for at in range(session.offset, end, 65536):
            await stream.write(data[at:min(at + 65536, end)])
        if end < len(data):  # as a sender that dies
            session.say("stopped", bytes=end, offset=session.offset)
            await asyncio.sleep(0.5)
            return stream.close()
        if late:
            checksum = element(FILES, "checksum", element(FILES, "file", element(HASHES, "hash", algo="sha-256", text=digest)),
                               creator="initiator", name=session.name)
            await session.send("session-info", checksum)
        session.say("sent", bytes=len(data), offset=session.offset, sha256=hashlib.sha256(data).hexdigest(), kind=session.transport.kind)
        stream.close()
        try:
            await asyncio.wait_for(session.over.wait(), 40)
        except asyncio.TimeoutError:
            await session.end("timeout")

    async def command(self, it):
        if it["do"] == "send":
            session = Session(self, it["to"], uuid.uuid4().hex[:12], True, it)
            self.sessions[session.sid] = session
            self.spawn(self.offer(session, it), session)
        elif it["do"] == "receive":
            self.plan = it
            self.say("ready")
        elif it["do"] == "cut":
            self.abort()


async def main():
    jid, password, host, port, listen_on = sys.argv[1:]
    peer = Peer(jid, password, listen_on)
    peer.connect(host, int(port))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        await peer.command(json.loads(line))
    peer.disconnect()
    await asyncio.sleep(0.2)


asyncio.run(main())
