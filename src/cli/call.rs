//! `call` and `answer`: one call at a time, with sound, keys, a live line and an exit code.

use super::args::{Answer, Call as CallOptions, Media};
use super::keys::{Key, Keys};
use super::output::{Output, escaped};
use super::{Exit, Failure, account};
use crate::client::{
    Call, CallEvent, CallStats, Client, ClientEvent, Connected, EndKind, Ended, FRAME, Frame, Incoming, Party,
};
use crate::client::{Callers, ReasonCondition, Signalling};
use crate::io::audio::{AudioSink, AudioSource, NullAudio, ToneSource};
use crate::io::wav::{WavRecorder, WavSource};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

/// Time between two digits of `--dtmf`: the event itself and a pause that every menu hears.
const DIGIT_PACE: Duration = Duration::from_millis(250);
/// Time between connecting and `--transfer`.
const TRANSFER_PAUSE: Duration = Duration::from_secs(1);
/// What a hang-up may take before the program ends.
const HANG_UP_LIMIT: Duration = Duration::from_secs(3);

/// Where the sound of a call comes from and goes to.
pub(super) struct Sound {
    source: Box<dyn AudioSource>,
    sink: Box<dyn AudioSink>,
}

impl Sound {
    fn open(media: &Media) -> Result<Self, Failure> {
        let file = |what: &str, path: &std::path::Path, why: std::io::Error| {
            Failure::new(Exit::Usage, format!("{what} {}: {why}", path.display()))
        };
        let source: Box<dyn AudioSource> = if let Some(path) = &media.play {
            Box::new(WavSource::open(path, false).map_err(|why| file("cannot play", path, why))?)
        } else if let Some(hz) = media.tone {
            Box::new(ToneSource::new(f64::from(hz)))
        } else if media.null_audio {
            Box::new(NullAudio)
        } else {
            microphone()?
        };
        let sink: Box<dyn AudioSink> = if let Some(path) = &media.record {
            Box::new(WavRecorder::create(path).map_err(|why| file("cannot record to", path, why))?)
        } else if media.null_audio || media.tone.is_some() || media.play.is_some() {
            Box::new(NullAudio)
        } else {
            loudspeaker()?
        };
        Ok(Self { source, sink })
    }
}

#[cfg(feature = "audio-device")]
fn microphone() -> Result<Box<dyn AudioSource>, Failure> {
    crate::io::audio::Microphone::open(None).map(|m| Box::new(m) as Box<dyn AudioSource>).map_err(|why| {
        Failure::new(Exit::Config, format!("no microphone: {why}. Try --play FILE.wav or --null-audio."))
    })
}

#[cfg(feature = "audio-device")]
fn loudspeaker() -> Result<Box<dyn AudioSink>, Failure> {
    crate::io::audio::Speaker::open(None).map(|s| Box::new(s) as Box<dyn AudioSink>).map_err(|why| {
        Failure::new(Exit::Config, format!("no loudspeaker: {why}. Try --record FILE.wav or --null-audio."))
    })
}

#[cfg(not(feature = "audio-device"))]
const NO_DEVICE: &str =
    "this build has no sound card (cargo feature audio-device). Give --play FILE.wav, --tone HZ or --null-audio.";

#[cfg(not(feature = "audio-device"))]
fn microphone() -> Result<Box<dyn AudioSource>, Failure> {
    Err(Failure::new(Exit::Usage, NO_DEVICE))
}

#[cfg(not(feature = "audio-device"))]
fn loudspeaker() -> Result<Box<dyn AudioSink>, Failure> {
    Err(Failure::new(Exit::Usage, NO_DEVICE))
}

fn digits(text: Option<&str>) -> Result<Vec<char>, Failure> {
    let digits: Vec<char> = text.unwrap_or_default().chars().map(|c| c.to_ascii_uppercase()).collect();
    match digits.iter().find(|c| !matches!(c, '0'..='9' | '*' | '#' | 'A'..='D')) {
        Some(bad) => Err(Failure::new(Exit::Usage, format!("{bad:?} in --dtmf is no digit. Digits are 0-9 * # A-D."))),
        None => Ok(digits),
    }
}

