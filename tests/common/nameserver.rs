//! A small authoritative DNS server over UDP on loopback (RFC 1035): answers what it was told, NXDOMAIN otherwise.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// One record.
#[derive(Debug, Clone)]
pub enum Data {
    A(Ipv4Addr),
    /// Priority, weight, port, target; `.` as the target means: no such service.
    Srv(u16, u16, u16, &'static str),
    /// Order, preference, service, replacement; the flag is `s`.
    Naptr(u16, u16, &'static str, &'static str),
}

/// The server; ends when dropped.
pub struct NameServer {
    /// Where to ask.
    pub addr: SocketAddr,
    end: Arc<AtomicBool>,
}

impl NameServer {
    /// Serves these records. Names of `silent` are never answered.
    pub fn start(records: Vec<(&'static str, Data)>, silent: Vec<&'static str>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let addr = socket.local_addr().unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&end);
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while !stop.load(Ordering::SeqCst) {
                let Ok((n, from)) = socket.recv_from(&mut buffer) else { continue };
                let Some((name, kind, question)) = question(&buffer[..n]) else { continue };
                if silent.contains(&name.as_str()) {
                    continue;
                }
                let answer = answer(&buffer[..2], &name, kind, question, &records);
                let _ = socket.send_to(&answer, from);
            }
        });
        Self { addr, end }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
    }
}

/// Name, type and the bytes of the one question.
fn question(query: &[u8]) -> Option<(String, u16, &[u8])> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let n = usize::from(*query.get(at)?);
        at += 1;
        if n == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + n)?).to_lowercase());
        at += n;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    Some((labels.join("."), kind, query.get(12..at + 4)?))
}

fn write_name(bytes: &mut Vec<u8>, name: &str) {
    for label in name.split('.').filter(|l| !l.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
}

fn answer(id: &[u8], name: &str, kind: u16, question: &[u8], records: &[(&'static str, Data)]) -> Vec<u8> {
    let known = records.iter().any(|(n, _)| *n == name);
    let mut found = Vec::new();
    for (_, data) in records.iter().filter(|(n, _)| *n == name) {
        let (its, bytes) = match data {
            Data::A(ip) => (1u16, ip.octets().to_vec()),
            Data::Srv(priority, weight, port, target) => {
                let mut bytes: Vec<u8> = [*priority, *weight, *port].iter().flat_map(|v| v.to_be_bytes()).collect();
                write_name(&mut bytes, target);
                (33, bytes)
            }
            Data::Naptr(order, preference, service, replacement) => {
                let mut bytes: Vec<u8> = [*order, *preference].iter().flat_map(|v| v.to_be_bytes()).collect();
                for text in ["s", *service, ""] {
                    bytes.push(u8::try_from(text.len()).unwrap());
                    bytes.extend_from_slice(text.as_bytes());
                }
                write_name(&mut bytes, replacement);
                (35, bytes)
            }
        };
        if its == kind {
            found.push(bytes);
        }
    }
    let mut out = id.to_vec();
    // Authoritative; NXDOMAIN for a name that has no record of any type.
    out.extend_from_slice(&[0x84, if known { 0 } else { 3 }, 0, 1, 0, u8::try_from(found.len()).unwrap(), 0, 0, 0, 0]);
    out.extend_from_slice(question);
    for bytes in found {
        out.extend_from_slice(&[0xC0, 12]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        out.extend_from_slice(&u16::try_from(bytes.len()).unwrap().to_be_bytes());
        out.extend_from_slice(&bytes);
    }
    out
}
