//! `demo`: two endpoints in this process call each other over a serverless stream on loopback TCP, with real UDP sockets,
//! ICE, DTLS-SRTP and Opus, and prove by their recordings that each heard the other. Then a file goes over, once by the
//! fastest way and once inside of the stream itself.

use super::args::Demo;
use super::call::stats_json;
use super::files::bytes;
use super::output::Output;
use super::{Exit, Failure};
use crate::client::{
    Call, CallEvent, CallStats, Client, ClientEvent, Connected, FRAME, FileDone, Frame, Incoming, Party,
    ReceiveOptions, SendOptions, TransferEvent, Way, WayKind,
};
use crate::endpoint::MediaConfig;
use crate::io::tls::SelfSigned;
use crate::io::wav::WavRecorder;
use crate::jingle::sessions::Callers;
use crate::media::audio::{FRAME_SAMPLES, PCM_RATE_HZ};
use crate::wire::jid::Jid;
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What a recording must have in common with the other side's signal.
const CORRELATION: f64 = 0.9;
/// Everything before the call is up takes less than this, or something is wrong.
const SET_UP_LIMIT: Duration = Duration::from_secs(15);
/// Longest lag that is searched: jitter buffer, codec and set-up.
const MAX_LAG: Duration = Duration::from_millis(600);
/// Frames of silence after the melody.
const TAIL_FRAMES: u64 = 30;
/// Correlation is searched at this rate: the melodies end at 1.2 kHz.
const SEARCH_RATE_HZ: u32 = 4_000;

/// Size of the file.
const FILE_BYTES: usize = 8 * 1024 * 1024;
/// A file takes less than this, or something is wrong.
const FILE_LIMIT: Duration = Duration::from_secs(60);

/// Notes of the two melodies, in Hz; 250 ms each.
const CALLER_NOTES: [f64; 8] = [262.0, 330.0, 392.0, 523.0, 494.0, 392.0, 349.0, 294.0];
const CALLEE_NOTES: [f64; 8] = [440.0, 659.0, 554.0, 880.0, 740.0, 587.0, 988.0, 466.0];

/// One sample of a melody: a note with a soft envelope, so that the beginning of each note is found.
fn melody(notes: &[f64; 8], sample: u64) -> i16 {
    let t = sample as f64 / f64::from(PCM_RATE_HZ);
    let note = (t / 0.25) as usize;
    // Each round is shifted, so that the signal repeats only after 2 s × 5.
    let shift = 1.0 + 0.07 * ((note / notes.len()) % 5) as f64;
    let hz = notes.get(note % notes.len()).copied().unwrap_or(440.0) * shift;
    let inside = (t % 0.25) / 0.25;
    let envelope = (std::f64::consts::PI * inside).sin().powf(0.5);
    let phase = std::f64::consts::TAU * hz * t;
    (envelope * 9_000.0 * phase.sin()) as i16
}

/// How much of `signal` is in `heard`: for each note of the signal (250 ms) the largest normalised correlation over all lags up to
/// [`MAX_LAG`], averaged. Block by block, because a jitter buffer that adapts shifts what follows.
fn correlation(heard: &[i16], signal: &[i16]) -> f64 {
    let step = (PCM_RATE_HZ / SEARCH_RATE_HZ) as usize;
    // The mean over a step is a good enough low-pass for signals below a third of the search rate.
    let thin = |pcm: &[i16]| -> Vec<f64> {
        pcm.chunks(step).map(|c| c.iter().map(|s| f64::from(*s)).sum::<f64>() / c.len() as f64).collect()
    };
    let (heard, signal) = (thin(heard), thin(signal));
    let lags = (MAX_LAG.as_millis() as usize * SEARCH_RATE_HZ as usize / 1000) as isize;
    let note = SEARCH_RATE_HZ as usize / 4;
    let blocks: Vec<&[f64]> = signal.chunks_exact(note).collect();
    let mut sum = 0.0;
    for (number, block) in blocks.iter().enumerate() {
        let from = (number * note) as isize;
        let best = (-lags..=lags)
            .filter_map(|lag| heard.get(usize::try_from(from + lag).ok()?..)?.get(..block.len()))
            .map(|window| similarity(window, block))
            .fold(0.0, f64::max);
        sum += best;
    }
    if blocks.is_empty() { 0.0 } else { sum / blocks.len() as f64 }
}

fn similarity(a: &[f64], b: &[f64]) -> f64 {
    let (mut dot, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        dot += x * y;
        aa += x * x;
        bb += y * y;
    }
    if aa > 0.0 && bb > 0.0 { dot / (aa * bb).sqrt() } else { 0.0 }
}