/// `offhook call`
pub(super) async fn call(options: &CallOptions, output: &Output) -> Result<Exit, Failure> {
    let to = account::address(&options.address)?;
    let sip = account::Sip { media: options.media.security, direct: to.as_sip().is_some() };
    let dtmf = digits(options.media.dtmf.as_deref())?;
    let mut sound = Sound::open(&options.media)?;
    let mut client = sign_in(
        account::builder(&options.account, &options.media.network, &options.media.codec, sip, output)?.only_calls(),
        output,
    )
    .await?;
    let call = match client.call(to.clone()).await {
        Ok(call) => call,
        Err(why) => {
            client.close().await;
            return Err(why.into());
        }
    };
    output.line(&format!("calling {} …", escaped(to.as_str())));
    let limit = Some(Instant::now() + Duration::from_secs(options.timeout));
    let mut keys = Keys::start();
    let mut talk = Talk::new(call, &options.media, dtmf, limit, output);
    let exit = beside(&mut client, talk.run(&mut sound, &mut keys), output).await;
    drop(talk);
    client.close().await;
    exit
}

/// Runs a call and, beside it, answers what else comes: other callers hear that we are busy.
async fn beside(
    client: &mut Client,
    talk: impl Future<Output = Result<Exit, Failure>>,
    output: &Output,
) -> Result<Exit, Failure> {
    let mut talk = std::pin::pin!(talk);
    loop {
        let event = tokio::select! {
            exit = &mut talk => return exit,
            event = client.next_event() => event,
        };
        match event {
            Some(ClientEvent::Incoming(incoming)) => {
                let from = escaped(incoming.from.as_str());
                output.event(
                    "busy",
                    json!({ "from": incoming.from.as_str() }),
                    &format!("{from} calls too and hears that we are busy"),
                );
                incoming.reject(ReasonCondition::Busy);
            }
            // Dropped, an offer of files is declined, and a request for one.
            Some(ClientEvent::IncomingFiles(_) | ClientEvent::FileRequested(_)) => {}
            Some(ClientEvent::Signalling(state)) => signalling(state, output),
            Some(ClientEvent::PeerCertificate(sha256, pinned)) => peer_certificate(&sha256, pinned, output),
            Some(ClientEvent::Online(_) | ClientEvent::Signalled(..)) => {}
            Some(ClientEvent::Refused(why)) => output.warning(&why.to_string()),
            None => return talk.await,
        }
    }
}

/// `offhook answer`
pub(super) async fn answer(options: &Answer, output: &Output) -> Result<Exit, Failure> {
    let dtmf = digits(options.media.dtmf.as_deref())?;
    let automatic = options.auto_answer.as_deref().map(account::callers).transpose()?;
    let unattended = unattended(automatic.as_ref(), &options.account, "calls are", "--auto-answer", output);
    let sip = account::Sip { media: options.media.security, direct: false };
    let mut builder =
        account::builder(&options.account, &options.media.network, &options.media.codec, sip, output)?.only_calls();
    if let Some(callers) = &automatic {
        builder = builder.callers(callers.clone());
    }
    let mut client = sign_in(builder, output).await?;
    report_listening(&client, output);
    output.line("waiting for calls; Ctrl-C ends");
    // One reader for the whole command: a key pressed between two calls is not lost.
    let mut keys = Keys::start();
    let exit = loop {
        let event = tokio::select! {
            event = client.next_event() => event,
            key = keys.next() => match key {
                Key::Interrupt | Key::HangUp => break Exit::Interrupted,
                Key::Mute
                | Key::Hold
                | Key::Digit(_)
                | Key::Details
                | Key::Answer
                | Key::Typing(_)
                | Key::Transfer(_) => continue,
            },
            () = interrupted() => break Exit::Interrupted,
        };
        match event {
            Some(ClientEvent::Incoming(incoming)) => {
                let Some(call) = ask(incoming, unattended, &mut keys, output).await? else { continue };
                let mut sound = Sound::open(&options.media)?;
                let mut talk = Talk::new(call, &options.media, dtmf.clone(), None, output);
                let exit = match beside(&mut client, talk.run(&mut sound, &mut keys), output).await {
                    Ok(exit) => exit,
                    Err(failure) if options.once => {
                        client.close().await;
                        return Err(failure);
                    }
                    Err(failure) => {
                        output.error(&failure.text);
                        continue;
                    }
                };
                if options.once || exit == Exit::Interrupted {
                    break exit;
                }
            }
            Some(ClientEvent::Online(jid)) => online(jid.as_str(), output),
            Some(ClientEvent::Signalling(state)) => signalling(state, output),
            Some(ClientEvent::PeerCertificate(sha256, pinned)) => peer_certificate(&sha256, pinned, output),
            Some(ClientEvent::Signalled(..) | ClientEvent::IncomingFiles(_) | ClientEvent::FileRequested(_)) => {}
            Some(ClientEvent::Refused(why)) => return Err(why.into()),
            None => break Exit::Unreachable,
        }
    };
    client.close().await;
    Ok(exit)
}

