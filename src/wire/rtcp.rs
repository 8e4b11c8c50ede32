//! RTCP packets to values and back. Read RFC 3550 §6, RFC 4585 §6 and RFC 5506 before touching this file.

use super::rtp::{MediaTime, SeqNo, Ssrc};

/// Bytes that are no RTCP compound packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RtcpFault {
    /// Shorter than a header, or than its own length field says.
    #[error("an RTCP packet is cut short")]
    TooShort,
    /// The version is not 2.
    #[error("not RTCP version 2")]
    Version,
    /// The counts inside do not fit the length.
    #[error("an RTCP packet contradicts its length")]
    Length,
    /// The padding count is 0, no multiple of 4, larger than the packet, or not on the last packet.
    #[error("bad RTCP padding")]
    Padding,
}

/// Packet type of a sender report.
pub const PT_SR: u8 = 200;
/// Packet type of a receiver report.
pub const PT_RR: u8 = 201;
/// Packet type of a source description.
pub const PT_SDES: u8 = 202;
/// Packet type of a goodbye.
pub const PT_BYE: u8 = 203;
/// Packet type of an application-defined packet.
pub const PT_APP: u8 = 204;
/// Packet type of transport layer feedback, RFC 4585 §6.2.
pub const PT_RTPFB: u8 = 205;
/// Packet type of payload-specific feedback, RFC 4585 §6.3.
pub const PT_PSFB: u8 = 206;
/// Packet type of an extended report, RFC 3611.
pub const PT_XR: u8 = 207;

/// SDES item CNAME, RFC 3550 §6.5.1.
pub const SDES_CNAME: u8 = 1;
/// Feedback format of a generic NACK in [`PT_RTPFB`], RFC 4585 §6.2.1.
pub const FMT_NACK: u8 = 1;
/// Feedback format of a picture loss indication in [`PT_PSFB`], RFC 4585 §6.3.1.
pub const FMT_PLI: u8 = 1;

/// Report blocks that one packet can carry (5 bits), and sources that one BYE can name.
pub const MAX_COUNT: usize = 31;

/// What a sender says of itself, RFC 3550 §6.4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderInfo {
    /// Wall clock as NTP: seconds since 1900 in the high half, 2^-32 s in the low.
    pub ntp: u64,
    /// The same instant in the media's clock.
    pub time: MediaTime,
    /// Packets sent so far, modulo 2^32.
    pub packets: u32,
    /// Payload bytes sent so far, modulo 2^32.
    pub octets: u32,
}

/// How one source is received, RFC 3550 §6.4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBlock {
    /// Whom it is about.
    pub ssrc: Ssrc,
    /// Lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Lost since the start, -2^23 to 2^23-1; negative if there were duplicates.
    pub cumulative_lost: i32,
    /// Highest sequence number with rollovers in the high half.
    pub highest_seq: u32,
    /// Interarrival jitter in units of the media's clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last SR from the source; 0 if none came.
    pub last_sr: u32,
    /// From that SR's arrival to this report, in 2^-16 s.
    pub delay_since_last_sr: u32,
}

/// Bytes of a report block.
const BLOCK_BYTES: usize = 24;
/// Bytes of the sender info.
const SENDER_INFO_BYTES: usize = 20;

impl ReportBlock {
    fn read(block: &[u8; BLOCK_BYTES]) -> Self {
        let [s0, s1, s2, s3, fraction_lost, c0, c1, c2, h0, h1, h2, h3, rest @ ..] = *block;
        let [j0, j1, j2, j3, l0, l1, l2, l3, d0, d1, d2, d3] = rest;
        Self {
            ssrc: Ssrc(u32::from_be_bytes([s0, s1, s2, s3])),
            fraction_lost,
            // 24 bits, signed: shifted to the top and back down.
            cumulative_lost: i32::from_be_bytes([c0, c1, c2, 0]) >> 8,
            highest_seq: u32::from_be_bytes([h0, h1, h2, h3]),
            jitter: u32::from_be_bytes([j0, j1, j2, j3]),
            last_sr: u32::from_be_bytes([l0, l1, l2, l3]),
            delay_since_last_sr: u32::from_be_bytes([d0, d1, d2, d3]),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let [_, c0, c1, c2] = self.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff).to_be_bytes();
        out.extend_from_slice(&self.ssrc.0.to_be_bytes());
        out.extend_from_slice(&[self.fraction_lost, c0, c1, c2]);
        for word in [self.highest_seq, self.jitter, self.last_sr, self.delay_since_last_sr] {
            out.extend_from_slice(&word.to_be_bytes());
        }
    }
}