/// The signalling of both sides in the order in which it was sent.
type Ladder = Arc<Mutex<Vec<(Instant, bool, String)>>>;

fn note(ladder: &Ladder, by_caller: bool, what: String) {
    ladder.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), by_caller, what));
}

struct Side {
    heard: Vec<i16>,
    sent: Vec<i16>,
    facts: Box<Connected>,
    stats: Option<CallStats>,
}

pub(super) async fn run(options: &Demo, output: &Output) -> Result<Exit, Failure> {
    std::fs::create_dir_all(&options.out)
        .map_err(|why| Failure::new(Exit::Usage, format!("{} cannot be made: {why}", options.out.display())))?;
    let started = Instant::now();
    let ladder = Ladder::default();
    let (caller, callee) = tokio::time::timeout(SET_UP_LIMIT, clients())
        .await
        .map_err(|_| Failure::new(Exit::Unreachable, "the serverless stream did not come up"))??;
    let (to, mut callee) = (callee.0, callee.1);
    let address = to.clone();
    output.line("two endpoints are up, joined by a serverless stream (XEP-0174) with pinned TLS on loopback");
    let length = Duration::from_secs(options.seconds);
    let answer = async {
        let incoming = loop {
            match callee.next_event().await {
                Some(ClientEvent::Incoming(incoming)) => break incoming,
                Some(ClientEvent::Signalled(by, what)) => note(&ladder, by == Party::Remote, what),
                Some(_) => {}
                None => return Err(Failure::new(Exit::Internal, "the answering side ended")),
            }
        };
        let mut talk = std::pin::pin!(talk_back(incoming));
        loop {
            tokio::select! {
                side = &mut talk => break side,
                event = callee.next_event() => if let Some(ClientEvent::Signalled(by, what)) = event {
                    note(&ladder, by == Party::Remote, what);
                },
            }
        }
    };
    let call = async {
        let mut call = caller.call(to).await?;
        let facts = connected(&mut call).await?;
        talk(&mut call, facts, &CALLER_NOTES, Some(length)).await
    };
    let (heard_by_caller, heard_by_callee) =
        tokio::time::timeout(SET_UP_LIMIT + length, async { tokio::join!(call, answer) })
            .await
            .map_err(|_| Failure::new(Exit::MediaFailed, "the call did not come to its end"))?;
    let (caller_side, callee_side) = (heard_by_caller?, heard_by_callee?);
    let mut files = Vec::new();
    let source = options.out.join("demo.bin");
    let fail = |why: std::io::Error| Failure::new(Exit::File, format!("{} cannot be written: {why}", source.display()));
    std::fs::write(&source, noise(FILE_BYTES)).map_err(fail)?;
    for ways in [WayKind::ALL.to_vec(), vec![WayKind::Ibb]] {
        let sent = file_over(&caller, &mut callee, &address, &source, ways, &ladder);
        let sent = tokio::time::timeout(FILE_LIMIT, sent).await;
        files.push(sent.map_err(|_| Failure::new(Exit::MediaFailed, "the file did not come to its end"))??);
    }
    while let Ok(Some(event)) = tokio::time::timeout(FRAME, callee.next_event()).await {
        if let ClientEvent::Signalled(by, what) = event {
            note(&ladder, by == Party::Remote, what);
        }
    }
    caller.close().await;
    callee.close().await;
    save(&options.out.join("caller.wav"), &caller_side.heard)?;
    save(&options.out.join("callee.wav"), &callee_side.heard)?;
    print_ladder(&ladder, started, output);
    for file in &files {
        file.report(output);
    }
    report(options, &caller_side, &callee_side, output)
}

/// Bytes that no hash of another file has.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..count.div_ceil(8)).flat_map(|_| next()).take(count).collect()
}

/// A file that went over and is the same there.
struct Over {
    way: Way,
    done: FileDone,
    took: Duration,
}

impl Over {
    fn report(&self, output: &Output) {
        let (way, seconds) = (self.way.as_str(), self.took.as_secs_f64());
        let rate = self.done.bytes as f64 / seconds;
        output.event(
            "file",
            json!({
                "name": self.done.name,
                "path": self.done.path.display().to_string(),
                "bytes": self.done.bytes,
                "sha256": self.done.sha256(),
                "verified": self.done.verified,
                "way": way,
                "seconds": seconds,
                "rate": rate.round(),
            }),
            &format!(
                "file: {} over {way} in {:.0} ms, {}/s from the offer to the verified file, hash verified",
                bytes(self.done.bytes as f64),
                seconds * 1000.0,
                bytes(rate)
            ),
        );
    }
}