/// Whether a rule about addresses decides alone. Without a pin anybody may come to a serverless listener and claim any
/// address: then it decides nothing.
pub(super) fn unattended(
    rule: Option<&Callers>,
    account: &super::args::Account,
    what: &str,
    flag: &str,
    output: &Output,
) -> bool {
    let claimed = account.serverless.is_some() && account.pin.is_none();
    match rule {
        Some(Callers::Everyone) => true,
        Some(Callers::Contacts | Callers::Listed(_)) if claimed => {
            output.warning(&format!(
                "--serverless without --pin: anybody can claim an address, so {what} not taken without asking. \
                 Give --pin HEX, or {flag} all."
            ));
            false
        }
        Some(Callers::Contacts | Callers::Listed(_)) => true,
        None => false,
    }
}

/// Takes a call by rule or by key; `None` if it is not taken.
async fn ask(
    mut incoming: Incoming,
    unattended: bool,
    keys: &mut Keys,
    output: &Output,
) -> Result<Option<Call>, Failure> {
    let from = escaped(incoming.from.as_str());
    output.event(
        "incoming",
        json!({ "sid": incoming.sid, "from": incoming.from.as_str(), "media": incoming.media }),
        &format!("{from} calls"),
    );
    if unattended {
        // Who may call at all was decided before anything rang.
        return Ok(incoming.accept().await.ok());
    }
    output.line("a or Enter answers, q declines");
    loop {
        tokio::select! {
            key = keys.next() => match key {
                Key::Answer => return Ok(incoming.accept().await.ok()),
                Key::HangUp | Key::Interrupt => {
                    incoming.reject(ReasonCondition::Decline);
                    return Ok(None);
                }
                Key::Mute | Key::Hold | Key::Digit(_) | Key::Details | Key::Typing(_) | Key::Transfer(_) => {}
            },
            ended = incoming.over() => {
                if let Some(ended) = ended {
                    report_end(&ended, output);
                }
                return Ok(None);
            }
            () = interrupted() => {
                incoming.reject(ReasonCondition::Decline);
                return Err(Failure::new(Exit::Interrupted, "interrupted"));
            }
        }
    }
}

pub(super) async fn sign_in(builder: crate::client::ClientBuilder, output: &Output) -> Result<Client, Failure> {
    let client = tokio::select! {
        client = builder.build() => client?,
        () = interrupted() => return Err(Failure::new(Exit::Interrupted, "interrupted")),
    };
    if let Some(address) = client.address() {
        online(address.as_str(), output);
    }
    Ok(client)
}

/// Where a serverless listener can be reached, and what the other side pins.
pub(super) fn report_listening(client: &Client, output: &Output) {
    if let Some(addr) = client.listening() {
        let pin: String = client.certificate_sha256().iter().map(|b| format!("{b:02x}")).collect();
        output.event(
            "listening",
            json!({ "addr": addr.to_string(), "pin": pin }),
            &format!("listening on {addr}, --pin {pin}"),
        );
    }
}

