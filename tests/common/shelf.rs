//! The shell's half of files in a world of virtual time: files in memory, streams without TCP. Included by `world.rs`.

use super::{Thing, World};
use offhook::endpoint::file_event::Wanted;
use offhook::endpoint::file_event::{FileEvent, FileId, FileInput, FileOutput, OutgoingFile, TransferId, WayKind};
use offhook::file::hash::Hashers;
use offhook::file::{Carried, CarryFault, FileFault, FileJob, Verdict};
use offhook::transport::dial::may_dial;
use offhook::transport::s5b::StreamId;
use offhook::wire::description::{FileDescription, HashAlgo};
use offhook::wire::jid::Jid;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Where a client's listeners are.
const LISTENER_PORT: u16 = 1080;

/// What is open, or was.
#[derive(Debug, Default)]
struct Job {
    send: bool,
    /// The whole file, or what is there of it.
    bytes: Vec<u8>,
    at: usize,
    end: usize,
    algos: Vec<HashAlgo>,
    started: bool,
    carried: bool,
}

/// Files of one client.
#[derive(Debug, Default)]
pub struct Shelf {
    /// What is sent, by the name it has in the offer.
    pub sources: BTreeMap<FileId, Vec<u8>>,
    /// What is there of a file that is received.
    pub parts: BTreeMap<FileId, Vec<u8>>,
    jobs: BTreeMap<FileId, Job>,
    listening: BTreeMap<FileId, [String; 2]>,
    /// Received under their final names.
    pub kept: BTreeMap<FileId, Vec<u8>>,
    pub verdicts: Vec<(FileId, Verdict)>,
    /// Streams asked for, ever.
    pub dials: Vec<(SocketAddr, bool)>,
    pub listened: usize,
    /// Every connection is refused.
    pub unreachable: bool,
    /// A stream breaks after so many bytes of a file.
    pub breaks_at: Option<usize>,
    next_accepted: u64,
}

/// A connection between two clients' files.
#[derive(Debug, Clone, Copy)]
pub struct Pipe {
    ends: [(usize, FileId, StreamId); 2],
    carrying: [bool; 2],
}

impl Shelf {
    /// Bytes that are there of a file that is being received.
    pub fn arrived(&self, id: FileId) -> usize {
        self.jobs.get(&id).map_or(0, |job| job.bytes.len())
    }

    pub fn part(&self, id: FileId) -> Vec<u8> {
        self.jobs.get(&id).map_or_else(Vec::new, |job| job.bytes.clone())
    }

    /// Transfers for which anything was opened, bound or dialled and is still there.
    pub fn touched(&self) -> impl Iterator<Item = TransferId> + '_ {
        self.jobs.keys().chain(self.listening.keys()).map(|id| id.transfer)
    }

    /// Nothing is open or bound.
    pub fn is_quiet(&self) -> bool {
        self.jobs.is_empty() && self.listening.is_empty()
    }

    fn hashes(job: &Job) -> Vec<(HashAlgo, Vec<u8>)> {
        let mut hashers = Hashers::new(job.algos.iter().copied());
        hashers.update(&job.bytes);
        hashers.finish()
    }
}

/// The hash of these bytes.
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    let mut hashers = Hashers::new([HashAlgo::Sha256]);
    hashers.update(bytes);
    hashers.finish().remove(0).1
}

/// What a sender says of these bytes; with `late` the hash follows.
pub fn described(name: &str, bytes: &[u8], late: bool) -> OutgoingFile {
    let hashes = if late { Vec::new() } else { vec![(HashAlgo::Sha256, sha256(bytes))] };
    OutgoingFile {
        description: FileDescription {
            name: Some(name.to_owned()),
            size: Some(bytes.len() as u64),
            hashes,
            hash_used: late.then_some(HashAlgo::Sha256),
            ..FileDescription::default()
        },
    }
}

impl World {
    /// Offers files; each is told by its name and its bytes.
    pub fn send(&mut self, from: usize, to: &str, files: &[(&str, Vec<u8>)], ways: &[WayKind]) -> TransferId {
        let offered = files.iter().enumerate().map(|(n, (name, bytes))| described(name, bytes, n % 2 == 0)).collect();
        let to = Jid::new(to).unwrap();
        let id = self.clients[from].endpoint.send_files(self.now, &to, offered, ways).unwrap();
        for (file, (_, bytes)) in files.iter().enumerate() {
            self.clients[from].shelf.sources.insert(FileId { transfer: id, file }, bytes.clone());
        }
        self.drain(from);
        id
    }

    /// Takes what is offered to a client, as its application would.
    pub fn take_files(&mut self, client: usize, event: &FileEvent) {
        let FileEvent::Offered { transfer, files, .. } = event else { return };
        let wanted: Vec<Wanted> = files
            .iter()
            .map(|f| {
                let offset = self.clients[client].shelf.parts.get(&f.id).map_or(0, |p| p.len() as u64);
                Wanted { id: f.id, offset, limit: None }
            })
            .collect();
        let now = self.now;
        self.clients[client].endpoint.accept_files(now, *transfer, &wanted).unwrap();
    }

