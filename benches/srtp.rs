//! Cost of SRTP per packet: ours, the bare operations of the crypto library, and rtc-srtp. `cargo bench --bench srtp`
//! prints nanoseconds; ours may cost at most 1.3 times the bare operations. Without `--bench` each runs once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::Instant;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use offhook::transport::srtp::{SrtpProfile, SrtpReceiver, SrtpSender};
use offhook::wire::rtp::{MediaTime, RtpHeader, SeqNo, Ssrc};
use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;

const KEY: [u8; 16] = [7; 16];
const SALT: [u8; 14] = [9; 14];
/// Packets of one round.
const BATCH: usize = 2000;
/// Ours over bare.
const LIMIT: f64 = 1.3;

fn main() {
    let measured = std::env::args().any(|a| a == "--bench");
    let rounds = if measured { 41 } else { 1 };
    println!(
        "{:<10} {:>5}  {:>8} {:>8} {:>9} {:>9} {:>9}",
        "suite", "bytes", "bare", "protect", "unprotect", "rtc-srtp", "ours/bare"
    );
    for (name, profile) in [("GCM-128", SrtpProfile::AeadAes128Gcm), ("CM-80", SrtpProfile::AesCm128HmacSha1_80)] {
        for bytes in [172, 1200] {
            let bare = median(rounds, || bare(profile, bytes));
            let (protect, unprotect) = ours(rounds, profile, bytes);
            let theirs = median(rounds, || theirs(profile, bytes));
            let ratio = protect / bare;
            let verdict = if !measured || ratio <= LIMIT { "" } else { "  over the limit" };
            println!(
                "{name:<10} {bytes:>5}  {bare:>8.0} {protect:>8.0} {unprotect:>9.0} {theirs:>9.0} {ratio:>9.2}{verdict}"
            );
        }
    }
}

/// Nanoseconds per packet.
fn timed(f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_nanos() as f64 / BATCH as f64
}

fn middle(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn median(rounds: usize, round: impl Fn() -> f64) -> f64 {
    middle((0..rounds).map(|_| round()).collect())
}

/// Packets with room for the tag.
fn packets(bytes: usize) -> Vec<Vec<u8>> {
    (0..BATCH)
        .map(|n| {
            let mut p = Vec::with_capacity(bytes + 32);
            let (seq, time) = (SeqNo(n as u16), MediaTime(n as u32 * 960));
            RtpHeader { marker: false, payload_type: 111, seq, time, ssrc: Ssrc(5) }.write(&mut p);
            p.resize(bytes, 0x5a);
            p
        })
        .collect()
}

fn salt(profile: SrtpProfile) -> &'static [u8] {
    &SALT[..profile.salt_len()]
}

fn ours(rounds: usize, profile: SrtpProfile, bytes: usize) -> (f64, f64) {
    let (mut protect, mut unprotect) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut sender = SrtpSender::new(profile, &KEY, salt(profile)).unwrap();
        let mut receiver = SrtpReceiver::new(profile, &KEY, salt(profile)).unwrap();
        let mut all = packets(bytes);
        protect.push(timed(|| all.iter_mut().for_each(|p| sender.protect_rtp(p).unwrap())));
        unprotect.push(timed(|| {
            for p in &mut all {
                black_box(receiver.unprotect_rtp(p).unwrap());
            }
        }));
    }
    (middle(protect), middle(unprotect))
}

/// What no implementation over this library can do without: encrypt the payload, make the tag, append it.
fn bare(profile: SrtpProfile, bytes: usize) -> f64 {
    let mut all = packets(bytes);
    if profile == SrtpProfile::AeadAes128Gcm {
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &KEY).unwrap());
        return timed(|| {
            for (n, p) in all.iter_mut().enumerate() {
                let mut nonce = [0; 12];
                nonce[..8].copy_from_slice(&n.to_be_bytes());
                let (header, payload) = p.split_at_mut(12);
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&*header), payload).unwrap();
                p.extend_from_slice(tag.as_ref());
            }
        });
    }
    let key = EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, &KEY).unwrap()).unwrap();
    let auth = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &[3; 20]);
    timed(|| {
        for (n, p) in all.iter_mut().enumerate() {
            let iv = (n as u128).to_be_bytes();
            key.less_safe_encrypt(&mut p[12..], EncryptionContext::Iv128(iv.into())).unwrap();
            let tag = hmac::sign(&auth, p);
            p.extend_from_slice(&tag.as_ref()[..10]);
        }
    })
}

fn theirs(profile: SrtpProfile, bytes: usize) -> f64 {
    let their_profile = if profile == SrtpProfile::AeadAes128Gcm {
        ProtectionProfile::AeadAes128Gcm
    } else {
        ProtectionProfile::Aes128CmHmacSha1_80
    };
    let provider = rtc::crypto::default_provider().unwrap();
    let mut context = Context::new(&KEY, salt(profile), their_profile, None, None, provider.crypto()).unwrap();
    let all = packets(bytes);
    timed(|| {
        for p in &all {
            black_box(context.encrypt_rtp(p).unwrap());
        }
    })
}