pub(super) fn online(jid: &str, output: &Output) {
    output.event("online", json!({ "jid": jid }), &format!("online as {jid}"));
}

pub(super) fn peer_certificate(sha256: &[u8; 32], pinned: bool, output: &Output) {
    let hex: Vec<String> = sha256.iter().map(|b| format!("{b:02X}")).collect();
    let hex = hex.join(":");
    let line = format!("peer certificate {hex} ({})", if pinned { "pinned" } else { "not pinned" });
    output.event("peer_certificate", json!({ "sha256": hex, "pinned": pinned }), &line);
}

pub(super) fn signalling(state: Signalling, output: &Output) {
    let (word, line) = match state {
        Signalling::Up => ("up", ""),
        Signalling::Reconnecting => {
            ("reconnecting", "the signalling connection is lost; trying again, what is under way goes on")
        }
        Signalling::Down => ("down", ""),
    };
    output.event("signalling", json!({ "state": word }), line);
}

/// Ctrl-C or SIGTERM. The listeners live as long as the program: one that came while nobody waited is not lost.
#[cfg(unix)]
pub(super) async fn interrupted() {
    use tokio::signal::unix::{Signal, SignalKind, signal};
    static LISTENERS: std::sync::OnceLock<Option<tokio::sync::Mutex<[Signal; 2]>>> = std::sync::OnceLock::new();
    let listen = || {
        let both = [signal(SignalKind::interrupt()).ok()?, signal(SignalKind::terminate()).ok()?];
        Some(tokio::sync::Mutex::new(both))
    };
    let Some(listeners) = LISTENERS.get_or_init(listen) else { return std::future::pending().await };
    let mut listeners = listeners.lock().await;
    let [interrupt, terminate] = &mut *listeners;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Ctrl-C.
#[cfg(not(unix))]
pub(super) async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// One call from its start to its end.
pub(super) struct Talk<'a> {
    call: Call,
    output: &'a Output,
    duration: Option<Duration>,
    digits: std::collections::VecDeque<char>,
    /// Give up when nobody has answered by then.
    answer_by: Option<Instant>,
    /// Where the other side is to be sent, and when.
    transfer: Option<String>,
    transfer_at: Option<Instant>,
    /// Where the other side sent us: our call there.
    next: Option<Box<Call>>,
    connected: bool,
    /// Sound comes before the other side has taken the call.
    early: bool,
    muted: bool,
    held: bool,
    details: bool,
    /// Set when we end the call for a reason that the exit code tells.
    own_exit: Option<Exit>,
    /// A hang-up that is not confirmed by then is taken for done.
    over_by: Option<Instant>,
}

impl<'a> Talk<'a> {
    pub(super) fn new(
        call: Call,
        media: &Media,
        digits: Vec<char>,
        answer_by: Option<Instant>,
        output: &'a Output,
    ) -> Self {
        Self {
            call,
            output,
            duration: media.duration.map(Duration::from_secs),
            digits: digits.into(),
            answer_by,
            transfer: media.transfer.clone(),
            transfer_at: None,
            next: None,
            connected: false,
            early: false,
            muted: false,
            held: false,
            details: false,
            own_exit: None,
            over_by: None,
        }
    }

