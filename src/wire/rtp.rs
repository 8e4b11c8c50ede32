//! RTP header and header extensions to values and back. Read RFC 3550 §5.1, RFC 8285 and RFC 5761 §4 before touching
//! this file. RTCP is in [`super::rtcp`].

use std::ops::Range;

/// RTP synchronisation source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ssrc(pub u32);

/// RTP sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeqNo(pub u16);

/// RTP timestamp in units of the payload type's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MediaTime(pub u32);

/// Bytes of the header without CSRC list and extension, RFC 3550 §5.1.
pub const FIXED_HEADER_BYTES: usize = 12;

/// Bytes that are no RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RtpFault {
    /// Shorter than the 12 bytes of the fixed header.
    #[error("shorter than an RTP header")]
    TooShort,
    /// The version is not 2.
    #[error("not RTP version 2")]
    Version,
    /// The CSRC list or the extension runs past the end of the packet.
    #[error("the RTP header is longer than the packet")]
    Header,
    /// The padding count is 0 or larger than what follows the header.
    #[error("bad RTP padding")]
    Padding,
}

/// The fixed RTP header. CSRCs are skipped when read and never written; extensions: [`extensions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpHeader {
    /// Start of a talk spurt or last packet of a frame.
    pub marker: bool,
    /// 0 to 127.
    pub payload_type: u8,
    /// Sequence number.
    pub seq: SeqNo,
    /// Timestamp.
    pub time: MediaTime,
    /// Who sends.
    pub ssrc: Ssrc,
}

impl RtpHeader {
    /// The header and where in `packet` the payload stands, without CSRCs, extension and padding.
    ///
    /// # Errors
    /// [`RtpFault`] if the bytes are not an RTP packet.
    pub fn parse(packet: &[u8]) -> Result<(Self, Range<usize>), RtpFault> {
        let (header, start) = Self::parse_clear(packet)?;
        let mut end = packet.len();
        if packet.first().is_some_and(|b| b & 0x20 != 0) {
            // RFC 3550 §5.1: the last octet counts the padding, itself included.
            let padding = usize::from(*packet.last().ok_or(RtpFault::Padding)?);
            if padding == 0 || padding > end - start {
                return Err(RtpFault::Padding);
            }
            end -= padding;
        }
        Ok((header, start..end))
    }

    /// The header and its length in bytes, padding not looked at: in an SRTP packet the padding count is encrypted.
    ///
    /// # Errors
    /// [`RtpFault`] if the header is not one, or is longer than `packet`.
    pub fn parse_clear(packet: &[u8]) -> Result<(Self, usize), RtpFault> {
        let fixed: &[u8; FIXED_HEADER_BYTES] = packet.first_chunk().ok_or(RtpFault::TooShort)?;
        let [b0, b1, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3] = *fixed;
        if b0 >> 6 != 2 {
            return Err(RtpFault::Version);
        }
        let mut len = FIXED_HEADER_BYTES + 4 * usize::from(b0 & 0x0f);
        if b0 & 0x10 != 0 {
            let [_, _, w0, w1] = *packet.get(len..).and_then(<[u8]>::first_chunk::<4>).ok_or(RtpFault::Header)?;
            len += 4 + 4 * usize::from(u16::from_be_bytes([w0, w1]));
        }
        if len > packet.len() {
            return Err(RtpFault::Header);
        }
        let header = Self {
            marker: b1 & 0x80 != 0,
            payload_type: b1 & 0x7f,
            seq: SeqNo(u16::from_be_bytes([s0, s1])),
            time: MediaTime(u32::from_be_bytes([t0, t1, t2, t3])),
            ssrc: Ssrc(u32::from_be_bytes([i0, i1, i2, i3])),
        };
        Ok((header, len))
    }

