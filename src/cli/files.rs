//! What `send` and `receive` have in common: sizes in words, the line of progress, the events of a transfer, exit codes.

use super::output::{Output, escaped};
use super::{Exit, Failure};
use crate::client::{EndKind, Ended, FileDone, Party, Progress, Transfer, TransferEvent};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Scripts hear of progress so often.
const JSON_PACE: Duration = Duration::from_secs(1);
/// Columns of a terminal that does not say how many it has.
const COLUMNS: usize = 80;
/// Cells of the bar.
const BAR: usize = 20;

/// `0 B`, `999 B`, `1.5 kB`, `12 MB`: powers of 1000, as disks and networks count.
pub(super) fn bytes(count: f64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (count.max(0.0), 0);
    // What would be rounded up to 1000 is the next unit's 1.0.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 || value >= 9.95 { format!("{value:.0} {name}") } else { format!("{value:.1} {name}") }
}

/// `0:05`, `12:34`, `1:02:03`
pub(super) fn clock(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_millis() >= 500);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Bytes of `123`, `10G`, `1.5M`, `64 KiB`: powers of 1024.
pub(super) fn parse_size(text: &str) -> Result<u64, Failure> {
    let wrong =
        || Failure::new(Exit::Usage, format!("{text:?} is no size. Sizes are bytes, or numbers with K, M, G or T."));
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at_checked(digits).ok_or_else(wrong)?;
    let shift = match unit.trim().to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(wrong);
    }
    let fraction: f64 = number.parse().map_err(|_| wrong())?;
    let size = fraction * (1_u64 << shift) as f64;
    if size.is_finite() && size < u64::MAX as f64 { Ok(size as u64) } else { Err(wrong()) }
}

/// One line that the next one replaces, no longer than `columns` characters.
pub(super) fn progress_line(name: &str, progress: &Progress, columns: usize) -> String {
    let mut facts = String::new();
    if let Some(total) = progress.total {
        let share = if total == 0 { 1.0 } else { (progress.bytes as f64 / total as f64).min(1.0) };
        let full = (share * BAR as f64) as usize;
        facts.push_str(&format!("  [{}{}]", "#".repeat(full), "-".repeat(BAR - full)));
        // 100 % is said when the file is there and not before.
        facts.push_str(&format!(
            "  {:2.0} %  {} of {}",
            (share * 100.0).floor().min(99.0),
            bytes(progress.bytes as f64),
            bytes(total as f64)
        ));
    } else {
        facts.push_str(&format!("  {}", bytes(progress.bytes as f64)));
    }
    facts.push_str(&format!("  {}/s", bytes(progress.rate)));
    if let Some(left) = progress.time_left() {
        facts.push_str(&format!("  {} left", clock(left)));
    }
    let room = columns.saturating_sub(1).saturating_sub(facts.chars().count());
    let mut line = shortened(name, room.max(8));
    line.push_str(&facts);
    line.chars().take(columns.saturating_sub(1)).collect()
}

/// The beginning and the end of a name that is too long.
fn shortened(name: &str, room: usize) -> String {
    let length = name.chars().count();
    if length <= room {
        return name.to_owned();
    }
    let tail = room / 2;
    let head = room - tail - 1;
    name.chars().take(head).chain(['…']).chain(name.chars().skip(length - tail)).collect()
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Done,
    Declined,
    Failed(EndKind, String),
}

/// Tells people and scripts what happens in one transfer, and keeps what decides the exit code.
#[derive(Debug)]
pub(super) struct Report {
    output: Output,
    sending: bool,
    /// The other side, as it may be shown.
    peer: String,
    told: BTreeMap<usize, Instant>,
    fates: BTreeMap<usize, Fate>,
    /// The other side has taken a file.
    accepted: bool,
    /// Bytes have flowed.
    begun: bool,
}

impl Report {
    pub(super) fn new(output: &Output, sending: bool, peer: &str) -> Self {
        Self {
            output: output.clone(),
            sending,
            peer: escaped(peer),
            told: BTreeMap::new(),
            fates: BTreeMap::new(),
            accepted: false,
            begun: false,
        }
    }