/// One packet of a compound packet; what has a variable length stays in the datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// SR (`sender` present) or RR, RFC 3550 §6.4.
    Report {
        /// Who reports.
        ssrc: Ssrc,
        /// Present in an SR.
        sender: Option<SenderInfo>,
        /// How it receives others.
        blocks: Blocks<'a>,
    },
    /// SDES, RFC 3550 §6.5.
    Description(Items<'a>),
    /// BYE, RFC 3550 §6.6.
    Bye {
        /// Who leaves.
        sources: Sources<'a>,
        /// Why, as text in UTF-8 if the peer keeps the rules.
        reason: Option<&'a [u8]>,
    },
    /// RTPFB or PSFB, RFC 4585 §6.1.
    Feedback {
        /// [`PT_RTPFB`] or [`PT_PSFB`].
        packet_type: u8,
        /// What kind.
        format: u8,
        /// Who asks.
        sender: Ssrc,
        /// Whose media it is about.
        media: Ssrc,
        /// Feedback control information, as `format` defines it.
        fci: &'a [u8],
    },
    /// APP, XR and every unknown type: to be ignored (RFC 3550 §6.1).
    Other {
        /// Its type.
        packet_type: u8,
        /// The five bits after the padding bit.
        count: u8,
        /// Everything after the first word.
        body: &'a [u8],
    },
}

impl Packet<'_> {
    /// The lost packets a generic NACK asks for (RFC 4585 §6.2.1); empty for every other packet.
    pub fn nacked(&self) -> impl Iterator<Item = SeqNo> + '_ {
        let fci = match self {
            Packet::Feedback { packet_type: PT_RTPFB, format: FMT_NACK, fci, .. } => *fci,
            Packet::Report { .. }
            | Packet::Description(_)
            | Packet::Bye { .. }
            | Packet::Feedback { .. }
            | Packet::Other { .. } => &[],
        };
        fci.as_chunks::<4>().0.iter().flat_map(|&[p0, p1, b0, b1]| {
            let (pid, mask) = (u16::from_be_bytes([p0, p1]), u16::from_be_bytes([b0, b1]));
            std::iter::once(SeqNo(pid)).chain(
                (0..16u16).filter(move |bit| mask >> bit & 1 == 1).map(move |bit| SeqNo(pid.wrapping_add(bit + 1))),
            )
        })
    }

    /// True for a picture loss indication, RFC 4585 §6.3.1.
    #[must_use]
    pub fn is_picture_loss(&self) -> bool {
        matches!(self, Packet::Feedback { packet_type: PT_PSFB, format: FMT_PLI, .. })
    }
}

/// Report blocks of an SR or RR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks<'a>(&'a [[u8; BLOCK_BYTES]]);

impl<'a> Blocks<'a> {
    /// Each block.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = ReportBlock> + 'a {
        self.0.iter().map(ReportBlock::read)
    }
}

/// Sources of a BYE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sources<'a>(&'a [[u8; 4]]);

impl<'a> Sources<'a> {
    /// Each source.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Ssrc> + 'a {
        self.0.iter().map(|s| Ssrc(u32::from_be_bytes(*s)))
    }
}

