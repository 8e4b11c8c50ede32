//! SRTP and SRTCP over one crypto library. Read RFC 3711 (§3.3, §3.4, §4), RFC 6188 and RFC 7714 before touching this
//! file; RFC 5764 §4.2 for the keys out of DTLS, RFC 4568 §6.2 for the names in signalling.
//!
//! The rule of the whole file: nothing of a receiver changes before the tag of a packet is verified, so that forged
//! packets cost time only, never state.

use std::fmt;
use std::ops::Range;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::{constant_time, hmac};

use crate::wire::rtp::{RtpFault, RtpHeader};

/// Streams (SSRCs) one sender or receiver keeps state for. A voice leg has one each way; a peer with the key that
/// names more is refused, which bounds the memory of a leg.
pub const MAX_STREAMS: usize = 16;

/// Packets behind the newest that are still accepted once. RFC 3711 §3.3.2 asks for at least 64.
pub const REPLAY_WINDOW: u64 = 128;

/// How packets are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SrtpProfile {
    /// AES-128 in counter mode, 80-bit HMAC-SHA1 tag. RFC 3711, RFC 5764: mandatory everywhere.
    AesCm128HmacSha1_80,
    /// AES-128 in counter mode, 32-bit tag on RTP; RTCP keeps 80 bits (RFC 5764 §4.1.2).
    AesCm128HmacSha1_32,
    /// AES-256 in counter mode, 80-bit tag. RFC 6188; SDES only, it has no DTLS id.
    AesCm256HmacSha1_80,
    /// AES-256 in counter mode, 32-bit tag on RTP. RFC 6188; SDES only.
    AesCm256HmacSha1_32,
    /// AES-128 in Galois/counter mode, 128-bit tag. RFC 7714.
    AeadAes128Gcm,
    /// AES-256 in Galois/counter mode, 128-bit tag. RFC 7714.
    AeadAes256Gcm,
}

impl SrtpProfile {
    /// Every profile, best first: the order to offer in.
    pub const ALL: [Self; 6] = [
        Self::AeadAes128Gcm,
        Self::AeadAes256Gcm,
        Self::AesCm128HmacSha1_80,
        Self::AesCm256HmacSha1_80,
        Self::AesCm128HmacSha1_32,
        Self::AesCm256HmacSha1_32,
    ];

    /// Bytes of the master key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 | Self::AeadAes128Gcm => 16,
            Self::AesCm256HmacSha1_80 | Self::AesCm256HmacSha1_32 | Self::AeadAes256Gcm => 32,
        }
    }

    /// Bytes of the master salt.
    #[must_use]
    pub const fn salt_len(self) -> usize {
        if self.is_aead() { 12 } else { 14 }
    }

    /// Bytes to ask the DTLS exporter for: both keys, then both salts (RFC 5764 §4.2).
    #[must_use]
    pub const fn keying_material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }

    /// The id in the `use_srtp` extension, RFC 5764 §4.1.2 and RFC 7714 §14.2; `None` where none is registered.
    #[must_use]
    pub const fn dtls_id(self) -> Option<u16> {
        match self {
            Self::AesCm128HmacSha1_80 => Some(0x0001),
            Self::AesCm128HmacSha1_32 => Some(0x0002),
            Self::AeadAes128Gcm => Some(0x0007),
            Self::AeadAes256Gcm => Some(0x0008),
            Self::AesCm256HmacSha1_80 | Self::AesCm256HmacSha1_32 => None,
        }
    }

    /// The profile with this `use_srtp` id.
    #[must_use]
    pub fn from_dtls_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.dtls_id() == Some(id))
    }

    /// The crypto suite's name in SDES, RFC 4568 §6.2, RFC 6188 §4 and RFC 7714 §14.1.
    #[must_use]
    pub const fn sdes_name(self) -> &'static str {
        match self {
            Self::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Self::AesCm256HmacSha1_80 => "AES_256_CM_HMAC_SHA1_80",
            Self::AesCm256HmacSha1_32 => "AES_256_CM_HMAC_SHA1_32",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
        }
    }

    /// The profile with this SDES name.
    #[must_use]
    pub fn from_sdes_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.sdes_name() == name)
    }

    /// Bytes that protection adds to an RTP packet.
    #[must_use]
    pub const fn rtp_overhead_bytes(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AesCm256HmacSha1_80 => 10,
            Self::AesCm128HmacSha1_32 | Self::AesCm256HmacSha1_32 => 4,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => GCM_TAG_BYTES,
        }
    }

    /// Bytes that protection adds to an RTCP packet: tag and index word.
    #[must_use]
    pub const fn rtcp_overhead_bytes(self) -> usize {
        if self.is_aead() { GCM_TAG_BYTES + INDEX_BYTES } else { CM_RTCP_TAG_BYTES + INDEX_BYTES }
    }

    const fn is_aead(self) -> bool {
        matches!(self, Self::AeadAes128Gcm | Self::AeadAes256Gcm)
    }
}

/// Why a packet was not protected or not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SrtpFault {
    /// The master key or salt has the wrong length for the profile.
    #[error("the SRTP key or salt has the wrong length")]
    KeyLength,
    /// Not an RTP packet, or its header runs past the end.
    #[error("not an RTP packet: {0}")]
    Rtp(#[from] RtpFault),
    /// Not an RTCP packet, or too short to hold tag and index.
    #[error("not an RTCP packet")]
    Rtcp,
    /// The tag is wrong: forged, damaged, or protected with another key.
    #[error("the SRTP tag does not match")]
    Forged,
    /// Seen before, or older than the replay window. On the sending side: this sequence number was already used.
    #[error("the packet was seen before or is too old")]
    Replayed,
    /// More than [`MAX_STREAMS`] SSRCs under one key.
    #[error("too many SSRCs under one SRTP key")]
    TooManyStreams,
    /// 2^48 RTP or 2^31 RTCP packets were sent under one key (RFC 3711 §9.2): a new key is needed.
    #[error("the SRTP key is used up")]
    KeyExhausted,
    /// The crypto library refused.
    #[error("the crypto library failed")]
    Crypto,
}

/// One direction's master key and salt.
#[derive(Clone, Copy)]
pub struct MasterKey<'a> {
    /// [`SrtpProfile::key_len`] bytes.
    pub key: &'a [u8],
    /// [`SrtpProfile::salt_len`] bytes.
    pub salt: &'a [u8],
}