    /// One event; how the transfer ended, if it was the last.
    pub(super) fn event(&mut self, transfer: &Transfer, event: TransferEvent) -> Option<Ended> {
        match event {
            TransferEvent::Accepted { file, offset } => {
                let name = transfer.name(file);
                let first = !std::mem::replace(&mut self.accepted, true);
                let line = match (offset, first) {
                    (0, true) => format!("{} accepts", self.peer),
                    (0, false) => String::new(),
                    (offset, _) => format!("{}: goes on at {}", escaped(name), bytes(offset as f64)),
                };
                self.output.event("accepted", json!({ "name": name, "offset": offset }), &line);
            }
            TransferEvent::Declined { file } => {
                let name = transfer.name(file);
                self.fates.insert(file, Fate::Declined);
                let line = format!("{} declines {}", self.peer, escaped(name));
                self.output.event("declined", json!({ "name": name }), &line);
            }
            TransferEvent::Offered(offers) => {
                for offer in offers {
                    let line = format!("{} adds {}", self.peer, escaped(&offer.name));
                    self.output.event("offered", json!({ "name": offer.name, "size": offer.size }), &line);
                }
            }
            TransferEvent::Connected { file, way } => {
                let name = transfer.name(file);
                self.begun = true;
                let line = format!("{}: over {}", escaped(name), way.as_str());
                self.output.event("connected", json!({ "name": name, "way": way.as_str() }), &line);
            }
            TransferEvent::Falling { file, from, to } => {
                let name = transfer.name(file);
                let line = format!("{}: {} does not work, trying {}", escaped(name), from.as_str(), to.as_str());
                let fields = json!({ "name": name, "from": from.as_str(), "to": to.as_str() });
                self.output.event("fallback", fields, &line);
            }
            TransferEvent::Progress(progress) => self.progress(transfer, &progress),
            TransferEvent::Done(done) => self.done(&done),
            TransferEvent::Failed { file, kind, text } => {
                let name = transfer.name(file);
                let line = format!("{}: {}", escaped(name), escaped(&text));
                self.output.event("failed", json!({ "name": name, "text": escaped(&text) }), &line);
                self.fates.insert(file, Fate::Failed(kind, text));
            }
            TransferEvent::Ended(ended) => {
                self.ended(&ended);
                return Some(ended);
            }
        }
        None
    }

    fn progress(&mut self, transfer: &Transfer, progress: &Progress) {
        let name = transfer.name(progress.file);
        let now = Instant::now();
        if self.told.get(&progress.file).is_none_or(|told| now.duration_since(*told) >= JSON_PACE) {
            self.told.insert(progress.file, now);
            let fields = json!({
                "name": name,
                "bytes": progress.bytes,
                "total": progress.total,
                "rate": progress.rate.round(),
            });
            self.output.event("progress", fields, "");
        }
        if self.output.live() {
            let columns = crossterm::terminal::size().map_or(COLUMNS, |(columns, _)| usize::from(columns));
            self.output.status(&progress_line(&escaped(name), progress, columns));
        }
    }

    fn done(&mut self, done: &FileDone) {
        self.fates.insert(done.file, Fate::Done);
        let sha256 = done.sha256();
        let checked = match (done.verified, self.sending) {
            (true, _) => "hash verified",
            (false, false) => "not verified: the sender gave no hash",
            (false, true) => "sent",
        };
        let place = if self.sending { done.name.clone() } else { done.path.display().to_string() };
        self.output.event(
            "file",
            json!({
                "name": done.name,
                "path": done.path.display().to_string(),
                "bytes": done.bytes,
                "sha256": sha256,
                "verified": done.verified,
            }),
            &format!("{}: {}, {checked}", escaped(&place), bytes(done.bytes as f64)),
        );
    }

    fn ended(&self, ended: &Ended) {
        self.output.event(
            "ended",
            json!({
                "reason": ended.reason.map(|r| r.as_str()),
                "by": ended.by.as_str(),
                "duration_s": ended.duration.as_secs_f64(),
                "text": ended.text.as_deref().map(escaped),
                "files": self.fates.values().filter(|f| **f == Fate::Done).count(),
            }),
            "",
        );
    }

    /// The file will not come to another end by a further attempt.
    pub(super) fn is_settled(&self, file: usize) -> bool {
        match self.fates.get(&file) {
            Some(Fate::Done | Fate::Declined) => true,
            Some(Fate::Failed(kind, _)) => !is_lost(*kind),
            None => false,
        }
    }

    /// The transfer, or a file of it, was lost on the way, so that another attempt may succeed.
    pub(super) fn is_lost(&self, ended: &Ended) -> bool {
        let file = self.fates.values().any(|fate| matches!(fate, Fate::Failed(kind, _) if is_lost(*kind)));
        self.begun && (is_lost(ended.kind) || file)
    }

