//! What the driver does for files: streams and open files by the engine's names, and their reports back to it. No rule of
//! any protocol is here. Read `endpoint/file_event.rs` before touching this file.

use super::bytestream::{BytestreamReport, Bytestreams, Streamhost, own_networks};
use super::disk::{Entry, FileReport, FileWorker, Part, Receipt};
use super::dns::Dns;
use super::udp::BindPolicy;
use crate::config::BytestreamLimits;
use crate::endpoint::file_event::{FileId, FileInput, FileOutput, TransferId};
use crate::file::{FileFault, FileJob, Verdict};
use crate::transport::s5b::StreamId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Reports of workers and streams that may wait; a full queue makes them wait.
const QUEUE: usize = 256;

/// What is still closed and will be opened when both sides want it.
#[derive(Debug)]
enum Closed {
    Source(Entry),
    Part(Part),
}

/// What a worker says, and of which file.
type Reported = (FileId, FileReport);

/// Files and streams of all transfers.
#[derive(Debug)]
pub(super) struct Files {
    streams: Bytestreams<FileId>,
    stream_reports: mpsc::Receiver<BytestreamReport<FileId>>,
    closed: BTreeMap<FileId, Closed>,
    open: BTreeMap<FileId, FileWorker>,
    progress: BTreeMap<FileId, Arc<AtomicU64>>,
    /// Files that were finished lately, the oldest first.
    receipts: VecDeque<(Instant, Receipt)>,
    file_reports: (mpsc::Sender<Reported>, mpsc::Receiver<Reported>),
}

/// A sender who has not heard that its file arrived sends it again within minutes. A program that is killed leaves the
/// receipts; one that ends takes them away.
const REMEMBERED: Duration = Duration::from_secs(600);
/// And so many files.
const RECEIPTS: usize = 256;

/// A silent peer is asked after so long, and again after each interval; so many questions without an answer end it.
const KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// For a thread of its own, which must not wait for ever where the path died without a word.
fn blocking(tcp: &std::net::TcpStream) -> std::io::Result<()> {
    let (idle, interval, count) = KEEP_ALIVE;
    let keep_alive = socket2::TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(count);
    let socket = socket2::SockRef::from(tcp);
    socket.set_tcp_keepalive(&keep_alive)?;
    // What was sent and is not acknowledged.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(idle + interval * count))?;
    tcp.set_nonblocking(false)
}

impl Files {
    pub(super) fn new(dns: Dns) -> Self {
        let (sender, stream_reports) = mpsc::channel(QUEUE);
        Self {
            streams: Bytestreams::new(sender, dns, BytestreamLimits::default()),
            stream_reports,
            closed: BTreeMap::new(),
            open: BTreeMap::new(),
            progress: BTreeMap::new(),
            receipts: VecDeque::new(),
            file_reports: mpsc::channel(QUEUE),
        }
    }

    /// A file that will be sent once the peer takes it.
    pub(super) fn offer(&mut self, id: FileId, entry: Entry) {
        self.closed.insert(id, Closed::Source(entry));
    }

    /// A file that will be received once the way stands.
    pub(super) fn expect(&mut self, id: FileId, part: Part) {
        self.closed.insert(id, Closed::Part(part));
    }

    /// Bytes of the whole file that are through, those before the offset included.
    pub(super) fn progress(&self, id: FileId) -> Option<u64> {
        self.progress.get(&id).map(|p| p.load(Ordering::Relaxed))
    }

    /// The next report, as the engine's input.
    pub(super) async fn next(&mut self) -> FileInput {
        tokio::select! {
            Some(report) = self.stream_reports.recv() => match report {
                BytestreamReport::Open { key, stream, local } => FileInput::StreamOpen { id: key, stream, local },
                BytestreamReport::Down { key, stream, why } => {
                    tracing::debug!(file = %key, stream = stream.0, %why, "no stream");
                    FileInput::StreamDown { id: key, stream }
                }
            },
            Some((id, report)) = self.file_reports.1.recv() => match report {
                FileReport::Carried(result) => FileInput::Carried { id, result },
                FileReport::Left => FileInput::Left { id },
                FileReport::Bytes { bytes, end } => FileInput::Bytes { id, bytes, end },
                FileReport::Written(bytes) => FileInput::Written { id, bytes },
                FileReport::Fault(fault) => FileInput::Fault { id, fault },
                FileReport::Kept(path) => {
                    self.remember(id);
                    FileInput::Kept { id, path }
                }
            },
            else => std::future::pending().await,
        }
    }

