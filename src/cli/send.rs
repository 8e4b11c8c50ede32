//! `send`: files to somebody, taken up again a few times when the connection is lost in the middle.

use super::args::{Send, Transport};
use super::call::{at, interrupted, online, peer_certificate, report_listening, sign_in, signalling};
use super::files::{Report, bytes};
use super::output::{Output, escaped};
use super::{Exit, Failure, account};
use crate::client::{Client, ClientEvent, Entry, Misuse, Outbox, ReasonCondition, SendOptions, Signalling, WayKind};
use crate::error::Error;
use crate::wire::jid::Jid;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Attempts after the first; the other side may need a moment to come back.
const RETRY_AFTER: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(15)];
/// Signing in again may take so long.
const ONLINE_LIMIT: Duration = Duration::from_secs(60);
/// What a cancellation may take before the program ends.
const CANCEL_LIMIT: Duration = Duration::from_secs(3);

fn ways(transport: Transport) -> Vec<WayKind> {
    match transport {
        Transport::Auto => WayKind::ALL.to_vec(),
        Transport::S5b => vec![WayKind::S5b],
        Transport::DataChannel => vec![WayKind::DataChannel],
        Transport::Ibb => vec![WayKind::Ibb],
    }
}

/// `offhook send`
pub(super) async fn run(options: &Send, output: &Output) -> Result<Exit, Failure> {
    let to = account::jid(&options.address)?;
    let paths = options.files.clone();
    let outbox = tokio::task::spawn_blocking(move || Outbox::new(&paths))
        .await
        .map_err(|why| Failure::new(Exit::Internal, why.to_string()))?
        .map_err(|(path, fault)| Failure::from(Error::File { path, fault }))?;
    for path in &outbox.skipped {
        output.warning(&format!("{} is no regular file and is left out", escaped(&path.display().to_string())));
    }
    if outbox.files.is_empty() {
        return Err(Failure::new(Exit::File, "there is no file in what was named"));
    }
    let builder =
        account::builder(&options.account, &options.network, &[], account::Sip::default(), output)?.only_files();
    let client = sign_in(builder, output).await?;
    report_listening(&client, output);
    let mut sender = Sender {
        online: client.listening().is_none(),
        client,
        to,
        options: SendOptions { ways: ways(options.transport), ..SendOptions::default() },
        output,
    };
    let exit = sender.run(outbox.files).await;
    sender.client.close().await;
    exit
}

struct Sender<'a> {
    client: Client,
    online: bool,
    to: Jid,
    options: SendOptions,
    output: &'a Output,
}

/// How one attempt ended.
struct Attempt {
    outcome: Result<Exit, Failure>,
    /// Of a file that no further attempt helps.
    settled: Option<Failure>,
    /// Files that another attempt may bring over; empty if none would.
    left: Vec<Entry>,
}