    /// The first file that no further attempt helps.
    pub(super) fn settled_failure(&self, ended: &Ended) -> Option<Failure> {
        self.fates.values().find_map(|fate| match fate {
            Fate::Declined => Some(Failure::new(Exit::Rejected, format!("{} declines a file.", self.peer))),
            Fate::Failed(kind, text) if !is_lost(*kind) => Some(self.failure(*kind, ended.by, Some(text))),
            Fate::Done | Fate::Failed(..) => None,
        })
    }

    /// What the program ends with.
    pub(super) fn outcome(&self, ended: &Ended) -> Result<Exit, Failure> {
        let lost = || {
            self.fates.values().find_map(|fate| match fate {
                Fate::Failed(kind, text) => Some(self.failure(*kind, ended.by, Some(text))),
                Fate::Done | Fate::Declined => None,
            })
        };
        let fault = self.settled_failure(ended).or_else(lost);
        match (fault, ended.kind) {
            (Some(fault), _) => Err(fault),
            (None, EndKind::Completed) => Ok(Exit::Ok),
            (None, kind) => {
                let reason = ended.reason.map(|r| r.in_words());
                Err(self.failure(kind, ended.by, ended.text.as_deref().or(reason)))
            }
        }
    }

    fn failure(&self, kind: EndKind, by: Party, why: Option<&str>) -> Failure {
        let peer = &self.peer;
        let (exit, what, hint) = match kind {
            EndKind::Completed => {
                (Exit::Internal, "the transfer ended before its files did".to_owned(), "Run again with -vv to see why.")
            }
            EndKind::Cancelled if by == Party::Local => (
                Exit::Interrupted,
                "cancelled".to_owned(),
                "What has arrived is kept: the same command goes on with it.",
            ),
            EndKind::Cancelled => (
                Exit::Rejected,
                format!("{peer} cancelled the transfer"),
                "What has arrived is kept: the same command goes on with it.",
            ),
            EndKind::Rejected => (Exit::Rejected, format!("{peer} declines"), "Ask there, or try again later."),
            EndKind::NoAnswer => {
                (Exit::NoAnswer, format!("no answer from {peer}"), "Try again when somebody is there to accept.")
            }
            EndKind::Unavailable => (
                Exit::PeerUnavailable,
                format!("{peer} cannot be reached or does not take files"),
                "Check the address, and that a device that takes files is online there.",
            ),
            EndKind::MediaFailed if self.begun => (
                Exit::MediaFailed,
                format!("the connection to {peer} was lost"),
                "What has arrived is kept: the same command goes on with it.",
            ),
            EndKind::MediaFailed => (
                Exit::MediaFailed,
                format!("no path to {peer}"),
                "The same command goes on where it ended. --transport ibb works wherever chat works; on one machine give --lab to both sides.",
            ),
            EndKind::Security => (
                Exit::Security,
                "the transfer is not safe".to_owned(),
                "Nothing of it was kept. Compare the fingerprints with the other side.",
            ),
            EndKind::Limit if self.sending => {
                (Exit::Limit, format!("a limit of {peer} forbids it"), "Ask there for a higher limit.")
            }
            EndKind::Limit => (Exit::Limit, "a limit forbids it".to_owned(), "See --max-size."),
            EndKind::Unauthorized => {
                (Exit::Authentication, "the server does not allow it".to_owned(), "Check the account and its password.")
            }
            EndKind::SignallingLost => (
                Exit::Unreachable,
                "the server connection is gone".to_owned(),
                "The same command goes on where it ended.",
            ),
            EndKind::File => (
                Exit::File,
                "a file cannot be read, written or trusted".to_owned(),
                "Nothing wrong has got its final name.",
            ),
            EndKind::Failed => (Exit::Internal, "the transfer failed".to_owned(), "Run again with -vv to see why."),
        };
        let why = why.map(|why| format!(" ({})", escaped(why))).unwrap_or_default();
        Failure::new(exit, format!("{what}{why}. {hint}"))
    }
}

