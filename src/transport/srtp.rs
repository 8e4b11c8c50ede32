//! SRTP and SRTCP over one crypto library. Read RFC 3711 (§3.3, §3.4, §4), RFC 6188 and RFC 7714 before touching this
//! file; RFC 5764 §4.2 for the keys out of DTLS, RFC 4568 §6.2 for the names in signalling.
//!
//! The rule of the whole file: nothing of a receiver changes before the tag of a packet is verified, so that forged
//! packets cost time only, never state.

use std::fmt;
use std::ops::Range;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;

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
    if bool::from(expected.ct_eq(tag)) { Ok(()) } else { Err(SrtpFault::Forged) }
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