    pub(super) async fn run(&mut self, sound: &mut Sound, keys: &mut Keys) -> Result<Exit, Failure> {
        let (mut speaker, mut heard) = self.call.audio().await;
        let mut clock = steady(FRAME);
        let mut second = steady(Duration::from_secs(1));
        let mut digit = steady(DIGIT_PACE);
        let mut end_by: Option<Instant> = None;
        let mut frame: Frame = [0; 960];
        loop {
            tokio::select! {
                biased;
                _ = clock.tick(), if self.connected || self.early => {
                    sound.source.read(&mut frame);
                    speaker.send(&frame).await;
                }
                Some(frame) = heard.recv() => if self.connected || self.early {
                    sound.sink.write(&frame).map_err(|why| Failure::new(Exit::Internal, format!("recording failed: {why}")))?;
                },
                event = self.call.next_event() => match event {
                    Some(CallEvent::Ended(ended)) => match self.next.take() {
                        Some(next) => {
                            self.call = *next;
                            (speaker, heard) = self.call.audio().await;
                        }
                        None => {
                            report_end(&ended, self.output);
                            return self.exit(&ended);
                        }
                    },
                    Some(event) => {
                        match &event {
                            CallEvent::Connected(_) => {
                                self.connected = true;
                                if !self.early {
                                    clock.reset();
                                }
                                second.reset();
                                end_by = end_by.or_else(|| self.duration.map(|d| Instant::now() + d));
                                self.transfer_at = self.transfer.as_ref().map(|_| Instant::now() + TRANSFER_PAUSE);
                            }
                            CallEvent::EarlyMedia if !self.early => {
                                self.early = true;
                                clock.reset();
                            }
                            CallEvent::EarlyMedia
                            | CallEvent::Ringing
                            | CallEvent::Accepted
                            | CallEvent::PathChanged { .. }
                            | CallEvent::Digit(_)
                            | CallEvent::Hold { .. }
                            | CallEvent::Mute { .. }
                            | CallEvent::Transfer { .. }
                            | CallEvent::Silent(_)
                            | CallEvent::Ended(_) => {}
                        }
                        self.report(event);
                    }
                    None => return Err(Failure::new(Exit::Unreachable, "the client has ended")),
                },
                event = next_of(&mut self.next), if self.next.is_some() => match event {
                    // The other side has sent us on: what we had with them is over.
                    Some(CallEvent::Connected(facts)) => {
                        if let Some(next) = self.next.take() {
                            self.call = *next;
                            (speaker, heard) = self.call.audio().await;
                            self.report(CallEvent::Connected(facts));
                        }
                    }
                    Some(CallEvent::Ended(_)) | None => self.next = None,
                    Some(_) => {}
                },
                key = keys.next() => self.handle_key(key).await,
                _ = second.tick(), if self.connected => self.report_stats().await,
                _ = digit.tick(), if self.connected && !self.digits.is_empty() => {
                    if let Some(digit) = self.digits.pop_front() {
                        self.send_digit(digit).await;
                    }
                }
                () = at(self.transfer_at) => {
                    self.transfer_at = None;
                    if let Some(to) = self.transfer.take() {
                        self.transfer_to(&to).await;
                    }
                }
                () = at(end_by) => {
                    end_by = None;
                    self.call.hang_up().await;
                }
                () = at(self.answer_by), if !self.connected => {
                    self.answer_by = None;
                    self.end(Exit::NoAnswer).await;
                }
                () = interrupted(), if self.own_exit != Some(Exit::Interrupted) => self.end(Exit::Interrupted).await,
                () = at(self.over_by) => return Ok(self.own_exit.unwrap_or(Exit::Internal)),
            }
        }
    }

    async fn end(&mut self, exit: Exit) {
        self.own_exit = Some(exit);
        self.over_by = Some(Instant::now() + HANG_UP_LIMIT);
        self.call.hang_up().await;
    }

    async fn handle_key(&mut self, key: Key) {
        let outcome = match key {
            Key::Mute => {
                self.muted = !self.muted;
                self.call.mute(self.muted).await
            }
            Key::Hold => {
                let done = self.call.hold(!self.held).await;
                self.held ^= done.is_ok();
                done
            }
            Key::Digit(digit) => self.call.send_dtmf(digit).await,
            Key::Typing(text) => {
                self.output.status(&format!("transfer to: {}", escaped(&text)));
                Ok(())
            }
            Key::Transfer(to) if to.is_empty() => Ok(()),
            Key::Transfer(to) => {
                self.transfer_to(&to).await;
                Ok(())
            }
            Key::Details => {
                self.details = !self.details;
                Ok(())
            }
            Key::HangUp => {
                self.call.hang_up().await;
                Ok(())
            }
            Key::Interrupt => {
                self.end(Exit::Interrupted).await;
                Ok(())
            }
            Key::Answer => Ok(()),
        };
        if let Err(why) = outcome {
            self.output.warning(&why.to_string());
        }
    }