    /// Appends the 12 bytes of the header, without extension; the payload follows.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_fixed(0x80, out);
    }

    /// Appends the header with `extensions`, in the one-byte form of RFC 8285 §4.2 where every element fits it (id 1
    /// to 14, 1 to 16 bytes), else in the two-byte form (§4.3: id 1 to 255, up to 255 bytes). Elements that fit
    /// neither are left out; with none left there is no extension block.
    pub fn write_with(&self, extensions: &[Extension<'_>], out: &mut Vec<u8>) {
        let fitting = || extensions.iter().filter(|e| e.id != 0 && e.data.len() <= 255);
        if fitting().next().is_none() {
            return self.write(out);
        }
        let one_byte = fitting().all(|e| e.id <= 14 && (1..=16).contains(&e.data.len()));
        let element_header = if one_byte { 1 } else { 2 };
        let bytes: usize = fitting().map(|e| element_header + e.data.len()).sum();
        let words = bytes.div_ceil(4);
        let Ok(count) = u16::try_from(words) else { return self.write(out) };
        self.write_fixed(0x90, out);
        out.extend_from_slice(&if one_byte { ONE_BYTE } else { TWO_BYTE }.to_be_bytes());
        out.extend_from_slice(&count.to_be_bytes());
        for e in fitting() {
            let len = u8::try_from(e.data.len()).unwrap_or(u8::MAX);
            if one_byte {
                out.push(e.id << 4 | len.saturating_sub(1));
            } else {
                out.extend_from_slice(&[e.id, len]);
            }
            out.extend_from_slice(e.data);
        }
        out.resize(out.len() + words * 4 - bytes, 0);
    }

    fn write_fixed(&self, first: u8, out: &mut Vec<u8>) {
        out.push(first);
        out.push(u8::from(self.marker) << 7 | self.payload_type & 0x7f);
        out.extend_from_slice(&self.seq.0.to_be_bytes());
        out.extend_from_slice(&self.time.0.to_be_bytes());
        out.extend_from_slice(&self.ssrc.0.to_be_bytes());
    }
}

/// "defined by profile" of the one-byte form, RFC 8285 §4.2.
const ONE_BYTE: u16 = 0xBEDE;
/// "defined by profile" of the two-byte form with the application bits 0, RFC 8285 §4.3.
const TWO_BYTE: u16 = 0x1000;

/// `urn:ietf:params:rtp-hdrext:sdes:mid`, RFC 9143 §15.
pub const URI_MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
/// `urn:ietf:params:rtp-hdrext:ssrc-audio-level`, RFC 6464.
pub const URI_AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";

/// One header extension element, RFC 8285 §4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension<'a> {
    /// The id that signalling gave to the extension's URI.
    pub id: u8,
    /// What it says.
    pub data: &'a [u8],
}

impl<'a> Extension<'a> {
    /// The `mid` it carries (RFC 9143): its text if that is UTF-8.
    #[must_use]
    pub fn mid(&self) -> Option<&'a str> {
        std::str::from_utf8(self.data).ok()
    }

    /// The audio level it carries (RFC 6464 §3).
    #[must_use]
    pub fn audio_level(&self) -> Option<AudioLevel> {
        let &b = self.data.first()?;
        Some(AudioLevel { voice: b & 0x80 != 0, below_full_db: b & 0x7f })
    }
}

/// How loud one packet is, RFC 6464 §3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioLevel {
    /// The encoder believes that it holds speech.
    pub voice: bool,
    /// Decibel below full scale: 0 is loudest, 127 is silence.
    pub below_full_db: u8,
}

impl AudioLevel {
    /// The byte on the wire.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        u8::from(self.voice) << 7 | self.below_full_db.min(127)
    }
}