impl fmt::Debug for MasterKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// Cuts what the DTLS exporter gave into our sending and receiving keys, RFC 5764 §4.2: client key, server key,
/// client salt, server salt. `we_are_client` is our DTLS role.
///
/// # Errors
/// [`SrtpFault::KeyLength`] if `material` is not [`SrtpProfile::keying_material_len`] bytes.
pub fn split_dtls_keying_material(
    profile: SrtpProfile,
    material: &[u8],
    we_are_client: bool,
) -> Result<(MasterKey<'_>, MasterKey<'_>), SrtpFault> {
    if material.len() != profile.keying_material_len() {
        return Err(SrtpFault::KeyLength);
    }
    let (keys, salts) = material.split_at(2 * profile.key_len());
    let (client_key, server_key) = keys.split_at(profile.key_len());
    let (client_salt, server_salt) = salts.split_at(profile.salt_len());
    let client = MasterKey { key: client_key, salt: client_salt };
    let server = MasterKey { key: server_key, salt: server_salt };
    Ok(if we_are_client { (client, server) } else { (server, client) })
}

/// Protects what we send under one master key. No allocation per packet if the packet's buffer has
/// [`SrtpProfile::rtp_overhead_bytes`] to spare.
///
/// Choose the first sequence number below 2^15 (RFC 3711 §3.3.1): a peer that misses the packets around an early
/// rollover could never find the rollover counter.
pub struct SrtpSender {
    rtp: Cipher,
    rtcp: Cipher,
    profile: SrtpProfile,
    streams: Vec<SendStream>,
}

struct SendStream {
    ssrc: u32,
    rtp: Window,
    /// The next SRTCP index, RFC 3711 §3.4; 2^31 once the key is used up.
    rtcp_next: u32,
}

impl SrtpSender {
    /// A sender with no packet sent yet.
    ///
    /// # Errors
    /// [`SrtpFault::KeyLength`] if key or salt do not fit the profile.
    pub fn new(profile: SrtpProfile, master_key: &[u8], master_salt: &[u8]) -> Result<Self, SrtpFault> {
        let (rtp, rtcp) = derive(profile, master_key, master_salt)?;
        Ok(Self { rtp, rtcp, profile, streams: Vec::new() })
    }

    /// The profile given at construction.
    #[must_use]
    pub fn profile(&self) -> SrtpProfile {
        self.profile
    }

    /// Encrypts an RTP packet in place and appends its tag. The packet may come from elsewhere: its header is checked.
    ///
    /// # Errors
    /// [`SrtpFault::Rtp`] if it is none; [`SrtpFault::Replayed`] if this sequence number was used before (the key
    /// stream would repeat); [`SrtpFault::TooManyStreams`]; [`SrtpFault::KeyExhausted`]. `packet` is then as before.
    pub fn protect_rtp(&mut self, packet: &mut Vec<u8>) -> Result<(), SrtpFault> {
        let (header, header_len) = RtpHeader::parse_clear(packet)?;
        let ssrc = header.ssrc.0;
        let at = self.streams.iter().position(|s| s.ssrc == ssrc);
        let index = match at.and_then(|i| self.streams.get(i)) {
            Some(s) => s.rtp.guess(header.seq.0)?,
            None if self.streams.len() >= MAX_STREAMS => return Err(SrtpFault::TooManyStreams),
            None => u64::from(header.seq.0),
        };
        self.rtp.seal_rtp(packet, header_len, ssrc, index)?;
        let stream = stream_mut(&mut self.streams, at, || SendStream { ssrc, rtp: Window::default(), rtcp_next: 0 });
        stream.rtp.accept(index);
        Ok(())
    }

    /// Encrypts a compound RTCP packet in place, appends index word and tag.
    ///
    /// # Errors
    /// [`SrtpFault::Rtcp`] if it is shorter than 8 bytes or not version 2; [`SrtpFault::TooManyStreams`];
    /// [`SrtpFault::KeyExhausted`] after 2^31 packets. `packet` is then as before.
    pub fn protect_rtcp(&mut self, packet: &mut Vec<u8>) -> Result<(), SrtpFault> {
        let ssrc = rtcp_ssrc(packet)?;
        let at = self.streams.iter().position(|s| s.ssrc == ssrc);
        let index = match at.and_then(|i| self.streams.get(i)) {
            Some(s) => s.rtcp_next,
            None if self.streams.len() >= MAX_STREAMS => return Err(SrtpFault::TooManyStreams),
            None => 0,
        };
        // RFC 3711 §9.2: at most 2^31 SRTCP packets under one key.
        if index & E_BIT != 0 {
            return Err(SrtpFault::KeyExhausted);
        }
        self.rtcp.seal_rtcp(packet, ssrc, index)?;
        let stream = stream_mut(&mut self.streams, at, || SendStream { ssrc, rtp: Window::default(), rtcp_next: 0 });
        stream.rtcp_next = index + 1;
        Ok(())
    }
}

impl fmt::Debug for SrtpSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrtpSender").field("profile", &self.profile).field("streams", &self.streams.len()).finish()
    }
}

/// Verifies and decrypts what the peer sends under one master key. No allocation per packet.
pub struct SrtpReceiver {
    rtp: Cipher,
    rtcp: Cipher,
    profile: SrtpProfile,
    streams: Vec<ReceiveStream>,
}

struct ReceiveStream {
    ssrc: u32,
    rtp: Window,
    rtcp: Window,
}

impl SrtpReceiver {
    /// A receiver that has seen nothing.
    ///
    /// # Errors
    /// [`SrtpFault::KeyLength`] if key or salt do not fit the profile.
    pub fn new(profile: SrtpProfile, master_key: &[u8], master_salt: &[u8]) -> Result<Self, SrtpFault> {
        let (rtp, rtcp) = derive(profile, master_key, master_salt)?;
        Ok(Self { rtp, rtcp, profile, streams: Vec::new() })
    }

    /// The profile given at construction.
    #[must_use]
    pub fn profile(&self) -> SrtpProfile {
        self.profile
    }

    /// SSRCs that an authentic packet was seen of.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Verifies an SRTP packet and decrypts it in place; gives the header and where the payload stands. The tag stays
    /// behind the payload: [`crate::wire::rtp::extensions`] may be called on the whole slice.
    ///
    /// # Errors
    /// Any [`SrtpFault`]; what `packet` then holds is unspecified. Nothing of the receiver has changed, except after
    /// [`RtpFault::Padding`], which only the holder of the key can cause.
    pub fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Result<(RtpHeader, Range<usize>), SrtpFault> {
        let (header, header_len) = RtpHeader::parse_clear(packet)?;
        let ssrc = header.ssrc.0;
        let at = self.streams.iter().position(|s| s.ssrc == ssrc);
        let index = match at.and_then(|i| self.streams.get(i)) {
            Some(s) => s.rtp.guess(header.seq.0)?,
            None => u64::from(header.seq.0),
        };
        let end = self.rtp.open_rtp(packet, header_len, ssrc, index)?;
        // Authentic from here on.
        if at.is_none() && self.streams.len() >= MAX_STREAMS {
            return Err(SrtpFault::TooManyStreams);
        }
        let stream = stream_mut(&mut self.streams, at, || ReceiveStream::new(ssrc));
        stream.rtp.accept(index);
        Ok(RtpHeader::parse(packet.get(..end).ok_or(SrtpFault::Forged)?)?)
    }