    async fn transfer_to(&self, text: &str) {
        let outcome = match account::address(text) {
            Ok(to) => self.call.transfer(to).await.map_err(|why| why.to_string()),
            Err(why) => Err(why.text),
        };
        if let Err(why) = outcome {
            self.output.warning(&format!("no transfer: {why}"));
        }
    }

    async fn send_digit(&self, digit: char) {
        if let Err(why) = self.call.send_dtmf(digit).await {
            self.output.warning(&format!("{digit} was not sent: {why}"));
        }
    }

    fn report(&mut self, event: CallEvent) {
        let out = self.output;
        match &event {
            CallEvent::EarlyMedia => out.event("early_media", json!({}), "sound comes before the answer"),
            CallEvent::Transfer { by, to, step, .. } => {
                let words = if *by == Party::Remote { "followed" } else { step.as_str() };
                let line = match by {
                    Party::Local => format!("transfer to {}: {}", escaped(to.as_str()), step.as_str()),
                    Party::Remote => format!("the other side sends us to {}", escaped(to.as_str())),
                };
                out.event("transfer", json!({ "target": to.as_str(), "state": words, "by": by.as_str() }), &line);
            }
            CallEvent::Ringing => out.event("ringing", json!({}), "ringing"),
            CallEvent::Accepted => out.event("accepted", json!({}), "accepted"),
            CallEvent::Connected(facts) => report_connected(facts, out),
            CallEvent::PathChanged { kinds, path } => out.event(
                "path",
                json!({ "local": path.local.to_string(), "remote": path.remote.to_string(), "pair": format!("{}-{}", kinds.0, kinds.1) }),
                &format!("the path changed to {} ↔ {}", kinds.0, kinds.1),
            ),
            CallEvent::Digit(digit) => out.event("dtmf", json!({ "digit": digit.to_string() }), &format!("digit {digit}")),
            CallEvent::Hold { on, by } => out.event("hold", json!({ "on": on, "by": by.as_str() }), &hold_line(*on, *by)),
            CallEvent::Mute { on, by } => out.event(
                "mute",
                json!({ "on": on, "by": by.as_str() }),
                match (on, by) {
                    (true, Party::Local) => "muted",
                    (false, Party::Local) => "unmuted",
                    (true, Party::Remote) => "the other side is muted",
                    (false, Party::Remote) => "the other side is not muted any more",
                },
            ),
            CallEvent::Silent(true) => out.event("silent", json!({ "on": true }), "nothing is heard: no media arrives"),
            CallEvent::Silent(false) => out.event("silent", json!({ "on": false }), "media arrives again"),
            CallEvent::Ended(_) => {}
        }
        if let CallEvent::Transfer { next: Some(next), .. } = event {
            self.next = Some(next);
        }
    }

    async fn report_stats(&self) {
        let Some(stats) = self.call.stats().await else { return };
        self.output.event("stats", stats_json(&stats), "");
        let rtt = stats.rtt.map_or_else(|| "–".to_owned(), |r| format!("{:.0}", r.as_secs_f64() * 1000.0));
        let mut line = format!(
            "MOS {:.1}  rtt {rtt} ms  loss {:.1} % in {:.1} % out  jitter {:.0} ms  buffer {:.0} ms",
            stats.mos,
            stats.loss_in * 100.0,
            stats.loss_out * 100.0,
            stats.jitter_ms,
            stats.buffer_ms
        );
        if self.details {
            line.push_str(&format!(
                "  {}  {} kbit/s in {} out  {} packets in {} out",
                stats.codec,
                stats.bitrate_in_bps / 1000,
                stats.bitrate_out_bps / 1000,
                stats.packets_in,
                stats.packets_out
            ));
        }
        self.output.status(&line);
    }