impl Sender<'_> {
    async fn run(&mut self, mut files: Vec<Entry>) -> Result<Exit, Failure> {
        // A serverless listener waits for its peer; with a server we are signed in already.
        self.until_online(None).await?;
        let size: u64 = files.iter().map(|f| f.size).sum();
        let what = if files.len() == 1 { "1 file".to_owned() } else { format!("{} files", files.len()) };
        self.output.line(&format!("offering {what}, {}, to {} …", bytes(size as f64), escaped(self.to.as_str())));
        let mut settled = None;
        let mut pauses = RETRY_AFTER.into_iter();
        loop {
            let attempt = self.attempt(&files).await?;
            settled = settled.or(attempt.settled);
            let pause = if attempt.left.is_empty() { None } else { pauses.next() };
            let Some(pause) = pause else { return settled.map_or(attempt.outcome, Err) };
            files = attempt.left;
            let line = format!("the connection is lost; trying again in {} s", pause.as_secs());
            self.output.event("retry", json!({ "after_s": pause.as_secs(), "files": files.len() }), &line);
            self.pause(Instant::now() + pause).await?;
            self.until_online(Some(Instant::now() + ONLINE_LIMIT)).await?;
        }
    }

    /// Offers the files and follows the transfer to its end.
    async fn attempt(&mut self, files: &[Entry]) -> Result<Attempt, Failure> {
        let sent = tokio::select! {
            sent = self.client.send_entries(self.to.clone(), files.to_vec(), self.options.clone()) => sent,
            () = interrupted() => return Err(Failure::new(Exit::Interrupted, "interrupted")),
        };
        let mut transfer = match sent {
            Ok(transfer) => transfer,
            // It has gone again while the files were hashed.
            Err(Error::Misuse(Misuse::Offline)) => {
                let outcome = Err(Error::Misuse(Misuse::Offline).into());
                return Ok(Attempt { outcome, settled: None, left: files.to_vec() });
            }
            Err(why) => return Err(why.into()),
        };
        let mut report = Report::new(self.output, true, self.to.as_str());
        let mut cancelled: Option<Instant> = None;
        let ended = loop {
            tokio::select! {
                event = transfer.next_event() => match event {
                    Some(event) => if let Some(ended) = report.event(&transfer, event) {
                        break ended;
                    },
                    None => return Err(Failure::new(Exit::Unreachable, "the client has ended")),
                },
                event = self.client.next_event() => self.beside(event)?,
                () = interrupted(), if cancelled.is_none() => {
                    cancelled = Some(Instant::now() + CANCEL_LIMIT);
                    transfer.cancel().await;
                }
                () = at(cancelled) => return Err(Failure::new(Exit::Interrupted, "interrupted")),
            }
        };
        if cancelled.is_some() {
            return Err(Failure::new(Exit::Interrupted, "interrupted. The same command goes on where this ended."));
        }
        let mut left = Vec::new();
        if report.is_lost(&ended) {
            left.extend(files.iter().enumerate().filter(|(n, _)| !report.is_settled(*n)).map(|(_, f)| f.clone()));
        }
        Ok(Attempt { outcome: report.outcome(&ended), settled: report.settled_failure(&ended), left })
    }

    /// What else happens to the client: whoever calls or sends hears that we are busy.
    fn beside(&mut self, event: Option<ClientEvent>) -> Result<(), Failure> {
        match event {
            Some(ClientEvent::Incoming(incoming)) => incoming.reject(ReasonCondition::Busy),
            Some(ClientEvent::IncomingFiles(incoming)) => incoming.reject(ReasonCondition::Busy),
            Some(ClientEvent::Online(jid)) => {
                if !std::mem::replace(&mut self.online, true) {
                    online(jid.as_str(), self.output);
                }
            }
            Some(ClientEvent::Signalling(state)) => {
                self.online = state == Signalling::Up;
                signalling(state, self.output);
            }
            Some(ClientEvent::PeerCertificate(sha256, pinned)) => peer_certificate(&sha256, pinned, self.output),
            Some(ClientEvent::Refused(why)) => return Err(why.into()),
            // Dropped, a request for a file is answered: there is none.
            Some(ClientEvent::FileRequested(_) | ClientEvent::Signalled(..)) => {}
            None => return Err(Failure::new(Exit::Unreachable, "the client has ended")),
        }
        Ok(())
    }

    async fn pause(&mut self, until: Instant) -> Result<(), Failure> {
        loop {
            tokio::select! {
                () = sleep_until(until) => return Ok(()),
                event = self.client.next_event() => self.beside(event)?,
                () = interrupted() => return Err(Failure::new(Exit::Interrupted, "interrupted")),
            }
        }
    }

    async fn until_online(&mut self, limit: Option<Instant>) -> Result<(), Failure> {
        while !self.online {
            tokio::select! {
                event = self.client.next_event() => self.beside(event)?,
                () = at(limit) => {
                    let text = "the server cannot be reached any more. The same command goes on where this ended.";
                    return Err(Failure::new(Exit::Unreachable, text));
                }
                () = interrupted() => return Err(Failure::new(Exit::Interrupted, "interrupted")),
            }
        }
        Ok(())
    }
}