/// One SDES item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    /// Whom it describes.
    pub ssrc: Ssrc,
    /// [`SDES_CNAME`] or another.
    pub kind: u8,
    /// Text, UTF-8 if the peer keeps the rules.
    pub text: &'a [u8],
}

/// Items of an SDES packet; ends early at the first that runs past the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Items<'a> {
    rest: &'a [u8],
    chunks_left: u8,
    /// Who the chunk at hand is about, and how many bytes of it were read.
    chunk: Option<(Ssrc, usize)>,
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        loop {
            let Some((ssrc, read)) = self.chunk else {
                self.chunks_left = self.chunks_left.checked_sub(1)?;
                let (ssrc, rest) = self.rest.split_first_chunk()?;
                self.rest = rest;
                self.chunk = Some((Ssrc(u32::from_be_bytes(*ssrc)), 0));
                continue;
            };
            let (&kind, rest) = self.rest.split_first()?;
            if kind == 0 {
                // RFC 3550 §6.5: one to four zero bytes up to the next word end the chunk.
                self.rest = self.rest.get(4 - read % 4..)?;
                self.chunk = None;
                continue;
            }
            let (&len, rest) = rest.split_first()?;
            let (text, rest) = rest.split_at_checked(len.into())?;
            self.rest = rest;
            self.chunk = Some((ssrc, read + 2 + text.len()));
            return Some(Item { ssrc, kind, text });
        }
    }
}

/// The packets of a compound packet, RFC 3550 §6.1. A reduced-size one (RFC 5506) that begins with something else than
/// a report is read as well. After a fault the iterator ends.
#[must_use]
pub fn packets(compound: &[u8]) -> Packets<'_> {
    Packets { rest: compound }
}

/// Iterator of [`packets`].
#[derive(Debug, Clone)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, RtcpFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let packet = read(&mut self.rest);
        if packet.is_err() {
            self.rest = &[];
        }
        Some(packet)
    }
}

fn read<'a>(rest: &mut &'a [u8]) -> Result<Packet<'a>, RtcpFault> {
    let [b0, packet_type, l0, l1] = *rest.first_chunk().ok_or(RtcpFault::TooShort)?;
    if b0 >> 6 != 2 {
        return Err(RtcpFault::Version);
    }
    let bytes = 4 * usize::from(u16::from_be_bytes([l0, l1]));
    let (mut body, after) = rest.get(4..).and_then(|r| r.split_at_checked(bytes)).ok_or(RtcpFault::TooShort)?;
    *rest = after;
    if b0 & 0x20 != 0 {
        // RFC 3550 §6.4.1: only the last packet is padded, by a multiple of four.
        let padding = usize::from(*body.last().ok_or(RtcpFault::Padding)?);
        if padding == 0 || padding % 4 != 0 || !after.is_empty() {
            return Err(RtcpFault::Padding);
        }
        body = body.len().checked_sub(padding).and_then(|n| body.get(..n)).ok_or(RtcpFault::Padding)?;
    }
    read_body(packet_type, b0 & 0x1f, body)
}