    fn exit(&self, ended: &Ended) -> Result<Exit, Failure> {
        if let Some(exit) = self.own_exit {
            if exit == Exit::NoAnswer {
                return Err(Failure::new(exit, "nobody answered. Try again later, or give a longer --timeout."));
            }
            return Ok(exit);
        }
        let (exit, hint) = match ended.kind {
            EndKind::Completed => return Ok(Exit::Ok),
            EndKind::Cancelled => (Exit::Rejected, "The other side gave up."),
            EndKind::Rejected => (Exit::Rejected, "Try again later."),
            EndKind::NoAnswer => (Exit::NoAnswer, "Try again later, or give a longer --timeout."),
            EndKind::Unavailable => {
                (Exit::PeerUnavailable, "Check the address, and that a device that takes calls is online there.")
            }
            EndKind::MediaFailed => {
                let hint = "Try --relay-only with a TURN server (--turn, or one that your server names); \
                            on one machine give --lab to both sides.";
                (Exit::MediaFailed, hint)
            }
            EndKind::Security => {
                (Exit::Security, "Nothing was heard or sent. Compare the fingerprints with the other side.")
            }
            EndKind::Limit => (Exit::Limit, "The other side does not take this call now."),
            EndKind::SignallingLost => (Exit::Unreachable, "Check the network and the server."),
            EndKind::Unauthorized => (
                Exit::Authentication,
                "Check the account and its password (--password-file, OFFHOOK_PASSWORD, --auth-user).",
            ),
            EndKind::File | EndKind::Failed => (Exit::Internal, "Run again with -vv to see why."),
        };
        let why = match (&ended.text, ended.reason) {
            (Some(text), _) => format!(" ({})", escaped(text)),
            (None, Some(reason)) => format!(" ({})", reason.in_words()),
            (None, None) => String::new(),
        };
        Err(Failure::new(exit, format!("{}{why}. {hint}", ended.sentence())))
    }
}

async fn next_of(next: &mut Option<Box<Call>>) -> Option<CallEvent> {
    next.as_mut()?.next_event().await
}

pub(super) fn steady(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
    interval
}

pub(super) async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

fn hold_line(on: bool, by: Party) -> String {
    match (on, by) {
        (true, Party::Local) => "on hold by us".to_owned(),
        (false, Party::Local) => "taken back".to_owned(),
        (true, Party::Remote) => "the other side put us on hold".to_owned(),
        (false, Party::Remote) => "the other side took us back".to_owned(),
    }
}

fn report_connected(facts: &Connected, output: &Output) {
    let pair = format!("{}-{}", facts.kinds.0, facts.kinds.1);
    output.event(
        "connected",
        json!({
            "setup_ms": facts.setup.as_millis() as u64,
            "local": facts.path.local.to_string(),
            "remote": facts.path.remote.to_string(),
            "pair": pair,
            "codec": facts.codec.as_str(),
            "dtls_fingerprint": facts.dtls_fingerprint,
            "encrypted": facts.profile.is_some(),
        }),
        &format!("connected after {} ms: {}, {}", facts.setup.as_millis(), facts.codec, pair.replace('-', " ↔ ")),
    );
    if let Some(fingerprint) = &facts.dtls_fingerprint {
        output.line(&format!("the other side's certificate: {fingerprint}"));
    }
}

pub(super) fn stats_json(stats: &CallStats) -> serde_json::Value {
    json!({
        "rtt_ms": stats.rtt.map(|r| r.as_secs_f64() * 1000.0),
        "loss_in": stats.loss_in,
        "loss_out": stats.loss_out,
        "jitter_ms": stats.jitter_ms,
        "buffer_ms": stats.buffer_ms,
        "mos": stats.mos,
        "bitrate_in": stats.bitrate_in_bps,
        "bitrate_out": stats.bitrate_out_bps,
        "packets_in": stats.packets_in,
        "packets_out": stats.packets_out,
        "lost_in": stats.lost_in,
        "concealed_ms": stats.concealed_ms,
        "dropped_datagrams": stats.dropped_datagrams,
    })
}

pub(super) fn report_end(ended: &Ended, output: &Output) {
    let text = ended.text.as_deref().map(escaped);
    output.event(
        "ended",
        json!({
            "reason": ended.reason.map(|r| r.as_str()),
            "by": ended.by.as_str(),
            "duration_s": ended.duration.as_secs_f64(),
            "text": text,
        }),
        &format!("{} after {:.1} s", ended.sentence(), ended.duration.as_secs_f64()),
    );
}