/// Sends the file from the caller to the callee and compares what arrived.
async fn file_over(
    caller: &Client,
    callee: &mut Client,
    to: &Jid,
    source: &Path,
    ways: Vec<WayKind>,
    ladder: &Ladder,
) -> Result<Over, Failure> {
    let wrong = |text: &str| Failure::new(Exit::File, format!("the file did not arrive as it was: {text}"));
    let dir = source.with_file_name("received");
    // A file that a former demo left would not be overwritten, and the new one would get a number.
    match std::fs::remove_file(dir.join(source.file_name().unwrap_or_default())) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(wrong(&why.to_string())),
        Ok(()) | Err(_) => {}
    }
    std::fs::create_dir_all(&dir).map_err(|why| wrong(&why.to_string()))?;
    let started = Instant::now();
    let options = SendOptions { ways, ..SendOptions::default() };
    let mut sending = caller.send(to.clone(), vec![source.to_owned()], options).await?;
    let incoming = loop {
        match callee.next_event().await {
            Some(ClientEvent::IncomingFiles(incoming)) => break incoming,
            Some(ClientEvent::Signalled(by, what)) => note(ladder, by == Party::Remote, what),
            Some(_) => {}
            None => return Err(wrong("the receiving side ended")),
        }
    };
    let mut receiving = incoming.accept(ReceiveOptions::new(dir)).await?;
    let (mut way, mut done) = (None, None);
    loop {
        tokio::select! {
            event = receiving.next_event() => match event {
                Some(TransferEvent::Connected { way: by, .. }) => way = Some(by),
                Some(TransferEvent::Done(file)) => done = Some((file, started.elapsed())),
                Some(TransferEvent::Failed { text, .. }) => return Err(wrong(&text)),
                Some(TransferEvent::Ended(_)) | None => break,
                Some(_) => {}
            },
            event = callee.next_event() => if let Some(ClientEvent::Signalled(by, what)) = event {
                note(ladder, by == Party::Remote, what);
            },
        }
    }
    // The next transfer begins after the end of this one.
    sending.ended().await;
    let ((done, took), way) = done.zip(way).ok_or_else(|| wrong("the transfer ended before it"))?;
    let same = matches!((std::fs::read(source), std::fs::read(&done.path)), (Ok(a), Ok(b)) if a == b);
    if same && done.verified { Ok(Over { way, done, took }) } else { Err(wrong("another hash")) }
}

async fn clients() -> Result<(Client, (Jid, Client)), Failure> {
    let certificate = || SelfSigned::generate().map_err(|why| Failure::new(Exit::Internal, why.to_string()));
    let (one, two) = (certificate()?, certificate()?);
    let jid = |text: &str| Jid::new(text).map_err(|why| Failure::new(Exit::Internal, why.to_string()));
    let (caller_jid, callee_jid) = (jid("caller@offhook.invalid")?, jid("callee@offhook.invalid")?);
    let media = MediaConfig { lab: true, ..MediaConfig::default() };
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let callee = Client::builder()
        .account(callee_jid.clone())
        .serverless(loopback, Some(one.sha256()))
        .certificate(two.clone())
        .callers(Callers::Everyone)
        .show_signalling()
        .media(media.clone())
        .build()
        .await?;
    let listening = callee.listening().ok_or_else(|| Failure::new(Exit::Internal, "nobody listens"))?;
    let caller = Client::builder()
        .account(caller_jid)
        .connect(listening, two.sha256())
        .certificate(one)
        .media(media)
        .build()
        .await?;
    Ok((caller, (callee_jid, callee)))
}

async fn talk_back(incoming: Incoming) -> Result<Side, Failure> {
    let mut call = incoming.accept().await?;
    let facts = connected(&mut call).await?;
    talk(&mut call, facts, &CALLEE_NOTES, None).await
}

async fn connected(call: &mut Call) -> Result<Box<Connected>, Failure> {
    match call.connected().await {
        Ok(facts) => Ok(facts),
        Err(Some(ended)) => Err(Failure::new(Exit::MediaFailed, format!("{}: {:?}", ended.sentence(), ended.text))),
        Err(None) => Err(Failure::new(Exit::Internal, "the call vanished")),
    }
}