fn read_body(packet_type: u8, count: u8, body: &[u8]) -> Result<Packet<'_>, RtcpFault> {
    match packet_type {
        PT_SR | PT_RR => {
            let (ssrc, mut body) = split_ssrc(body)?;
            let mut sender = None;
            if packet_type == PT_SR {
                let (info, rest) = body.split_first_chunk::<SENDER_INFO_BYTES>().ok_or(RtcpFault::Length)?;
                let [n0, n1, n2, n3, n4, n5, n6, n7, t0, t1, t2, t3, p0, p1, p2, p3, o0, o1, o2, o3] = *info;
                sender = Some(SenderInfo {
                    ntp: u64::from_be_bytes([n0, n1, n2, n3, n4, n5, n6, n7]),
                    time: MediaTime(u32::from_be_bytes([t0, t1, t2, t3])),
                    packets: u32::from_be_bytes([p0, p1, p2, p3]),
                    octets: u32::from_be_bytes([o0, o1, o2, o3]),
                });
                body = rest;
            }
            // What follows the blocks is a profile-specific extension (§6.4.3), ignored.
            let blocks = body.as_chunks().0.get(..count.into()).ok_or(RtcpFault::Length)?;
            Ok(Packet::Report { ssrc, sender, blocks: Blocks(blocks) })
        }
        PT_SDES => Ok(Packet::Description(Items { rest: body, chunks_left: count, chunk: None })),
        PT_BYE => {
            let (sources, text) = body.split_at_checked(4 * usize::from(count)).ok_or(RtcpFault::Length)?;
            let reason = match text.split_first() {
                Some((&len, text)) => Some(text.get(..len.into()).ok_or(RtcpFault::Length)?),
                None => None,
            };
            Ok(Packet::Bye { sources: Sources(sources.as_chunks().0), reason })
        }
        PT_RTPFB | PT_PSFB => {
            let (sender, body) = split_ssrc(body)?;
            let (media, fci) = split_ssrc(body)?;
            Ok(Packet::Feedback { packet_type, format: count, sender, media, fci })
        }
        _ => Ok(Packet::Other { packet_type, count, body }),
    }
}

fn split_ssrc(body: &[u8]) -> Result<(Ssrc, &[u8]), RtcpFault> {
    let (ssrc, rest) = body.split_first_chunk().ok_or(RtcpFault::Length)?;
    Ok((Ssrc(u32::from_be_bytes(*ssrc)), rest))
}

/// Appends an SR (with `sender`) or an RR. Blocks past [`MAX_COUNT`] are left out.
pub fn write_report(ssrc: Ssrc, sender: Option<&SenderInfo>, blocks: &[ReportBlock], out: &mut Vec<u8>) {
    let blocks = blocks.get(..MAX_COUNT).unwrap_or(blocks);
    let packet_type = if sender.is_some() { PT_SR } else { PT_RR };
    framed(packet_type, count(blocks.len()), out, |out| {
        out.extend_from_slice(&ssrc.0.to_be_bytes());
        if let Some(s) = sender {
            out.extend_from_slice(&s.ntp.to_be_bytes());
            for word in [s.time.0, s.packets, s.octets] {
                out.extend_from_slice(&word.to_be_bytes());
            }
        }
        for block in blocks {
            block.write(out);
        }
    });
}

/// Appends an SDES packet with one chunk and one item. Text past 255 bytes is cut.
pub fn write_description(item: &Item<'_>, out: &mut Vec<u8>) {
    framed(PT_SDES, 1, out, |out| {
        out.extend_from_slice(&item.ssrc.0.to_be_bytes());
        let start = out.len();
        out.push(item.kind);
        write_text(item.text, out);
        // At least one zero byte ends the chunk, then zeros up to the word.
        out.resize(start + (out.len() - start) / 4 * 4 + 4, 0);
    });
}

/// Appends a BYE. Sources past [`MAX_COUNT`] and reason bytes past 255 are left out.
pub fn write_bye(sources: &[Ssrc], reason: Option<&str>, out: &mut Vec<u8>) {
    let sources = sources.get(..MAX_COUNT).unwrap_or(sources);
    framed(PT_BYE, count(sources.len()), out, |out| {
        for s in sources {
            out.extend_from_slice(&s.0.to_be_bytes());
        }
        if let Some(reason) = reason {
            write_text(reason.as_bytes(), out);
        }
    });
}

/// Appends a feedback packet, RFC 4585 §6.1; `fci` is filled up with zeros to a multiple of four.
pub fn write_feedback(packet_type: u8, format: u8, sender: Ssrc, media: Ssrc, fci: &[u8], out: &mut Vec<u8>) {
    framed(packet_type, format & 0x1f, out, |out| {
        out.extend_from_slice(&sender.0.to_be_bytes());
        out.extend_from_slice(&media.0.to_be_bytes());
        out.extend_from_slice(fci);
    });
}