    fn say_later(&mut self, client: usize, input: FileInput) {
        let at = self.now + self.media_delay;
        self.push(at, Thing::File(client, input));
    }

    /// What a shell does for a file.
    pub fn file_output(&mut self, client: usize, output: FileOutput) {
        match output {
            FileOutput::Open { id, job } => self.open(client, id, job),
            FileOutput::Listen { id, dst_addrs, .. } => {
                let shelf = &mut self.clients[client].shelf;
                shelf.listening.insert(id, dst_addrs);
                shelf.listened += 1;
                let bound = vec![SocketAddr::from(([192, 0, 2, 1 + client as u8], LISTENER_PORT))];
                let now = self.now;
                self.push(now, Thing::File(client, FileInput::Listening { id, bound, networks: Vec::new() }));
            }
            FileOutput::Dial { id, stream, host, port, dst_addr, policy, .. } => {
                self.dial(client, id, stream, &host, port, &dst_addr, &policy);
            }
            FileOutput::HangUp { id, stream } => {
                self.hang_up(client, |f, s| f == id && s == stream);
            }
            FileOutput::Carry { id, stream } => {
                let mut there = false;
                for pipe in &mut self.pipes {
                    for end in 0..2 {
                        pipe.carrying[end] |= pipe.ends[end] == (client, id, stream);
                    }
                    there |= pipe.ends.contains(&(client, id, stream));
                }
                if !there {
                    let result = Err(CarryFault::Stream { bytes: 0, why: "it is gone".to_owned() });
                    return self.say_later(client, FileInput::Carried { id, result });
                }
                self.carry();
            }
            FileOutput::Read { id, most } => {
                let Some(job) = self.clients[client].shelf.jobs.get_mut(&id) else { return };
                let end = job.end.min(job.at + most);
                let bytes = job.bytes[job.at..end].to_vec();
                job.at = end;
                let end = (job.at == job.end).then(|| Shelf::hashes(job));
                let now = self.now;
                self.push(now, Thing::File(client, FileInput::Bytes { id, bytes, end }));
            }
            FileOutput::Write { id, bytes } => {
                let now = self.now;
                if let Some(job) = self.clients[client].shelf.jobs.get_mut(&id) {
                    job.started = true;
                    job.bytes.extend(&bytes);
                }
                self.push(now, Thing::File(client, FileInput::Written { id, bytes: bytes.len() }));
                self.finish(client, id);
            }
            FileOutput::WriteEnd(id) => {
                let Some(job) = self.clients[client].shelf.jobs.get_mut(&id) else { return };
                if !std::mem::replace(&mut job.carried, true) {
                    let why = "it ended".to_owned();
                    let result = Err(CarryFault::Stream { bytes: job.bytes.len() as u64, why });
                    self.say_later(client, FileInput::Carried { id, result });
                }
            }
            FileOutput::Judge { id, verdict } => {
                let now = self.now;
                let shelf = &mut self.clients[client].shelf;
                shelf.verdicts.push((id, verdict));
                if verdict == Verdict::Keep {
                    shelf.kept.insert(id, shelf.jobs[&id].bytes.clone());
                    let path = "kept".into();
                    self.push(now, Thing::File(client, FileInput::Kept { id, path }));
                }
            }
            FileOutput::CloseStreams(id) => {
                self.clients[client].shelf.listening.remove(&id);
                self.hang_up(client, |f, _| f == id);
            }
            FileOutput::Close(transfer) => {
                let shelf = &mut self.clients[client].shelf;
                shelf.listening.retain(|id, _| id.transfer != transfer);
                shelf.jobs.retain(|id, _| id.transfer != transfer);
                self.hang_up(client, |f, _| f.transfer == transfer);
            }
        }
    }

    /// A client closes its ends of streams; the other ends find out.
    fn hang_up(&mut self, client: usize, which: impl Fn(FileId, StreamId) -> bool) {
        let closed = |end: &(usize, FileId, StreamId)| end.0 == client && which(end.1, end.2);
        let gone: Vec<Pipe> = self.pipes.iter().filter(|p| p.ends.iter().any(closed)).copied().collect();
        self.pipes.retain(|p| !p.ends.iter().any(closed));
        for pipe in gone {
            for (end, carrying) in pipe.ends.iter().zip(pipe.carrying).filter(|(end, _)| !closed(end)) {
                let (there, id, stream) = *end;
                let result = Err(CarryFault::Stream { bytes: 0, why: "closed".to_owned() });
                let news =
                    if carrying { FileInput::Carried { id, result } } else { FileInput::StreamDown { id, stream } };
                self.say_later(there, news);
            }
        }
    }