/// Plays the melody and listens until `length` is over or the other side hangs up.
async fn talk(
    call: &mut Call,
    facts: Box<Connected>,
    notes: &[f64; 8],
    length: Option<Duration>,
) -> Result<Side, Failure> {
    let (speaker, mut frames) = call.audio().await;
    let mut clock = tokio::time::interval(FRAME);
    let mut side = Side { heard: Vec::new(), sent: Vec::new(), facts, stats: None };
    let frames_due = length.map(|l| (l.as_millis() / FRAME.as_millis()) as u64);
    let mut sample = 0;
    let mut ticks = 0;
    loop {
        tokio::select! {
            _ = clock.tick() => {
                ticks += 1;
                // The tail lets the last notes out of the other side's jitter buffer.
                if frames_due.is_some_and(|due| ticks > due + TAIL_FRAMES) {
                    side.stats = call.stats().await.or(side.stats);
                    call.hang_up().await;
                    continue;
                }
                let mut frame: Frame = [0; FRAME_SAMPLES];
                if frames_due.is_some_and(|due| ticks > due) {
                    speaker.send(&frame).await;
                    continue;
                }
                for value in &mut frame {
                    *value = melody(notes, sample);
                    sample += 1;
                }
                side.sent.extend_from_slice(&frame);
                speaker.send(&frame).await;
                if ticks % 25 == 0 {
                    side.stats = call.stats().await.or(side.stats);
                }
            }
            Some(frame) = frames.recv() => side.heard.extend_from_slice(&frame),
            event = call.next_event() => if matches!(event, Some(CallEvent::Ended(_)) | None) {
                return Ok(side);
            },
        }
    }
}

fn save(path: &Path, pcm: &[i16]) -> Result<(), Failure> {
    let fail =
        |why: std::io::Error| Failure::new(Exit::Internal, format!("{} cannot be written: {why}", path.display()));
    let mut recorder = WavRecorder::create(path).map_err(fail)?;
    for chunk in pcm.chunks_exact(FRAME_SAMPLES) {
        if let Ok(frame) = <&Frame>::try_from(chunk) {
            crate::io::audio::AudioSink::write(&mut recorder, frame).map_err(fail)?;
        }
    }
    recorder.finish().map_err(fail)
}

fn print_ladder(ladder: &Ladder, started: Instant, output: &Output) {
    output.line("");
    output.line("     ms     caller                                                     callee");
    for (at, by_caller, what) in ladder.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let ms = at.duration_since(started).as_millis();
        let arrow = if *by_caller { "────▶" } else { "◀────" };
        output.line(&format!("{ms:7}     │ {arrow} {what:<44} {arrow} │"));
    }
    output.line("");
}

fn report(options: &Demo, caller: &Side, callee: &Side, output: &Output) -> Result<Exit, Failure> {
    let to_callee = correlation(&callee.heard, &caller.sent);
    let to_caller = correlation(&caller.heard, &callee.sent);
    for (name, side, score) in [("caller", caller, to_caller), ("callee", callee, to_callee)] {
        let facts = &side.facts;
        let mut fields = json!({
            "side": name,
            "setup_ms": facts.setup.as_secs_f64() * 1000.0,
            "codec": facts.codec.as_str(),
            "pair": format!("{}-{}", facts.kinds.0, facts.kinds.1),
            "correlation": score,
            "recording": options.out.join(format!("{name}.wav")).display().to_string(),
        });
        let mut line = format!(
            "{name}: set-up {:.0} ms, {} ↔ {}, {}",
            facts.setup.as_secs_f64() * 1000.0,
            facts.kinds.0,
            facts.kinds.1,
            facts.codec
        );
        if let Some(stats) = &side.stats {
            if let (Some(all), Some(more)) = (fields.as_object_mut(), stats_json(stats).as_object()) {
                all.extend(more.clone());
            }
            line.push_str(&format!(
                ", {} packets in, {} lost, jitter {:.1} ms, MOS {:.2}, {} kbit/s in",
                stats.packets_in,
                stats.lost_in,
                stats.jitter_ms,
                stats.mos,
                stats.bitrate_in_bps / 1000
            ));
        }
        line.push_str(&format!(", heard the other side with correlation {score:.3}"));
        output.event("demo", fields, &line);
    }
    if to_callee > CORRELATION && to_caller > CORRELATION {
        output.line(&format!("both recordings carry the other side's signal: {}", options.out.display()));
        Ok(Exit::Ok)
    } else {
        Err(Failure::new(
            Exit::MediaFailed,
            format!(
                "a recording does not carry the other side's signal (correlation must exceed {CORRELATION}). See the log with -vv."
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(notes: &[f64; 8], from: u64, samples: u64) -> Vec<i16> {
        (from..from + samples).map(|n| melody(notes, n)).collect()
    }

    #[test]
    fn a_delayed_copy_correlates_and_the_other_melody_does_not() {
        let sent = signal(&CALLER_NOTES, 0, 96_000);
        let mut heard = vec![0; 4_800];
        heard.extend_from_slice(&sent);
        assert!(correlation(&heard, &sent) > 0.99);
        assert!(correlation(&signal(&CALLEE_NOTES, 0, 96_000), &sent) < 0.5);
        assert!(correlation(&vec![0; 96_000], &sent) < 0.01);
    }
}