fn write_text(text: &[u8], out: &mut Vec<u8>) {
    let text = text.get(..255).unwrap_or(text);
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text);
}

fn count(n: usize) -> u8 {
    u8::try_from(n.min(MAX_COUNT)).unwrap_or(0)
}

/// Appends the first word, the body filled up to a word, and then the length.
fn framed(packet_type: u8, count: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0x80 | count, packet_type, 0, 0]);
    body(out);
    out.resize(start + (out.len() - start).next_multiple_of(4), 0);
    let words = u16::try_from((out.len() - start) / 4 - 1).unwrap_or(u16::MAX);
    if let Some(length) = out.get_mut(start + 2..start + 4) {
        length.copy_from_slice(&words.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn all(p: &[u8]) -> Result<Vec<Packet<'_>>, RtcpFault> {
        packets(p).collect()
    }

    /// Touches everything that a packet gives out.
    fn walk(p: &[u8]) {
        for packet in packets(p).flatten() {
            let _ = (packet.nacked().count(), packet.is_picture_loss());
            match packet {
                Packet::Report { blocks, .. } => assert!(blocks.iter().len() <= MAX_COUNT),
                Packet::Description(items) => assert!(items.count() <= p.len()),
                Packet::Bye { sources, .. } => assert!(sources.iter().len() <= MAX_COUNT),
                Packet::Feedback { .. } | Packet::Other { .. } => {}
            }
        }
    }

    #[test]
    fn no_length_no_first_byte_and_no_type_panics() {
        for len in 0..=200usize {
            for first in 0..=255u8 {
                for (fill, kind) in [(0, 200), (0xff, 202), (1, 203), (4, 205), (0x80, 201)] {
                    let mut p = vec![fill; len];
                    for (to, from) in p.iter_mut().zip([first, kind, 0, u8::try_from(len / 4).unwrap().wrapping_sub(1)])
                    {
                        *to = from;
                    }
                    walk(&p);
                    let mut p = vec![fill; len];
                    if let Some(b) = p.first_mut() {
                        *b = first;
                    }
                    walk(&p);
                }
            }
        }
    }

    #[test]
    fn padding_stands_only_on_the_last_packet_and_in_words() {
        let mut bye = Vec::new();
        write_bye(&[Ssrc(7)], None, &mut bye);
        let mut padded = bye.clone();
        padded[0] |= 0x20;
        padded[3] += 1;
        padded.extend_from_slice(&[0, 0, 0, 4]);
        assert!(matches!(all(&padded).unwrap()[0], Packet::Bye { reason: None, .. }));
        assert_eq!(all(&[&padded[..], &bye].concat()), Err(RtcpFault::Padding));
        *padded.last_mut().unwrap() = 3;
        assert_eq!(all(&padded), Err(RtcpFault::Padding));
        *padded.last_mut().unwrap() = 12;
        assert_eq!(all(&padded), Err(RtcpFault::Padding));
    }

    #[test]
    fn a_report_with_more_blocks_than_bytes_is_refused() {
        let mut p = Vec::new();
        write_report(Ssrc(1), None, &[], &mut p);
        p[0] |= 3;
        assert_eq!(all(&p), Err(RtcpFault::Length));
    }

    #[test]
    fn a_nack_names_each_lost_packet() {
        let mut p = Vec::new();
        write_feedback(PT_RTPFB, FMT_NACK, Ssrc(1), Ssrc(2), &[0xff, 0xff, 0x80, 0x01], &mut p);
        write_feedback(PT_PSFB, FMT_PLI, Ssrc(1), Ssrc(2), &[], &mut p);
        let found = all(&p).unwrap();
        assert_eq!(found[0].nacked().collect::<Vec<_>>(), [SeqNo(0xffff), SeqNo(0), SeqNo(15)]);
        assert!(!found[0].is_picture_loss() && found[1].is_picture_loss());
    }

    #[test]
    fn two_sdes_chunks_are_told_apart() {
        let body = [&[0, 0, 0, 1, 1, 2, b'a', b'b', 0, 0, 0, 0][..], &[0, 0, 0, 2, 1, 1, b'c', 0, 8, 0, 0, 0]].concat();
        let items = Items { rest: &body, chunks_left: 2, chunk: None };
        let found: Vec<_> = items.map(|i| (i.ssrc.0, i.text)).collect();
        assert_eq!(found, [(1, &b"ab"[..]), (2, b"c")]);
    }

    fn block() -> impl Strategy<Value = ReportBlock> {
        (any::<[u32; 5]>(), any::<u8>(), -0x80_0000i32..=0x7f_ffff).prop_map(|(w, fraction_lost, cumulative_lost)| {
            ReportBlock {
                ssrc: Ssrc(w[0]),
                fraction_lost,
                cumulative_lost,
                highest_seq: w[1],
                jitter: w[2],
                last_sr: w[3],
                delay_since_last_sr: w[4],
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            ssrc: u32, ntp: u64, words: [u32; 3], is_sr: bool,
            blocks in prop::collection::vec(block(), 0..=31),
            cname in "[a-z0-9@.]{0,40}",
            leaving in prop::collection::vec(any::<u32>(), 0..=31),
            reason in prop::option::of("[a-z ]{0,40}"),
            fci in prop::collection::vec(any::<[u8; 4]>(), 0..6), format in 0u8..32,
        ) {
            let info = SenderInfo { ntp, time: MediaTime(words[0]), packets: words[1], octets: words[2] };
            let sender = is_sr.then_some(info);
            let leaving: Vec<_> = leaving.into_iter().map(Ssrc).collect();
            let item = Item { ssrc: Ssrc(ssrc), kind: SDES_CNAME, text: cname.as_bytes() };
            let mut p = Vec::new();
            write_report(Ssrc(ssrc), sender.as_ref(), &blocks, &mut p);
            write_description(&item, &mut p);
            write_bye(&leaving, reason.as_deref(), &mut p);
            write_feedback(PT_RTPFB, format, Ssrc(1), Ssrc(2), fci.as_flattened(), &mut p);
            prop_assert_eq!(p.len() % 4, 0);
            let found = all(&p).unwrap();
            let Packet::Report { ssrc: s, sender: got, blocks: b } = found[0] else { panic!("no report") };
            prop_assert_eq!((s, got, b.iter().collect::<Vec<_>>()), (Ssrc(ssrc), sender, blocks));
            let Packet::Description(items) = found[1] else { panic!("no SDES") };
            prop_assert_eq!(items.collect::<Vec<_>>(), [item]);
            let Packet::Bye { sources, reason: r } = found[2] else { panic!("no BYE") };
            prop_assert_eq!(sources.iter().collect::<Vec<_>>(), leaving);
            prop_assert_eq!(r, reason.as_ref().map(String::as_bytes));
            let feedback = Packet::Feedback {
                packet_type: PT_RTPFB, format, sender: Ssrc(1), media: Ssrc(2), fci: fci.as_flattened(),
            };
            prop_assert_eq!(found[3], feedback);
        }

        #[test]
        fn random_bytes_never_panic(p in prop::collection::vec(any::<u8>(), 0..200)) {
            walk(&p);
        }

        #[test]
        fn a_mutated_compound_never_panics(at in 0usize..100, to: u8, cut in 0usize..100) {
            let mut p = Vec::new();
            write_report(Ssrc(1), None, &[], &mut p);
            write_description(&Item { ssrc: Ssrc(1), kind: SDES_CNAME, text: b"someone" }, &mut p);
            write_bye(&[Ssrc(1)], Some("tired"), &mut p);
            write_feedback(PT_RTPFB, FMT_NACK, Ssrc(1), Ssrc(2), &[0, 1, 0, 3], &mut p);
            if let Some(b) = p.get_mut(at) {
                *b = to;
            }
            walk(p.get(..p.len().saturating_sub(cut)).unwrap());
        }
    }
}