    /// Verifies an SRTCP packet and decrypts it in place; gives the length of the plain compound packet, which stands
    /// at the start. A packet whose E bit is clear is not decrypted but verified all the same (RFC 3711 §3.4).
    ///
    /// # Errors
    /// Any [`SrtpFault`]; what `packet` then holds is unspecified. Nothing of the receiver has changed.
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpFault> {
        let ssrc = rtcp_ssrc(packet)?;
        let at = self.streams.iter().position(|s| s.ssrc == ssrc);
        let word = self.rtcp.index_word(packet)?;
        let index = u64::from(word & !E_BIT);
        if let Some(s) = at.and_then(|i| self.streams.get(i)) {
            s.rtcp.check(index)?;
        }
        let end = self.rtcp.open_rtcp(packet, ssrc, word)?;
        // Authentic from here on.
        if at.is_none() && self.streams.len() >= MAX_STREAMS {
            return Err(SrtpFault::TooManyStreams);
        }
        let stream = stream_mut(&mut self.streams, at, || ReceiveStream::new(ssrc));
        stream.rtcp.accept(index);
        Ok(end)
    }
}

impl ReceiveStream {
    fn new(ssrc: u32) -> Self {
        Self { ssrc, rtp: Window::default(), rtcp: Window::default() }
    }
}

impl fmt::Debug for SrtpReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrtpReceiver").field("profile", &self.profile).field("streams", &self.streams.len()).finish()
    }
}

/// The stream at `at`, or a new one at the end.
fn stream_mut<T>(streams: &mut Vec<T>, at: Option<usize>, new: impl FnOnce() -> T) -> &mut T {
    match at {
        Some(i) => &mut streams[i], // `position` of the same vector gave it
        None => {
            streams.push(new());
            let last = streams.len() - 1;
            &mut streams[last]
        }
    }
}

/// Which packet indices were used: the newest, and one bit for each of the 128 up to it.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    newest: u64,
    /// Bit `n` is the packet `newest - n`; 0 means that there was none at all.
    seen: u128,
}

/// One past the largest SRTP index: 32 bits of rollover counter, 16 of sequence number.
const INDEX_END: u64 = 1 << 48;

impl Window {
    /// The index of the packet with this sequence number, RFC 3711 §3.3.1, if it may still be used.
    fn guess(&self, seq: u16) -> Result<u64, SrtpFault> {
        if self.seen == 0 {
            return Ok(u64::from(seq));
        }
        let newest_seq = self.newest & 0xffff;
        let seq = u64::from(seq);
        let base = self.newest - newest_seq + seq;
        let index = if newest_seq < 0x8000 {
            if seq > newest_seq + 0x8000 {
                // One rollover back; before the first there was nothing.
                base.checked_sub(0x1_0000).ok_or(SrtpFault::Replayed)?
            } else {
                base
            }
        } else if newest_seq - 0x8000 > seq {
            base + 0x1_0000
        } else {
            base
        };
        // RFC 3711 §9.2: at most 2^48 SRTP packets under one key.
        if index >= INDEX_END {
            return Err(SrtpFault::KeyExhausted);
        }
        self.check(index)?;
        Ok(index)
    }

    /// RFC 3711 §3.3.2.
    fn check(&self, index: u64) -> Result<(), SrtpFault> {
        if self.seen == 0 || index > self.newest {
            return Ok(());
        }
        let behind = self.newest - index;
        if behind >= REPLAY_WINDOW || self.seen >> behind & 1 == 1 {
            return Err(SrtpFault::Replayed);
        }
        Ok(())
    }

    fn accept(&mut self, index: u64) {
        if self.seen == 0 {
            *self = Self { newest: index, seen: 1 };
        } else if index > self.newest {
            let ahead = index - self.newest;
            self.seen = if ahead >= REPLAY_WINDOW { 0 } else { self.seen << ahead } | 1;
            self.newest = index;
        } else if self.newest - index < REPLAY_WINDOW {
            self.seen |= 1 << (self.newest - index);
        }
    }
}

/// Bytes of the GCM tag, RFC 7714 §13.
const GCM_TAG_BYTES: usize = 16;
/// Bytes of the counter mode profiles' RTCP tag, the _32 ones included.
const CM_RTCP_TAG_BYTES: usize = 10;
/// Bytes of the E bit and SRTCP index.
const INDEX_BYTES: usize = 4;
/// Bytes of an RTCP packet that stay in clear: first word and SSRC.
const RTCP_CLEAR_BYTES: usize = 8;
/// Set in the index word of an encrypted SRTCP packet.
const E_BIT: u32 = 1 << 31;

/// The SSRC of a compound RTCP packet's first packet.
fn rtcp_ssrc(packet: &[u8]) -> Result<u32, SrtpFault> {
    match packet.first_chunk::<RTCP_CLEAR_BYTES>() {
        Some(&[b0, _, _, _, s0, s1, s2, s3]) if b0 >> 6 == 2 => Ok(u32::from_be_bytes([s0, s1, s2, s3])),
        Some(_) | None => Err(SrtpFault::Rtcp),
    }
}

/// The session keys of RTP or of RTCP, with their schedules.
enum Cipher {
    Counter { key: Box<EncryptingKey>, salt: [u8; 14], auth: Box<hmac::Key>, tag_len: usize },
    Gcm { key: Box<LessSafeKey>, salt: [u8; 12] },
}

impl Cipher {
    fn tag_len(&self) -> usize {
        match self {
            Self::Counter { tag_len, .. } => *tag_len,
            Self::Gcm { .. } => GCM_TAG_BYTES,
        }
    }

