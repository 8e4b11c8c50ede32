//! Our SRTP against libsrtp2, byte for byte, both ways. Needs a C compiler and the Debian package `libsrtp2-dev`;
//! `OFFHOOK_INTEROP=none` leaves it out and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use offhook::transport::srtp::{SrtpFault, SrtpProfile, SrtpReceiver, SrtpSender};
use offhook::wire::rtcp::{Item, SDES_CNAME, write_bye, write_description, write_report};
use offhook::wire::rtp::{Extension, MediaTime, RtpHeader, SeqNo, Ssrc};

/// The compiled oracle, or `None` if interop tests are switched off.
fn oracle_binary() -> Option<&'static Path> {
    static BINARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let binary = BINARY.get_or_init(|| {
        if std::env::var("OFFHOOK_INTEROP").is_ok_and(|v| v == "none") {
            return None;
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/libsrtp2/oracle.c");
        let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libsrtp2-oracle");
        let output = Command::new("cc")
            .args(["-O2", "-Wall", "-Wextra", "-o"])
            .arg(&binary)
            .arg(&source)
            .arg("-lsrtp2")
            .output()
            .expect("no C compiler: install the Debian package `gcc` (or set OFFHOOK_INTEROP=none)");
        assert!(
            output.status.success(),
            "the libsrtp2 oracle does not compile: install the Debian package `libsrtp2-dev` \
             (or set OFFHOOK_INTEROP=none)\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Some(binary)
    });
    if binary.is_none() {
        println!("left out: OFFHOOK_INTEROP=none, nothing was compared with libsrtp2");
    }
    binary.as_deref()
}

struct Oracle {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Oracle {
    fn open(profile: SrtpProfile, key_and_salt: &[u8]) -> Option<Self> {
        let mut child = Command::new(oracle_binary()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the oracle starts");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut oracle = Self { child, stdin, stdout };
        let answer = oracle.ask_text(&format!("open {} {}", profile.sdes_name(), to_hex(key_and_salt)));
        assert_eq!(answer, "ok", "libsrtp2 refuses {profile:?}");
        Some(oracle)
    }

    fn ask_text(&mut self, line: &str) -> String {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
        stdin.flush().unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    /// The packet that libsrtp2 makes of it, or its refusal.
    fn ask(&mut self, verb: &str, packet: &[u8]) -> Result<Vec<u8>, String> {
        let answer = self.ask_text(&format!("{verb} {}", to_hex(packet)));
        if answer.starts_with("error") || answer.is_empty() { Err(answer) } else { Ok(from_hex(&answer)) }
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.stdin = None; // end of input ends it
        let _ = self.child.wait();
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

struct Keys {
    profile: SrtpProfile,
    bytes: Vec<u8>,
}

impl Keys {
    fn of(profile: SrtpProfile) -> Self {
        let bytes = (0..profile.key_len() + profile.salt_len()).map(|n| (n * 37 + 11) as u8).collect();
        Self { profile, bytes }
    }

    fn sender(&self) -> SrtpSender {
        let (key, salt) = self.bytes.split_at(self.profile.key_len());
        SrtpSender::new(self.profile, key, salt).unwrap()
    }

    fn receiver(&self) -> SrtpReceiver {
        let (key, salt) = self.bytes.split_at(self.profile.key_len());
        SrtpReceiver::new(self.profile, key, salt).unwrap()
    }
}

/// Packets of all lengths, some with header extensions, across a sequence rollover.
fn media() -> impl Iterator<Item = Vec<u8>> {
    (0..600u32).map(|n| {
        let header = RtpHeader {
            marker: n % 50 == 0,
            payload_type: 111,
            seq: SeqNo((65_300 + n) as u16),
            time: MediaTime(n.wrapping_mul(960)),
            ssrc: Ssrc(0xdead_0001),
        };
        let mut p = Vec::new();
        match n % 3 {
            0 => header.write(&mut p),
            1 => header.write_with(&[Extension { id: 1, data: &[0x85] }], &mut p),
            _ => header.write_with(&[Extension { id: 200, data: b"two-byte" }, Extension { id: 2, data: &[] }], &mut p),
        }
        p.extend((0..(n * 7) % 1200).map(|b| (b ^ n) as u8));
        p
    })
}

fn control() -> impl Iterator<Item = Vec<u8>> {
    (0..60u32).map(|n| {
        let mut p = Vec::new();
        write_report(Ssrc(0xdead_0001), None, &[], &mut p);
        if n > 0 {
            let text = "x".repeat(n as usize);
            write_description(&Item { ssrc: Ssrc(0xdead_0001), kind: SDES_CNAME, text: text.as_bytes() }, &mut p);
        }
        if n % 7 == 0 {
            write_bye(&[Ssrc(0xdead_0001)], Some("so long"), &mut p);
        }
        p
    })
}

#[test]
fn libsrtp2_makes_the_same_rtp_bytes_across_a_rollover() {
    for profile in SrtpProfile::ALL {
        let keys = Keys::of(profile);
        let Some(mut oracle) = Oracle::open(profile, &keys.bytes) else { return };
        let mut sender = keys.sender();
        for (n, plain) in media().enumerate() {
            let mut ours = plain.clone();
            sender.protect_rtp(&mut ours).unwrap();
            assert_eq!(oracle.ask("rtp", &plain), Ok(ours.clone()), "{profile:?} packet {n}");
            // And what we protect, it accepts, once.
            assert_eq!(oracle.ask("urtp", &ours), Ok(plain), "{profile:?} packet {n}");
            if n % 50 == 0 {
                assert!(oracle.ask("urtp", &ours).is_err(), "{profile:?}: libsrtp2 refuses a replay");
            }
        }
    }
}

#[test]
fn we_accept_libsrtp2s_rtp_once_and_nothing_else() {
    for profile in SrtpProfile::ALL {
        let keys = Keys::of(profile);
        let Some(mut oracle) = Oracle::open(profile, &keys.bytes) else { return };
        let mut receiver = keys.receiver();
        for (n, plain) in media().enumerate() {
            let theirs = oracle.ask("rtp", &plain).unwrap();
            if n % 10 == 0 {
                let mut flipped = theirs.clone();
                let at = (n * 13) % flipped.len();
                flipped[at] ^= 0x10;
                assert!(receiver.unprotect_rtp(&mut flipped).is_err());
            }
            let mut p = theirs.clone();
            let (header, range) = receiver.unprotect_rtp(&mut p).unwrap();
            assert_eq!((header, range.clone()), RtpHeader::parse(&plain).unwrap(), "{profile:?} packet {n}");
            assert_eq!(p[..range.end], plain);
            assert_eq!(receiver.unprotect_rtp(&mut theirs.clone()), Err(SrtpFault::Replayed));
        }
    }
}

#[test]
fn libsrtp2_makes_the_same_rtcp_bytes() {
    for profile in SrtpProfile::ALL {
        let keys = Keys::of(profile);
        let Some(mut oracle) = Oracle::open(profile, &keys.bytes) else { return };
        let mut sender = keys.sender();
        // RFC 3711 §3.4 starts the index at 0, libsrtp2 at 1: one packet of ours goes ahead.
        let plain = control().next().unwrap();
        let mut first = plain.clone();
        sender.protect_rtcp(&mut first).unwrap();
        assert_eq!(oracle.ask("urtcp", &first), Ok(plain), "{profile:?}: index 0 is accepted");
        for (n, plain) in control().enumerate() {
            let mut ours = plain.clone();
            sender.protect_rtcp(&mut ours).unwrap();
            assert_eq!(ours.len(), plain.len() + profile.rtcp_overhead_bytes());
            assert_eq!(oracle.ask("rtcp", &plain), Ok(ours.clone()), "{profile:?} packet {n}");
            assert_eq!(oracle.ask("urtcp", &ours), Ok(plain), "{profile:?} packet {n}");
            assert!(oracle.ask("urtcp", &ours).is_err(), "{profile:?}: libsrtp2 refuses a replay");
        }
    }
}

#[test]
fn we_accept_libsrtp2s_rtcp_once_and_nothing_else() {
    for profile in SrtpProfile::ALL {
        let keys = Keys::of(profile);
        let Some(mut oracle) = Oracle::open(profile, &keys.bytes) else { return };
        let mut receiver = keys.receiver();
        for (n, plain) in control().enumerate() {
            let theirs = oracle.ask("rtcp", &plain).unwrap();
            for at in 0..theirs.len() {
                let mut flipped = theirs.clone();
                flipped[at] ^= 0x80;
                assert!(receiver.unprotect_rtcp(&mut flipped).is_err(), "{profile:?} packet {n} byte {at}");
            }
            let mut p = theirs.clone();
            let end = receiver.unprotect_rtcp(&mut p).unwrap();
            assert_eq!(p[..end], plain, "{profile:?} packet {n}");
            assert_eq!(receiver.unprotect_rtcp(&mut theirs.clone()), Err(SrtpFault::Replayed));
        }
    }
}