/// The extension elements of an RTP packet, both forms; ends early at the first that runs past the block.
#[must_use]
pub fn extensions(packet: &[u8]) -> Extensions<'_> {
    let none = Extensions { block: &[], two_byte: false };
    let Some(&[b0, ..]) = packet.first_chunk::<FIXED_HEADER_BYTES>() else { return none };
    if b0 >> 6 != 2 || b0 & 0x10 == 0 {
        return none;
    }
    let start = FIXED_HEADER_BYTES + 4 * usize::from(b0 & 0x0f);
    let Some((&[p0, p1, w0, w1], rest)) = packet.get(start..).and_then(<[u8]>::split_first_chunk::<4>) else {
        return none;
    };
    let Some(block) = rest.get(..4 * usize::from(u16::from_be_bytes([w0, w1]))) else { return none };
    match u16::from_be_bytes([p0, p1]) {
        ONE_BYTE => Extensions { block, two_byte: false },
        // RFC 8285 §4.3: the low four bits are the application's, to be ignored.
        profile if profile & 0xfff0 == TWO_BYTE => Extensions { block, two_byte: true },
        _ => none,
    }
}

/// Iterator of [`extensions`].
#[derive(Debug, Clone)]
pub struct Extensions<'a> {
    block: &'a [u8],
    two_byte: bool,
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Extension<'a>;

    fn next(&mut self) -> Option<Extension<'a>> {
        loop {
            let (&first, rest) = self.block.split_first()?;
            if first == 0 {
                self.block = rest;
                continue; // RFC 8285 §4.1.2: one zero byte is padding, in both forms.
            }
            let (id, len, rest) = if self.two_byte {
                let (&len, rest) = rest.split_first()?;
                (first, usize::from(len), rest)
            } else {
                (first >> 4, usize::from(first & 0x0f) + 1, rest)
            };
            // RFC 8285 §4.2: id 15 ends the block; an id 0 with a length is skipped with its data.
            if !self.two_byte && id == 15 {
                self.block = &[];
                return None;
            }
            let Some((data, rest)) = rest.split_at_checked(len) else {
                self.block = &[];
                return None;
            };
            self.block = rest;
            if id != 0 {
                return Some(Extension { id, data });
            }
        }
    }
}

/// What a datagram with a first byte of 128 to 191 is, when RTP and RTCP share a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Muxed {
    /// RTP or SRTP.
    Rtp,
    /// RTCP or SRTCP.
    Rtcp,
}