/// A fault of the way, not of the file or of the people.
fn is_lost(kind: EndKind) -> bool {
    match kind {
        EndKind::MediaFailed | EndKind::SignallingLost | EndKind::Unavailable | EndKind::NoAnswer => true,
        EndKind::Completed
        | EndKind::Cancelled
        | EndKind::Rejected
        | EndKind::Security
        | EndKind::Limit
        | EndKind::Unauthorized
        | EndKind::File
        | EndKind::Failed => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes_are_said_in_three_digits() {
        let rows = [
            (0.0, "0 B"),
            (999.0, "999 B"),
            (999.6, "1.0 kB"),
            (1_500.0, "1.5 kB"),
            (9_960.0, "10 kB"),
            (12_345_678.0, "12 MB"),
            (999_600_000.0, "1.0 GB"),
            (5.4e9, "5.4 GB"),
            (-1.0, "0 B"),
        ];
        for (count, text) in rows {
            assert_eq!(bytes(count), text, "{count}");
        }
    }

    #[test]
    fn times_are_said_as_a_clock_does() {
        for (ms, text) in [(0, "0:00"), (499, "0:00"), (59_500, "1:00"), (754_000, "12:34"), (3_723_000, "1:02:03")] {
            assert_eq!(clock(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        let rows = [
            ("0", 0),
            ("123", 123),
            ("1k", 1024),
            ("1.5M", 1_572_864),
            ("10G", 10_737_418_240),
            ("64 KiB", 65_536),
            ("2tb", 2_199_023_255_552),
        ];
        for (text, size) in rows {
            assert_eq!(parse_size(text).unwrap(), size, "{text}");
        }
        for text in ["", "G", "-1", "1X", "1.2.3", "99999999999T", "1e5"] {
            assert_eq!(parse_size(text).unwrap_err().exit, Exit::Usage, "{text}");
        }
    }

    #[test]
    fn the_line_of_progress_fits_the_terminal() {
        let progress = Progress { file: 0, bytes: 5_000_000, total: Some(10_000_000), rate: 1_000_000.0 };
        let line = progress_line("report.pdf", &progress, 100);
        assert_eq!(line, "report.pdf  [##########----------]  50 %  5.0 MB of 10 MB  1.0 MB/s  0:05 left");
        let long = progress_line(&"long name ".repeat(30), &progress, 90);
        assert_eq!(long.chars().count(), 89);
        assert!(long.contains('…') && long.ends_with("left"), "{long}");
        for columns in [0, 1, 10, 40] {
            assert!(progress_line("report.pdf", &progress, columns).chars().count() <= columns);
        }
        let unknown = Progress { total: None, rate: 0.0, ..progress };
        assert_eq!(progress_line("a", &unknown, 100), "a  5.0 MB  0 B/s");
        // The last byte is not the end of it, and 0 bytes are no division by zero.
        let all = Progress { bytes: 10_000_000, ..progress };
        assert!(progress_line("a", &all, 100).contains("99 %"));
        assert!(progress_line("a", &Progress { total: Some(0), ..all }, 100).contains("99 %"));
    }

    #[test]
    fn only_what_was_lost_on_the_way_is_tried_again() {
        let ended = |kind| Ended { kind, reason: None, by: Party::Remote, duration: Duration::ZERO, text: None };
        let output = Output::silent();
        let mut report = Report::new(&output, true, "b@c.example");
        assert!(!report.is_lost(&ended(EndKind::Unavailable)), "nobody was there at all");
        report.begun = true;
        assert!(report.is_lost(&ended(EndKind::SignallingLost)));
        for kind in [EndKind::Completed, EndKind::Rejected, EndKind::Cancelled, EndKind::File, EndKind::Limit] {
            assert!(!report.is_lost(&ended(kind)), "{kind:?}");
        }
        report.fates.insert(0, Fate::Done);
        report.fates.insert(1, Fate::Failed(EndKind::File, "wrong hash".into()));
        report.fates.insert(2, Fate::Failed(EndKind::MediaFailed, "lost".into()));
        assert!(report.is_settled(0) && report.is_settled(1) && !report.is_settled(2) && !report.is_settled(3));
        assert!(report.is_lost(&ended(EndKind::Completed)));
    }

    #[test]
    fn the_exit_code_tells_why() {
        let ended = |kind| Ended { kind, reason: None, by: Party::Remote, duration: Duration::ZERO, text: None };
        let report = Report::new(&Output::silent(), true, "b\x1b@c.example");
        let rows = [
            (EndKind::Rejected, 7),
            (EndKind::Cancelled, 7),
            (EndKind::NoAnswer, 8),
            (EndKind::Unavailable, 6),
            (EndKind::MediaFailed, 9),
            (EndKind::Security, 10),
            (EndKind::File, 11),
            (EndKind::Limit, 12),
            (EndKind::SignallingLost, 5),
        ];
        for (kind, exit) in rows {
            let failure = report.outcome(&ended(kind)).unwrap_err();
            assert_eq!(failure.exit as u8, exit, "{kind:?}");
            assert!(!failure.text.contains('\x1b'), "{}", failure.text);
        }
        assert_eq!(report.outcome(&ended(EndKind::Completed)).unwrap(), Exit::Ok);
    }
}
