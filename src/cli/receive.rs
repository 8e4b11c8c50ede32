//! `receive`: waits for offers of files, asks or follows a rule, takes what is wanted.

use super::args::Receive;
use super::call::{
    at, interrupted, online, peer_certificate, report_listening, sign_in, signalling, unattended as decides_alone,
};
use super::files::{Report, bytes, parse_size};
use super::keys::{Key, Keys};
use super::output::{Output, escaped};
use super::{Exit, Failure, account};
use crate::client::{ClientEvent, IncomingFiles, ReasonCondition, ReceiveOptions, Transfer};
use crate::error::Error;
use crate::wire::jid::BareJid;
use serde_json::json;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A sender whose transfer was lost has so long to go on, without being asked for anew.
const RESUME_LIMIT: Duration = Duration::from_secs(120);

/// A transfer that came to its end.
struct Taken {
    from: BareJid,
    names: Vec<String>,
    outcome: Result<Exit, Failure>,
    /// The sender may go on with it.
    lost: bool,
}

/// A transfer that was lost: the next offer of these files needs no new consent.
struct Lost {
    from: BareJid,
    names: Vec<String>,
    until: Instant,
}

/// `offhook receive`
pub(super) async fn run(options: &Receive, output: &Output) -> Result<Exit, Failure> {
    let rule = options.accept.as_deref().map(account::callers).transpose()?;
    let max_size = parse_size(&options.max_size)?;
    let dir = &options.dir;
    std::fs::create_dir_all(dir).map_err(|why| {
        Failure::new(Exit::File, format!("{} cannot be made: {why}", escaped(&dir.display().to_string())))
    })?;
    let unattended = decides_alone(rule.as_ref(), &options.account, "files are", "--accept", output);
    let claimed = options.account.serverless.is_some() && options.account.pin.is_none();
    let mut builder =
        account::builder(&options.account, &options.network, &[], account::Sip::default(), output)?.only_files();
    if let Some(rule) = &rule {
        builder = builder.callers(rule.clone());
    }
    let mut client = sign_in(builder, output).await?;
    report_listening(&client, output);
    output.line("waiting for files; Ctrl-C ends");
    // Who is let in once may add files to the transfer: senders often offer the first one alone.
    let to = ReceiveOptions { max_size: Some(max_size), further: true, ..ReceiveOptions::new(dir) };
    // Keys are read only where somebody is asked: otherwise Ctrl-C stays a signal.
    let mut keys = if unattended { None } else { Some(Keys::start()) };
    let mut taking: JoinSet<Taken> = JoinSet::new();
    let mut lost: Vec<Lost> = Vec::new();
    let mut last: Result<Exit, Failure> = Ok(Exit::Ok);
    let mut end_by: Option<Instant> = None;
    let outcome = loop {
        let idle = taking.is_empty();
        let event = tokio::select! {
            event = client.next_event() => event,
            Some(taken) = taking.join_next() => {
                let Ok(taken) = taken else { break Err(Failure::new(Exit::Internal, "a transfer broke")) };
                if options.once && !taken.lost && taking.is_empty() {
                    break taken.outcome;
                }
                if let Err(failure) = &taken.outcome {
                    output.error(&failure.text);
                }
                if taken.lost {
                    let until = Instant::now() + RESUME_LIMIT;
                    end_by = options.once.then_some(until);
                    lost.push(Lost { from: taken.from, names: taken.names, until });
                }
                last = taken.outcome;
                continue;
            }
            key = key(&mut keys) => match key {
                Key::Interrupt | Key::HangUp => break Ok(Exit::Interrupted),
                Key::Mute
                | Key::Hold
                | Key::Digit(_)
                | Key::Details
                | Key::Answer
                | Key::Typing(_)
                | Key::Transfer(_) => continue,
            },
            () = interrupted() => break Ok(Exit::Interrupted),
            () = at(end_by.filter(|_| idle)) => break last,
        };
        match event {
            Some(ClientEvent::IncomingFiles(incoming)) => {
                let from = incoming.from.to_bare();
                let names: Vec<String> = incoming.files.iter().map(|f| f.name.clone()).collect();
                lost.retain(|l| l.until > Instant::now());
                let resumes = |l: &Lost| l.from == from && names.iter().all(|n| l.names.contains(n));
                // An address that anybody can claim is nobody's consent.
                let known = !claimed && lost.iter().any(resumes);
                report_offer(&incoming, max_size, output);
                match ask(incoming, unattended || known, &mut keys, &to, output).await {
                    Ok(transfer) => drop(taking.spawn(take(transfer, from, names, output.clone()))),
                    // Others may come.
                    Err(failure) if failure.exit == Exit::Interrupted || (options.once && taking.is_empty()) => {
                        break Err(failure);
                    }
                    Err(failure) => output.error(&failure.text),
                }
            }
            Some(ClientEvent::Incoming(incoming)) => incoming.reject(ReasonCondition::Decline),
            Some(ClientEvent::Online(jid)) => online(jid.as_str(), output),
            Some(ClientEvent::Signalling(state)) => signalling(state, output),
            Some(ClientEvent::PeerCertificate(sha256, pinned)) => peer_certificate(&sha256, pinned, output),
            // Dropped, a request for a file is answered: there is none.
            Some(ClientEvent::FileRequested(_) | ClientEvent::Signalled(..)) => {}
            Some(ClientEvent::Refused(why)) => break Err(why.into()),
            None => break Ok(Exit::Unreachable),
        }
    };
    // What still runs is cancelled, its parts are kept.
    taking.shutdown().await;
    client.close().await;
    outcome
}