    fn open(&mut self, client: usize, id: FileId, job: FileJob) {
        let shelf = &mut self.clients[client].shelf;
        let job = match job {
            FileJob::Send { offset, length, hash } => {
                let bytes = shelf.sources[&id].clone();
                let at = usize::try_from(offset).unwrap();
                let end = length.map_or(bytes.len(), |l| bytes.len().min(at + usize::try_from(l).unwrap()));
                Job { send: true, bytes, at, end, algos: hash.into_iter().collect(), ..Job::default() }
            }
            FileJob::Receive { offset, size, hashes, .. } => {
                let mut bytes = shelf.parts.get(&id).cloned().unwrap_or_default();
                bytes.truncate(usize::try_from(offset).unwrap());
                let end = usize::try_from(size.unwrap_or(u64::from(u32::MAX))).unwrap();
                Job { bytes, end, algos: hashes, ..Job::default() }
            }
        };
        shelf.jobs.insert(id, job);
    }

    fn finish(&mut self, client: usize, id: FileId) {
        let Some(job) = self.clients[client].shelf.jobs.get_mut(&id) else { return };
        if job.send || !job.started || job.bytes.len() < job.end || std::mem::replace(&mut job.carried, true) {
            return;
        }
        let size = job.end as u64;
        let result = if job.bytes.len() > job.end {
            Err(CarryFault::File(FileFault::TooLong { size }))
        } else {
            Ok(Carried { bytes: 0, size, hashes: Shelf::hashes(job) })
        };
        self.say_later(client, FileInput::Carried { id, result });
    }

    #[allow(clippy::too_many_arguments)]
    fn dial(
        &mut self,
        client: usize,
        id: FileId,
        stream: StreamId,
        host: &str,
        port: u16,
        dst_addr: &str,
        policy: &offhook::transport::dial::DialPolicy,
    ) {
        let addr: SocketAddr = SocketAddr::new(host.parse().unwrap(), port);
        let allowed = may_dial(addr, policy);
        self.clients[client].shelf.dials.push((addr, allowed));
        let there = (0..self.clients.len())
            .find(|c| addr == SocketAddr::from(([192, 0, 2, 1 + *c as u8], LISTENER_PORT)))
            .filter(|c| allowed && !self.clients[*c].shelf.unreachable);
        let found = there.and_then(|there| {
            let of = &self.clients[there].shelf.listening;
            of.iter().find(|(_, d)| d.iter().any(|d| d == dst_addr)).map(|(id, _)| (there, *id))
        });
        match found {
            Some((there, their_id)) => {
                let shelf = &mut self.clients[there].shelf;
                shelf.next_accepted += 1;
                let accepted = StreamId((1 << 32) + shelf.next_accepted);
                self.pipes
                    .push(Pipe { ends: [(client, id, stream), (there, their_id, accepted)], carrying: [false; 2] });
                self.say_later(there, FileInput::StreamOpen { id: their_id, stream: accepted, local: Some(addr) });
                self.say_later(client, FileInput::StreamOpen { id, stream, local: None });
            }
            None => self.say_later(client, FileInput::StreamDown { id, stream }),
        }
    }

    /// Moves what can be moved.
    fn carry(&mut self) {
        let ready: Vec<Pipe> = self.pipes.iter().filter(|p| p.carrying == [true; 2]).copied().collect();
        self.pipes.retain(|p| p.carrying != [true; 2]);
        for pipe in ready {
            let sends = |w: &World, end: usize| w.clients[pipe.ends[end].0].shelf.jobs[&pipe.ends[end].1].send;
            let from = usize::from(!sends(self, 0));
            let (sender, receiver) = (pipe.ends[from], pipe.ends[1 - from]);
            let broken = self.clients[sender.0].shelf.breaks_at.take();
            let job = self.clients[sender.0].shelf.jobs.get_mut(&sender.1).unwrap();
            let end = broken.map_or(job.end, |b| b.clamp(job.at, job.end));
            let bytes = job.bytes[job.at..end].to_vec();
            let (moved, size, hashes) = (bytes.len() as u64, job.bytes.len() as u64, Shelf::hashes(job));
            let there = self.clients[receiver.0].shelf.jobs.get_mut(&receiver.1).unwrap();
            there.bytes.extend(&bytes);
            there.started = true;
            if broken.is_some() {
                let part = there.bytes.clone();
                self.clients[receiver.0].shelf.parts.insert(receiver.1, part);
                for (client, id, _) in [sender, receiver] {
                    let result = Err(CarryFault::Stream { bytes: moved, why: "cut".to_owned() });
                    self.say_later(client, FileInput::Carried { id, result });
                }
                continue;
            }
            let result = Ok(Carried { bytes: moved, size, hashes });
            self.say_later(sender.0, FileInput::Carried { id: sender.1, result });
            self.finish(receiver.0, receiver.1);
            // The stream ends here, whatever was declared.
            let Some(job) = self.clients[receiver.0].shelf.jobs.get_mut(&receiver.1) else { continue };
            if !std::mem::replace(&mut job.carried, true) {
                let result = Err(CarryFault::Stream { bytes: moved, why: "it ended".to_owned() });
                self.say_later(receiver.0, FileInput::Carried { id: receiver.1, result });
            }
        }
    }
}