/// Tells RTP from RTCP, RFC 5761 §4: packet types 192 to 223 are RTCP, so RTP cannot use the payload types 64 to 95.
/// `None` if it is neither (version not 2, or less than 8 bytes).
#[must_use]
pub fn demux(packet: &[u8]) -> Option<Muxed> {
    let &[b0, b1, ..] = packet.first_chunk::<8>()?;
    if b0 >> 6 != 2 {
        return None;
    }
    Some(if (192..=223).contains(&b1) { Muxed::Rtcp } else { Muxed::Rtp })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    const HEADER: RtpHeader = RtpHeader {
        marker: true,
        payload_type: 111,
        seq: SeqNo(0x1234),
        time: MediaTime(0xdeca_fbad),
        ssrc: Ssrc(0xcafe_babe),
    };

    #[test]
    fn csrcs_extension_and_padding_are_not_payload() {
        let mut p = vec![0xb2, 0x6f, 0x12, 0x34, 0xde, 0xca, 0xfb, 0xad, 0xca, 0xfe, 0xba, 0xbe];
        p.extend_from_slice(&[0; 8]); // two CSRCs
        p.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x10, 0x7f, 0, 0]);
        p.extend_from_slice(b"abc");
        p.extend_from_slice(&[0, 0, 3]);
        let (h, range) = RtpHeader::parse(&p).unwrap();
        assert_eq!(h, RtpHeader { marker: false, ..HEADER });
        assert_eq!(&p[range], b"abc");
        assert_eq!(extensions(&p).collect::<Vec<_>>(), [Extension { id: 1, data: &[0x7f] }]);
    }

    #[test]
    fn padding_larger_than_the_payload_is_refused() {
        let mut p = Vec::new();
        HEADER.write(&mut p);
        p[0] |= 0x20;
        assert_eq!(RtpHeader::parse(&p), Err(RtpFault::Padding), "no byte to count with");
        p.extend_from_slice(&[1, 2, 4]);
        assert_eq!(RtpHeader::parse(&p), Err(RtpFault::Padding));
        p[14] = 0;
        assert_eq!(RtpHeader::parse(&p), Err(RtpFault::Padding));
        p[14] = 3;
        assert_eq!(RtpHeader::parse(&p).unwrap().1, 12..12);
    }

    #[test]
    fn an_extension_block_that_swallows_the_packet_is_refused() {
        // The 27 bytes that make another implementation slice past the end.
        let mut p = vec![0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xbe, 0xde, 0, 2, 3, 1];
        p.resize(27, 0);
        let _ = RtpHeader::parse(&p);
        p[15] = 200;
        assert_eq!(RtpHeader::parse(&p), Err(RtpFault::Header));
        assert_eq!(extensions(&p).count(), 0);
    }

    #[test]
    fn an_element_of_the_reserved_id_15_ends_the_block() {
        let p = [&[0x90u8; 1][..], &[0; 11], &[0xbe, 0xde, 0, 2, 0x10, 7, 0xf0, 0, 0x20, 9, 0, 0]].concat();
        assert_eq!(extensions(&p).map(|e| e.id).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn no_length_and_no_first_byte_panics() {
        for len in 0..=200usize {
            for first in 0..=255u8 {
                for fill in [0u8, 0x7f, 0xff] {
                    let mut p = vec![fill; len];
                    if let Some(b) = p.first_mut() {
                        *b = first;
                    }
                    if let Ok((_, r)) = RtpHeader::parse(&p) {
                        assert!(r.start >= 12 && r.end <= len && r.start <= r.end);
                    }
                    let _ = extensions(&p).count();
                    let _ = demux(&p);
                }
            }
        }
    }

    #[test]
    fn rtcp_is_told_from_rtp_by_its_packet_type() {
        assert_eq!(demux(&[0x80, 200, 0, 6, 0, 0, 0, 0]), Some(Muxed::Rtcp));
        assert_eq!(demux(&[0x80, 0x80 | 111, 0, 6, 0, 0, 0, 0]), Some(Muxed::Rtp));
        assert_eq!(demux(&[0x80, 8, 0, 6, 0, 0, 0, 0]), Some(Muxed::Rtp));
        assert_eq!(demux(&[0x40, 200, 0, 6, 0, 0, 0, 0]), None);
        assert_eq!(demux(&[0x80, 200, 0]), None);
    }

    #[test]
    fn audio_level_and_mid_are_read() {
        let level = AudioLevel { voice: true, below_full_db: 26 };
        let mut p = Vec::new();
        HEADER.write_with(&[Extension { id: 1, data: &[level.to_byte()] }, Extension { id: 4, data: b"0" }], &mut p);
        assert_eq!(p.len() % 4, 0);
        let found: Vec<_> = extensions(&p).collect();
        assert_eq!(found[0].audio_level(), Some(level));
        assert_eq!(found[1].mid(), Some("0"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            marker: bool, payload_type in 0u8..128, seq: u16, time: u32, ssrc: u32,
            ext in prop::collection::vec((1u8..=255, prop::collection::vec(any::<u8>(), 0..40)), 0..6),
            payload in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let h = RtpHeader { marker, payload_type, seq: SeqNo(seq), time: MediaTime(time), ssrc: Ssrc(ssrc) };
            let ext: Vec<_> = ext.iter().map(|(id, data)| Extension { id: *id, data }).collect();
            let mut p = Vec::new();
            h.write_with(&ext, &mut p);
            p.extend_from_slice(&payload);
            let (got, range) = RtpHeader::parse(&p).unwrap();
            prop_assert_eq!(got, h);
            prop_assert_eq!(&p[range], &payload[..]);
            prop_assert_eq!(extensions(&p).collect::<Vec<_>>(), ext);
        }

        #[test]
        fn random_bytes_never_panic(p in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = RtpHeader::parse(&p);
            let _ = extensions(&p).count();
        }
    }
}