async fn key(keys: &mut Option<Keys>) -> Key {
    match keys {
        Some(keys) => keys.next().await,
        None => std::future::pending().await,
    }
}

/// Follows a transfer to its end.
async fn take(mut transfer: Transfer, from: BareJid, names: Vec<String>, output: Output) -> Taken {
    let mut report = Report::new(&output, false, from.as_str());
    while let Some(event) = transfer.next_event().await {
        if let Some(ended) = report.event(&transfer, event) {
            let lost = report.is_lost(&ended);
            return Taken { from, names, outcome: report.outcome(&ended), lost };
        }
    }
    Taken { from, names, outcome: Err(Failure::new(Exit::Unreachable, "the client has ended")), lost: false }
}

fn report_offer(incoming: &IncomingFiles, max_size: u64, output: &Output) {
    let files: Vec<serde_json::Value> = incoming
        .files
        .iter()
        .map(|f| json!({ "name": f.name, "size": f.size, "type": f.media_type, "date": f.date }))
        .collect();
    let from = escaped(incoming.from.as_str());
    let count = incoming.files.len();
    let size: u64 = incoming.files.iter().filter_map(|f| f.size).fold(0, u64::saturating_add);
    let line = match incoming.files.first() {
        Some(file) if count == 1 => {
            let size = file.size.map_or_else(|| "size unknown".to_owned(), |size| bytes(size as f64));
            format!("{from} offers {} ({size})", escaped(&file.name))
        }
        Some(_) | None => format!("{from} offers {count} files ({})", bytes(size as f64)),
    };
    let fields = json!({ "sid": incoming.sid, "from": incoming.from.as_str(), "media": ["file"], "files": files });
    output.event("incoming", fields, &line);
    for file in incoming.files.iter().filter(|f| f.size.is_some_and(|size| size > max_size)) {
        output.warning(&format!("{} is larger than --max-size and is declined", escaped(&file.name)));
    }
}

/// Takes an offer by rule or by key, or says why it is not taken.
async fn ask(
    mut incoming: IncomingFiles,
    unattended: bool,
    keys: &mut Option<Keys>,
    to: &ReceiveOptions,
    output: &Output,
) -> Result<Transfer, Failure> {
    let interrupt = || Failure::new(Exit::Interrupted, "interrupted");
    if !unattended {
        output.line("a or Enter accepts, q declines");
        loop {
            tokio::select! {
                key = key(keys) => match key {
                    Key::Answer => break,
                    Key::HangUp => {
                        incoming.reject(ReasonCondition::Decline);
                        return Err(Failure::new(Exit::Rejected, "declined"));
                    }
                    Key::Interrupt => {
                        incoming.reject(ReasonCondition::Decline);
                        return Err(interrupt());
                    }
                    Key::Mute | Key::Hold | Key::Digit(_) | Key::Details | Key::Typing(_) | Key::Transfer(_) => {}
                },
                _ended = incoming.over() => return Err(Failure::new(Exit::Rejected, "the sender gave up")),
                () = interrupted() => {
                    incoming.reject(ReasonCondition::Decline);
                    return Err(interrupt());
                }
            }
        }
    }
    incoming.accept(to.clone()).await.map_err(|why| {
        if let Error::Misuse(_) = why {
            return Failure::new(Exit::Rejected, "the sender gave up");
        }
        let hint = if let Error::Limit(_) = why { " See --max-size." } else { "" };
        let failure = Failure::from(why);
        Failure { text: format!("{}{hint}", failure.text), ..failure }
    })
}