    fn seal_rtp(&self, packet: &mut Vec<u8>, header_len: usize, ssrc: u32, index: u64) -> Result<(), SrtpFault> {
        let (header, payload) = packet.split_at_mut_checked(header_len).ok_or(RtpFault::Header)?;
        match self {
            Self::Counter { key, salt, auth, tag_len } => {
                counter_mode(key, counter_iv(salt, ssrc, index), payload)?;
                let tag = rtp_tag(auth, packet, index);
                packet.extend_from_slice(tag.as_ref().get(..*tag_len).ok_or(SrtpFault::Crypto)?);
            }
            Self::Gcm { key, salt } => {
                let nonce = gcm_nonce(salt, ssrc, index);
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(&*header), payload)
                    .map_err(|_| SrtpFault::Crypto)?;
                packet.extend_from_slice(tag.as_ref());
            }
        }
        Ok(())
    }

    /// Gives where header and payload end.
    fn open_rtp(&self, packet: &mut [u8], header_len: usize, ssrc: u32, index: u64) -> Result<usize, SrtpFault> {
        let end = packet.len().checked_sub(self.tag_len()).filter(|e| *e >= header_len).ok_or(RtpFault::Header)?;
        match self {
            Self::Counter { key, salt, auth, tag_len: _ } => {
                let (clear, tag) = packet.split_at_mut_checked(end).ok_or(RtpFault::Header)?;
                verify(&rtp_tag(auth, clear, index), tag)?;
                let payload = clear.get_mut(header_len..).ok_or(RtpFault::Header)?;
                counter_mode(key, counter_iv(salt, ssrc, index), payload)?;
            }
            Self::Gcm { key, salt } => {
                let (header, sealed) = packet.split_at_mut_checked(header_len).ok_or(RtpFault::Header)?;
                key.open_in_place(gcm_nonce(salt, ssrc, index), Aad::from(&*header), sealed)
                    .map_err(|_| SrtpFault::Forged)?;
            }
        }
        Ok(end)
    }

    /// The word with E bit and index: last in GCM (RFC 7714 §9.2), before the tag in counter mode (RFC 3711 §3.4).
    fn index_word(&self, packet: &[u8]) -> Result<u32, SrtpFault> {
        let after = if matches!(self, Self::Gcm { .. }) { 0 } else { self.tag_len() };
        let overhead = self.tag_len() + INDEX_BYTES;
        packet
            .len()
            .checked_sub(overhead)
            .filter(|end| *end >= RTCP_CLEAR_BYTES)
            .and_then(|_| packet.get(..packet.len() - after))
            .and_then(<[u8]>::last_chunk::<INDEX_BYTES>)
            .map(|word| u32::from_be_bytes(*word))
            .ok_or(SrtpFault::Rtcp)
    }

    fn seal_rtcp(&self, packet: &mut Vec<u8>, ssrc: u32, index: u32) -> Result<(), SrtpFault> {
        let word = (index | E_BIT).to_be_bytes();
        let (clear, body) = packet.split_at_mut_checked(RTCP_CLEAR_BYTES).ok_or(SrtpFault::Rtcp)?;
        match self {
            Self::Counter { key, salt, auth, tag_len } => {
                counter_mode(key, counter_iv(salt, ssrc, index.into()), body)?;
                packet.extend_from_slice(&word);
                let tag = hmac::sign(auth, packet);
                packet.extend_from_slice(tag.as_ref().get(..*tag_len).ok_or(SrtpFault::Crypto)?);
            }
            Self::Gcm { key, salt } => {
                // RFC 7714 §9.2: header and index word are associated data.
                let aad = gcm_rtcp_aad(clear, word);
                let tag = key
                    .seal_in_place_separate_tag(gcm_nonce(salt, ssrc, index.into()), Aad::from(aad), body)
                    .map_err(|_| SrtpFault::Crypto)?;
                packet.extend_from_slice(tag.as_ref());
                packet.extend_from_slice(&word);
            }
        }
        Ok(())
    }

    /// Gives the length of the plain packet. `word` is [`Cipher::index_word`] of the same packet.
    fn open_rtcp(&self, packet: &mut [u8], ssrc: u32, word: u32) -> Result<usize, SrtpFault> {
        let encrypted = word & E_BIT != 0;
        let index = u64::from(word & !E_BIT);
        let end = packet.len().checked_sub(self.tag_len() + INDEX_BYTES).ok_or(SrtpFault::Rtcp)?;
        match self {
            Self::Counter { key, salt, auth, tag_len: _ } => {
                // RFC 3711 §3.4: authentication is mandatory for SRTCP, whatever the E bit says.
                let (signed, tag) = packet.split_at_mut_checked(end + INDEX_BYTES).ok_or(SrtpFault::Rtcp)?;
                verify(&hmac::sign(auth, signed), tag)?;
                if encrypted {
                    let body = signed.get_mut(RTCP_CLEAR_BYTES..end).ok_or(SrtpFault::Rtcp)?;
                    counter_mode(key, counter_iv(salt, ssrc, index), body)?;
                }
            }
            Self::Gcm { key, salt } => {
                let nonce = gcm_nonce(salt, ssrc, index);
                if encrypted {
                    let (clear, rest) = packet.split_at_mut_checked(RTCP_CLEAR_BYTES).ok_or(SrtpFault::Rtcp)?;
                    let aad = gcm_rtcp_aad(clear, word.to_be_bytes());
                    let sealed = rest.len().checked_sub(INDEX_BYTES).and_then(|n| rest.get_mut(..n));
                    key.open_in_place(nonce, Aad::from(aad), sealed.ok_or(SrtpFault::Rtcp)?)
                        .map_err(|_| SrtpFault::Forged)?;
                } else {
                    // RFC 7714 §9.3: all of the packet and the index word are associated data, and the tag stands
                    // between them: the word moves in front of it.
                    packet.get_mut(end..).ok_or(SrtpFault::Rtcp)?.rotate_right(INDEX_BYTES);
                    let (aad, tag) = packet.split_at_mut_checked(end + INDEX_BYTES).ok_or(SrtpFault::Rtcp)?;
                    key.open_in_place(nonce, Aad::from(&*aad), tag).map_err(|_| SrtpFault::Forged)?;
                }
            }
        }
        Ok(end)
    }
}

/// RFC 3711 §4.2: the tag covers the packet and the rollover counter.
fn rtp_tag(auth: &hmac::Key, packet: &[u8], index: u64) -> hmac::Tag {
    let [_, _, r0, r1, r2, r3, _, _] = index.to_be_bytes();
    let mut context = hmac::Context::with_key(auth);
    context.update(packet);
    context.update(&[r0, r1, r2, r3]);
    context.sign()
}

/// Compares as many bytes as `tag` has, in constant time.
fn verify(expected: &hmac::Tag, tag: &[u8]) -> Result<(), SrtpFault> {
    let expected = expected.as_ref().get(..tag.len()).ok_or(SrtpFault::Forged)?;
    constant_time::verify_slices_are_equal(expected, tag).map_err(|_| SrtpFault::Forged)
}

/// RFC 3711 §4.1.1: (salt · 2^16) xor (SSRC · 2^64) xor (index · 2^16).
fn counter_iv(salt: &[u8; 14], ssrc: u32, index: u64) -> [u8; 16] {
    let mut wide = [0; 16];
    for (to, from) in wide.iter_mut().zip(salt) {
        *to = *from;
    }
    (u128::from_be_bytes(wide) ^ u128::from(ssrc) << 64 ^ u128::from(index) << 16).to_be_bytes()
}