    /// Does what the engine wants; gives what is known of it at once.
    pub(super) async fn handle(&mut self, output: FileOutput) -> Option<FileInput> {
        match output {
            FileOutput::Open { id, job } => return self.begin(id, job),
            FileOutput::Listen { id, dst_addrs, lab } => {
                let policy = BindPolicy { lab, ..BindPolicy::default() };
                let bound = self.streams.listen(id, dst_addrs, &policy).await.unwrap_or_else(|why| {
                    tracing::warn!(%why, "no listener for a bytestream");
                    Vec::new()
                });
                return Some(FileInput::Listening { id, bound, networks: own_networks() });
            }
            FileOutput::Dial { id, stream, host, port, dst_addr, by, policy } => {
                self.streams.dial(id, stream, Streamhost { host, port, dst_addr, policy }, by);
            }
            FileOutput::HangUp { id, stream } => self.streams.hang_up(id, stream),
            FileOutput::Carry { id, stream } => return self.carry(id, stream).await,
            FileOutput::Read { id, most } => self.with(id, |worker| worker.read(most)),
            FileOutput::Write { id, bytes } => self.with(id, |worker| worker.write(bytes)),
            FileOutput::WriteEnd(id) => self.with(id, FileWorker::end),
            FileOutput::Judge { id, verdict } => {
                self.with(id, |worker| worker.judge(verdict));
                if verdict != Verdict::Keep {
                    self.open.remove(&id);
                }
            }
            FileOutput::CloseStreams(id) => self.streams.close(id),
            FileOutput::Close(transfer) => self.close(transfer),
        }
        None
    }

    fn remember(&mut self, id: FileId) {
        let now = Instant::now();
        while self.receipts.front().is_some_and(|(at, _)| now > *at + REMEMBERED) || self.receipts.len() >= RECEIPTS {
            self.receipts.pop_front();
        }
        if let Some(receipt) = self.open.get(&id).and_then(FileWorker::receipt) {
            self.receipts.push_back((now, receipt));
        }
    }

    fn with(&self, id: FileId, what: impl FnOnce(&FileWorker)) {
        if let Some(worker) = self.open.get(&id) {
            what(worker);
        }
    }

    fn begin(&mut self, id: FileId, job: FileJob) -> Option<FileInput> {
        let reports = self.file_reports.0.clone();
        let report = move |report| {
            // The driver may be gone.
            let _ = reports.blocking_send((id, report));
        };
        let worker = match self.closed.remove(&id) {
            Some(Closed::Source(entry)) => FileWorker::send(entry, job, report),
            Some(Closed::Part(part)) => FileWorker::receive(part, job, report),
            None => Err(FileFault::Missing),
        };
        match worker {
            Ok(worker) => {
                self.progress.insert(id, worker.progress());
                self.open.insert(id, worker);
                None
            }
            Err(fault) => Some(FileInput::Fault { id, fault }),
        }
    }

    async fn carry(&mut self, id: FileId, stream: StreamId) -> Option<FileInput> {
        let down = |why: &dyn std::fmt::Display| {
            let why = why.to_string();
            Some(FileInput::Carried { id, result: Err(crate::file::CarryFault::Stream { bytes: 0, why }) })
        };
        let Some(tcp) = self.streams.take(id, stream).await else { return down(&"the stream is gone") };
        match tcp.into_std().and_then(|tcp| blocking(&tcp).map(|()| tcp)) {
            Ok(tcp) => {
                self.with(id, |worker| worker.carry(tcp));
                None
            }
            Err(why) => down(&why),
        }
    }

    fn close(&mut self, transfer: TransferId) {
        let of = |id: &FileId| id.transfer == transfer;
        let ids: Vec<FileId> = self.closed.keys().chain(self.open.keys()).filter(|id| of(id)).copied().collect();
        for id in ids {
            self.streams.close(id);
        }
        self.closed.retain(|id, _| !of(id));
        // Dropped, a worker stops and keeps its part.
        self.open.retain(|id, _| !of(id));
        self.progress.retain(|id, _| !of(id));
    }
}