/// RFC 7714 §8.1 and §9.1: SSRC at octet 2, the index in the last six (RTCP: in the last four), xor salt.
fn gcm_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let block = (u128::from(ssrc) << 48 | u128::from(index)).to_be_bytes();
    let mut nonce = *salt;
    for (to, from) in nonce.iter_mut().zip(block.iter().skip(4)) {
        *to ^= *from;
    }
    Nonce::assume_unique_for_key(nonce)
}

/// RFC 7714 §9.2: the eight clear octets, then the index word.
fn gcm_rtcp_aad(clear: &[u8], word: [u8; INDEX_BYTES]) -> [u8; RTCP_CLEAR_BYTES + INDEX_BYTES] {
    let mut aad = [0; RTCP_CLEAR_BYTES + INDEX_BYTES];
    for (to, from) in aad.iter_mut().zip(clear.iter().chain(&word)) {
        *to = *from;
    }
    aad
}

/// En- or decrypts in place: counter mode is its own inverse. The key schedule is cached in `key`.
fn counter_mode(key: &EncryptingKey, iv: [u8; 16], data: &mut [u8]) -> Result<(), SrtpFault> {
    key.less_safe_encrypt(data, EncryptionContext::Iv128(iv.into())).map_err(|_| SrtpFault::Crypto)?;
    Ok(())
}

/// The session keys of RTP and RTCP, RFC 3711 §4.3 with key derivation rate 0, RFC 6188 §3 and RFC 7714 §11.
fn derive(profile: SrtpProfile, key: &[u8], salt: &[u8]) -> Result<(Cipher, Cipher), SrtpFault> {
    if key.len() != profile.key_len() || salt.len() != profile.salt_len() {
        return Err(SrtpFault::KeyLength);
    }
    let master = counter_key(key)?;
    let rtp = derive_one(profile, &master, salt, 0, profile.rtp_overhead_bytes())?;
    let rtcp = derive_one(profile, &master, salt, 3, profile.rtcp_overhead_bytes() - INDEX_BYTES)?;
    Ok((rtp, rtcp))
}

/// `label` of the encryption key; authentication key and salt have the two after it.
fn derive_one(
    profile: SrtpProfile,
    master: &EncryptingKey,
    salt: &[u8],
    label: u8,
    tag_len: usize,
) -> Result<Cipher, SrtpFault> {
    let mut key = [0; 32];
    let key = key.get_mut(..profile.key_len()).ok_or(SrtpFault::KeyLength)?;
    prf(master, salt, label, key)?;
    if profile.is_aead() {
        let algorithm = if key.len() == 16 { &aead::AES_128_GCM } else { &aead::AES_256_GCM };
        let key = UnboundKey::new(algorithm, key).map_err(|_| SrtpFault::Crypto)?;
        let mut session_salt = [0; 12];
        prf(master, salt, label + 2, &mut session_salt)?;
        return Ok(Cipher::Gcm { key: Box::new(LessSafeKey::new(key)), salt: session_salt });
    }
    let mut auth = [0; 20];
    prf(master, salt, label + 1, &mut auth)?;
    let mut session_salt = [0; 14];
    prf(master, salt, label + 2, &mut session_salt)?;
    Ok(Cipher::Counter {
        key: Box::new(counter_key(key)?),
        salt: session_salt,
        auth: Box::new(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &auth)),
        tag_len,
    })
}

fn counter_key(key: &[u8]) -> Result<EncryptingKey, SrtpFault> {
    let algorithm = if key.len() == 16 { &cipher::AES_128 } else { &cipher::AES_256 };
    UnboundCipherKey::new(algorithm, key).and_then(EncryptingKey::ctr).map_err(|_| SrtpFault::Crypto)
}

/// RFC 3711 §4.3.3: key stream from the IV (salt xor label · 2^48) · 2^16. A salt of 12 bytes counts as 14 with two
/// zero bytes at the end (RFC 7714 §11).
fn prf(master: &EncryptingKey, salt: &[u8], label: u8, out: &mut [u8]) -> Result<(), SrtpFault> {
    let mut iv = [0; 16];
    for (to, from) in iv.iter_mut().zip(salt) {
        *to = *from;
    }
    let iv = u128::from_be_bytes(iv) ^ u128::from(label) << 64;
    out.fill(0);
    counter_mode(master, iv.to_be_bytes(), out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use crate::wire::rtp::{MediaTime, SeqNo, Ssrc};
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::{RngCore, SeedableRng};

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    }

    const KEY: [u8; 32] = [0x5a; 32];
    const SALT: [u8; 14] = [0xc3; 14];

    fn pair(profile: SrtpProfile) -> (SrtpSender, SrtpReceiver) {
        let (key, salt) = (&KEY[..profile.key_len()], &SALT[..profile.salt_len()]);
        (SrtpSender::new(profile, key, salt).unwrap(), SrtpReceiver::new(profile, key, salt).unwrap())
    }

    fn rtp(seq: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
        let mut p = Vec::new();
        let header =
            RtpHeader { marker: false, payload_type: 111, seq: SeqNo(seq), time: MediaTime(7), ssrc: Ssrc(ssrc) };
        header.write(&mut p);
        p.extend_from_slice(payload);
        p
    }

    fn rtcp(ssrc: u32) -> Vec<u8> {
        let mut p = Vec::new();
        crate::wire::rtcp::write_report(Ssrc(ssrc), None, &[], &mut p);
        crate::wire::rtcp::write_bye(&[Ssrc(ssrc)], Some("done"), &mut p);
        p
    }

    // ---- vectors ----

    fn counter(key: &str, salt: &str) -> Cipher {
        Cipher::Counter {
            key: Box::new(counter_key(&hex(key)).unwrap()),
            salt: hex(salt).try_into().unwrap(),
            auth: Box::new(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &[0; 20])),
            tag_len: 10,
        }
    }

    fn keystream(cipher: &Cipher, len: usize) -> Vec<u8> {
        let mut p = rtp(0, 0, &vec![0; len]);
        cipher.seal_rtp(&mut p, 12, 0, 0).unwrap();
        p[12..12 + len].to_vec()
    }

    #[test]
    fn the_key_stream_is_that_of_rfc_3711_b_2() {
        let stream =
            keystream(&counter("2B7E151628AED2A6ABF7158809CF4F3C", "F0F1F2F3F4F5F6F7F8F9FAFBFCFD"), 0xff02 * 16);
        assert_eq!(
            stream[..48],
            hex("E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0")
        );
        assert_eq!(
            stream[0xfeff * 16..],
            hex("EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE 6A2CC3787889374FBEB4C81B17BA6C44")
        );
    }

    #[test]
    fn the_key_stream_of_256_bits_is_that_of_rfc_6188_7_1() {
        let key = "57f82fe3613fd170a85ec93c40b1f0922ec4cb0dc025b58272147cc438944a98";
        let stream = keystream(&counter(key, "F0F1F2F3F4F5F6F7F8F9FAFBFCFD"), 32);
        assert_eq!(stream, hex("92bdd28a93c3f52511c677d08b5515a4 9da71b2378a854f67050756ded165bac"));
    }

    fn derived(key: &str, salt: &str, label: u8, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        prf(&counter_key(&hex(key)).unwrap(), &hex(salt), label, &mut out).unwrap();
        out
    }

    #[test]
    fn session_keys_are_those_of_rfc_3711_b_3() {
        let (key, salt) = ("E1F97A0D3E018BE0D64FA32C06DE4139", "0EC675AD498AFEEBB6960B3AABE6");
        assert_eq!(derived(key, salt, 0, 16), hex("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(derived(key, salt, 2, 14), hex("30CBBC08863D8C85D49DB34A9AE1"));
        assert_eq!(derived(key, salt, 1, 20), hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
    }

    #[test]
    fn session_keys_of_256_bits_are_those_of_rfc_6188_7_2() {
        let key = "F0F04914B513F2763A1B1FA130F10E2998F6F6E43E4309D1E622A0E332B9F1B6";
        let salt = "3B04803DE51EE7C96423AB5B78D2";
        assert_eq!(derived(key, salt, 0, 32), hex("5BA1064E30EC51613CAD926C5A28EF731EC7FB397F70A960653CAF06554CD8C4"));
        assert_eq!(derived(key, salt, 2, 14), hex("FA31791685CA444A9E07C6C64E93"));
        assert_eq!(derived(key, salt, 1, 20), hex("FD9C32D39ED5FBB5A9DC96B30818454D1313DC05"));
    }

    #[test]
    fn a_counter_mode_packet_equals_that_of_libsrtps_own_test() {
        let (key, salt) = (hex("e1f97a0d3e018be0d64fa32c06de4139"), hex("0ec675ad498afeebb6960b3aabe6"));
        let plain = hex("800f1234decafbadcafebabeabababababababababababababababab");
        let mut p = plain.clone();
        let profile = SrtpProfile::AesCm128HmacSha1_80;
        SrtpSender::new(profile, &key, &salt).unwrap().protect_rtp(&mut p).unwrap();
        assert_eq!(p, hex("800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb"));
        let (_, range) = SrtpReceiver::new(profile, &key, &salt).unwrap().unprotect_rtp(&mut p).unwrap();
        assert_eq!(p[..range.end], plain);
    }

    const GCM_128: &str = "000102030405060708090a0b0c0d0e0f";
    const GCM_256: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn gcm(key: &str) -> Cipher {
        let algorithm = if key.len() == 32 { &aead::AES_128_GCM } else { &aead::AES_256_GCM };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, &hex(key)).unwrap());
        Cipher::Gcm { key: Box::new(key), salt: hex("517569642070726f2071756f").try_into().unwrap() }
    }

    #[test]
    fn gcm_rtp_packets_are_those_of_rfc_7714_16() {
        let plain =
            hex("8040f17b8041f8d35501a0b247616c6c696120657374206f6d6e69732064697669736120696e207061727465732074726573");
        for (key, sealed) in [
            (
                GCM_128,
                "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833\
                 899d7f27beb16a9152cf765ee4390cce",
            ),
            (
                GCM_256,
                "32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b\
                 7aa3db36dfffd6b0f9bb7878d7a76c13",
            ),
        ] {
            let mut p = plain.clone();
            gcm(key).seal_rtp(&mut p, 12, 0x5501_a0b2, 0xf17b).unwrap();
            assert_eq!(p[12..], hex(sealed));
            let end = gcm(key).open_rtp(&mut p, 12, 0x5501_a0b2, 0xf17b).unwrap();
            assert_eq!(p[..end], plain);
        }
    }

    #[test]
    fn gcm_rtcp_packets_are_those_of_rfc_7714_17() {
        let plain = hex("81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61\
             deadbeefdeadbeefdeadbeefdeadbeefdeadbeef");
        let sealed = hex("81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda\
             4ce09b4686303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade800005d4");
        let mut p = plain.clone();
        gcm(GCM_128).seal_rtcp(&mut p, 0x4d61_7273, 0x5d4).unwrap();
        assert_eq!(p, sealed);
        let word = gcm(GCM_128).index_word(&p).unwrap();
        let end = gcm(GCM_128).open_rtcp(&mut p, 0x4d61_7273, word).unwrap();
        assert_eq!(p[..end], plain);
        // §17.3: authenticated only, E bit clear.
        let mut p = [&plain[..], &hex("841dd9683dd78ec92ae58790125f62b3000005d4")].concat();
        let end = gcm(GCM_128).open_rtcp(&mut p, 0x4d61_7273, 0x5d4).unwrap();
        assert_eq!(p[..end], plain);
    }

    #[test]
    fn ids_and_names_lead_back_to_their_profile() {
        for p in SrtpProfile::ALL {
            assert_eq!(SrtpProfile::from_sdes_name(p.sdes_name()), Some(p));
            if let Some(id) = p.dtls_id() {
                assert_eq!(SrtpProfile::from_dtls_id(id), Some(p));
            }
        }
        assert_eq!(SrtpProfile::from_dtls_id(3), None);
        assert_eq!(SrtpProfile::from_sdes_name("F8_128_HMAC_SHA1_80"), None);
    }

    #[test]
    fn both_dtls_roles_cut_the_same_keys() {
        let profile = SrtpProfile::AeadAes128Gcm;
        let material: Vec<u8> = (0..56).collect();
        let (out_c, in_c) = split_dtls_keying_material(profile, &material, true).unwrap();
        let (out_s, in_s) = split_dtls_keying_material(profile, &material, false).unwrap();
        assert_eq!((out_c.key, out_c.salt), (&material[..16], &material[32..44]));
        assert_eq!((in_c.key, in_c.salt), (&material[16..32], &material[44..]));
        assert_eq!((out_s.key, in_s.salt), (in_c.key, out_c.salt));
        assert!(split_dtls_keying_material(profile, &material[1..], true).is_err());
        assert_eq!(SrtpSender::new(profile, &KEY, &SALT).unwrap_err(), SrtpFault::KeyLength);
    }

    // ---- behaviour ----

    #[test]
    fn packets_survive_rollovers_loss_and_reordering() {
        for profile in SrtpProfile::ALL {
            let (mut tx, mut rx) = pair(profile);
            let mut held: Option<Vec<u8>> = None;
            let mut received = 0;
            for n in (65_000u32..200_000).step_by(97) {
                let plain = rtp(n as u16, 5, &n.to_be_bytes());
                let mut p = plain.clone();
                tx.protect_rtp(&mut p).unwrap();
                assert_eq!(p.len(), plain.len() + profile.rtp_overhead_bytes());
                // Every second pair arrives swapped.
                let mut arrivals = vec![p];
                if n % 2 == 0 && held.is_none() {
                    held = arrivals.pop();
                } else {
                    arrivals.extend(held.take());
                }
                for mut p in arrivals {
                    // A swapped packet is 97 behind, inside the window.
                    let (_, range) = rx.unprotect_rtp(&mut p).unwrap();
                    assert_eq!(range.len(), 4);
                    received += 1;
                }
            }
            assert!(received > 1300, "{received}");
            assert_eq!(rx.streams[0].rtp.newest >> 16, 3, "three rollovers: 65 536, 131 072 and 196 608");
        }
    }

    #[test]
    fn a_replayed_packet_is_dropped() {
        for profile in SrtpProfile::ALL {
            let (mut tx, mut rx) = pair(profile);
            let mut sent = Vec::new();
            for seq in 0..1000u16 {
                let mut p = rtp(seq, 5, b"payload");
                tx.protect_rtp(&mut p).unwrap();
                sent.push(p.clone());
                rx.unprotect_rtp(&mut p).unwrap();
            }
            for p in &sent {
                assert_eq!(rx.unprotect_rtp(&mut p.clone()), Err(SrtpFault::Replayed));
            }
            let mut p = rtcp(5);
            tx.protect_rtcp(&mut p).unwrap();
            rx.unprotect_rtcp(&mut p.clone()).unwrap();
            assert_eq!(rx.unprotect_rtcp(&mut p), Err(SrtpFault::Replayed));
        }
    }

    #[test]
    fn the_window_takes_127_behind_once_and_not_128() {
        let (mut tx, mut rx) = pair(SrtpProfile::AeadAes128Gcm);
        let sent: Vec<_> = (0..=200u16)
            .map(|seq| {
                let mut p = rtp(seq, 5, b"x");
                tx.protect_rtp(&mut p).unwrap();
                p
            })
            .collect();
        rx.unprotect_rtp(&mut sent[200].clone()).unwrap();
        assert_eq!(rx.unprotect_rtp(&mut sent[72].clone()), Err(SrtpFault::Replayed));
        rx.unprotect_rtp(&mut sent[73].clone()).unwrap();
        assert_eq!(rx.unprotect_rtp(&mut sent[73].clone()), Err(SrtpFault::Replayed));
    }

    #[test]
    fn a_key_stream_is_never_used_twice() {
        let (mut tx, _) = pair(SrtpProfile::AeadAes128Gcm);
        tx.protect_rtp(&mut rtp(9, 5, b"one")).unwrap();
        let mut other = rtp(9, 5, b"two");
        assert_eq!(tx.protect_rtp(&mut other), Err(SrtpFault::Replayed));
        assert_eq!(other, rtp(9, 5, b"two"), "left as it was");
    }

    #[test]
    fn a_used_up_key_protects_no_more() {
        let (mut tx, mut rx) = pair(SrtpProfile::AeadAes256Gcm);
        tx.protect_rtcp(&mut rtcp(5)).unwrap();
        tx.streams[0].rtcp_next = (1 << 31) - 1;
        let mut last = rtcp(5);
        tx.protect_rtcp(&mut last).unwrap();
        rx.unprotect_rtcp(&mut last).unwrap();
        assert_eq!(tx.protect_rtcp(&mut rtcp(5)), Err(SrtpFault::KeyExhausted));
        tx.streams[0].rtp = Window { newest: INDEX_END - 2, seen: 1 };
        tx.protect_rtp(&mut rtp(0xffff, 5, b"last")).unwrap();
        assert_eq!(tx.protect_rtp(&mut rtp(0, 5, b"over")), Err(SrtpFault::KeyExhausted));
    }

    #[test]
    fn a_packet_before_the_first_rollover_is_too_old_not_a_wrap() {
        let w = Window { newest: 3, seen: 1 };
        assert_eq!(w.guess(0xfffe), Err(SrtpFault::Replayed));
        assert_eq!(w.guess(4), Ok(4));
        let w = Window { newest: 0x1_0003, seen: 1 };
        assert_eq!(w.guess(0xfffe), Ok(0xfffe));
        let w = Window { newest: 0x1_fff0, seen: 1 };
        assert_eq!(w.guess(2), Ok(0x2_0002));
    }

    #[test]
    fn srtcp_without_encryption_is_refused_unless_its_tag_is_right() {
        for profile in SrtpProfile::ALL {
            let (_, mut rx) = pair(profile);
            let (key, salt) = (&KEY[..profile.key_len()], &SALT[..profile.salt_len()]);
            let (_, cipher) = derive(profile, key, salt).unwrap();
            let word = 7u32.to_be_bytes();
            // Forged without a key, with a high index that would lock out genuine packets.
            let tag = vec![0xaa; profile.rtcp_overhead_bytes() - INDEX_BYTES];
            let high = 0x7fff_ffffu32.to_be_bytes();
            let forged = match &cipher {
                Cipher::Counter { .. } => [&rtcp(5)[..], &high, &tag].concat(),
                Cipher::Gcm { .. } => [&rtcp(5)[..], &tag, &high].concat(),
            };
            assert_eq!(rx.unprotect_rtcp(&mut forged.clone()), Err(SrtpFault::Forged));
            assert_eq!(rx.streams(), 0);
            // The same by the holder of the key is authentic.
            let genuine = match &cipher {
                Cipher::Counter { auth, .. } => {
                    let signed = [&rtcp(5)[..], &word].concat();
                    let tag = hmac::sign(auth, &signed);
                    [&signed[..], &tag.as_ref()[..10]].concat()
                }
                Cipher::Gcm { key, salt } => {
                    let aad = [&rtcp(5)[..], &word].concat();
                    let tag =
                        key.seal_in_place_separate_tag(gcm_nonce(salt, 5, 7), Aad::from(&aad[..]), &mut []).unwrap();
                    [&rtcp(5)[..], tag.as_ref(), &word].concat()
                }
            };
            let mut p = genuine.clone();
            let end = rx.unprotect_rtcp(&mut p).unwrap();
            assert_eq!(p[..end], rtcp(5));
            assert_eq!(rx.unprotect_rtcp(&mut genuine.clone()), Err(SrtpFault::Replayed));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for profile in SrtpProfile::ALL {
            let (mut tx, mut rx) = pair(profile);
            let mut media = rtp(1, 5, b"some payload");
            tx.protect_rtp(&mut media).unwrap();
            let mut control = rtcp(5);
            tx.protect_rtcp(&mut control).unwrap();
            for bit in 0..media.len() * 8 {
                let mut p = media.clone();
                p[bit / 8] ^= 1 << (bit % 8);
                assert!(rx.unprotect_rtp(&mut p).is_err(), "{profile:?} RTP bit {bit}");
            }
            for bit in 0..control.len() * 8 {
                let mut p = control.clone();
                p[bit / 8] ^= 1 << (bit % 8);
                assert!(rx.unprotect_rtcp(&mut p).is_err(), "{profile:?} RTCP bit {bit}");
            }
            assert_eq!(rx.streams.capacity(), 0);
            rx.unprotect_rtp(&mut media).unwrap();
            rx.unprotect_rtcp(&mut control).unwrap();
        }
    }

    #[test]
    fn no_length_and_no_first_byte_panics() {
        for profile in SrtpProfile::ALL {
            let (mut tx, mut rx) = pair(profile);
            for len in 0..=200usize {
                for first in 0..=255u8 {
                    let mut p = vec![0x11; len];
                    if let Some(b) = p.first_mut() {
                        *b = first;
                    }
                    assert!(rx.unprotect_rtp(&mut p.clone()).is_err());
                    assert!(rx.unprotect_rtcp(&mut p.clone()).is_err());
                    let before = p.clone();
                    if tx.protect_rtp(&mut p).is_err() {
                        assert_eq!(p, before);
                    }
                    let mut p = before.clone();
                    if tx.protect_rtcp(&mut p).is_err() {
                        assert_eq!(p, before);
                    }
                }
            }
            assert_eq!(rx.streams.capacity(), 0);
        }
    }

    #[test]
    fn a_hundred_thousand_forged_packets_change_no_state() {
        for profile in [SrtpProfile::AeadAes128Gcm, SrtpProfile::AesCm128HmacSha1_80] {
            let (mut tx, mut rx) = pair(profile);
            let mut genuine = rtp(100, 5, b"genuine");
            tx.protect_rtp(&mut genuine).unwrap();
            rx.unprotect_rtp(&mut genuine).unwrap();
            let (newest, capacity) = (rx.streams[0].rtp.newest, rx.streams.capacity());
            let mut rng = ChaCha20Rng::seed_from_u64(7);
            let mut p = [0; 80];
            for n in 0..50_000u32 {
                rng.fill_bytes(&mut p);
                p[0] = 0x80;
                if n % 2 == 0 {
                    p[8..12].copy_from_slice(&5u32.to_be_bytes());
                }
                assert!(rx.unprotect_rtp(&mut p).is_err());
                rng.fill_bytes(&mut p);
                p[..2].copy_from_slice(&[0x80, 200]);
                assert!(rx.unprotect_rtcp(&mut p).is_err());
            }
            assert_eq!((rx.streams.len(), rx.streams.capacity()), (1, capacity));
            assert_eq!(rx.streams[0].rtp.newest, newest);
            assert_eq!(rx.streams[0].rtcp.seen, 0);
            let mut next = rtp(101, 5, b"genuine");
            tx.protect_rtp(&mut next).unwrap();
            rx.unprotect_rtp(&mut next).unwrap();
            let mut next = rtcp(5);
            tx.protect_rtcp(&mut next).unwrap();
            rx.unprotect_rtcp(&mut next).unwrap();
        }
    }

    #[test]
    fn a_peer_with_the_key_cannot_name_endless_ssrcs() {
        let (_, mut rx) = pair(SrtpProfile::AeadAes128Gcm);
        for ssrc in 0..40u32 {
            let (mut tx, _) = pair(SrtpProfile::AeadAes128Gcm);
            let mut p = rtp(1, ssrc, b"x");
            tx.protect_rtp(&mut p).unwrap();
            let got = rx.unprotect_rtp(&mut p);
            assert_eq!(got.is_ok(), (ssrc as usize) < MAX_STREAMS);
        }
        assert_eq!(rx.streams(), MAX_STREAMS);
        let (mut tx, _) = pair(SrtpProfile::AeadAes128Gcm);
        for ssrc in 0..40u32 {
            assert_eq!(tx.protect_rtp(&mut rtp(1, ssrc, b"x")).is_ok(), (ssrc as usize) < MAX_STREAMS);
        }
    }

    #[test]
    fn secrets_stay_out_of_debug_output() {
        let (tx, rx) = pair(SrtpProfile::AesCm128HmacSha1_80);
        let key = MasterKey { key: &KEY, salt: &SALT };
        for text in [format!("{tx:?}"), format!("{rx:?}"), format!("{key:?}")] {
            assert!(!text.contains("90, 90") && !text.contains("5a5a"), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn a_mutated_packet_is_refused_and_the_genuine_one_still_accepted(
            which in 0usize..6, is_rtcp: bool, payload in prop::collection::vec(any::<u8>(), 0..200),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in 0usize..40, more in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let (mut tx, mut rx) = pair(SrtpProfile::ALL[which]);
            let mut p = rtp(3, 5, &payload);
            if is_rtcp { tx.protect_rtcp(&mut p).unwrap() } else { tx.protect_rtp(&mut p).unwrap() }
            let mut changed = p.clone();
            for (at, to) in changes {
                *at.get_mut(&mut changed) = to;
            }
            changed.truncate(changed.len().saturating_sub(cut));
            changed.extend_from_slice(&more);
            if changed != p {
                if is_rtcp {
                    prop_assert!(rx.unprotect_rtcp(&mut changed).is_err());
                } else {
                    prop_assert!(rx.unprotect_rtp(&mut changed).is_err());
                }
                prop_assert_eq!(rx.streams(), 0);
            }
            if is_rtcp {
                let end = rx.unprotect_rtcp(&mut p).unwrap();
                prop_assert_eq!(&p[..end], &rtp(3, 5, &payload)[..]);
            } else {
                let (_, range) = rx.unprotect_rtp(&mut p).unwrap();
                prop_assert_eq!(&p[range], &payload[..]);
            }
        }

        #[test]
        fn protecting_foreign_bytes_never_panics(which in 0usize..6, p in prop::collection::vec(any::<u8>(), 0..80)) {
            let (mut tx, mut rx) = pair(SrtpProfile::ALL[which]);
            let mut p = p;
            if let Some(b) = p.first_mut() {
                *b = 0x80 | *b & 0x3f;
            }
            let mut sealed = p.clone();
            if tx.protect_rtp(&mut sealed).is_ok() {
                let end = sealed.len() - SrtpProfile::ALL[which].rtp_overhead_bytes();
                match rx.unprotect_rtp(&mut sealed) {
                    Ok(_) | Err(SrtpFault::Rtp(RtpFault::Padding)) => prop_assert_eq!(&sealed[..end], &p[..]),
                    Err(fault) => prop_assert!(false, "{fault}"),
                }
            }
        }
    }
}
