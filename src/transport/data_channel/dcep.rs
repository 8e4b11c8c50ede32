//! DCEP: how a data channel is opened on its stream. Read RFC 8832 §5 and §6, RFC 8831 §6.4 before touching this file.

use compact_str::CompactString;

const ACK: u8 = 0x02;
const OPEN: u8 = 0x03;
/// Ordered and reliable: the only kind that carries a file (J343-03).
const RELIABLE: u8 = 0x00;
/// "Normal" of RFC 8831 §6.4.
const PRIORITY: u16 = 256;
/// The acknowledgement is this one byte.
pub(crate) const ACK_MESSAGE: [u8; 1] = [ACK];

/// A DCEP message, as far as it concerns us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dcep {
    /// The peer opens the channel of the stream that it came on.
    Open { reliable: bool, label: CompactString },
    /// The peer has our DATA_CHANNEL_OPEN.
    Ack,
}

impl Dcep {
    /// `None`: not DCEP, or a label that is not UTF-8 or longer than `most` bytes.
    pub(crate) fn read(message: &[u8], most: usize) -> Option<Self> {
        match message {
            [ACK, ..] => Some(Self::Ack),
            [OPEN, kind, _p0, _p1, _r0, _r1, _r2, _r3, l0, l1, q0, q1, names @ ..] => {
                let label = names.get(..usize::from(u16::from_be_bytes([*l0, *l1])))?;
                // The protocol name follows and means nothing to us, but has to be there.
                names.get(label.len()..label.len() + usize::from(u16::from_be_bytes([*q0, *q1])))?;
                let label = Some(label).filter(|l| l.len() <= most).map(std::str::from_utf8)?.ok()?;
                Some(Self::Open { reliable: *kind == RELIABLE, label: label.into() })
            }
            _ => None,
        }
    }
}

/// DATA_CHANNEL_OPEN, RFC 8832 §5.1. `None`: the label is longer than its length field can say.
pub(crate) fn open_message(label: &str) -> Option<Vec<u8>> {
    let length = u16::try_from(label.len()).ok()?;
    let mut out = Vec::with_capacity(12 + label.len());
    out.extend_from_slice(&[OPEN, RELIABLE]);
    out.extend_from_slice(&PRIORITY.to_be_bytes());
    // No reliability parameter, then the lengths of label and protocol.
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(label.as_bytes());
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_open_message_has_the_bytes_of_the_rfc() {
        let open = open_message("file").unwrap();
        assert_eq!(open, [3, 0, 1, 0, 0, 0, 0, 0, 0, 4, 0, 0, b'f', b'i', b'l', b'e']);
        assert_eq!(Dcep::read(&[2], 10), Some(Dcep::Ack));
        assert_eq!(open_message(&"x".repeat(65_536)), None);
    }

    #[test]
    fn an_open_message_that_lies_about_its_lengths_is_refused() {
        let open = open_message("file").unwrap();
        for (at, value) in [(9, 5), (11, 1), (8, 1), (0, 4)] {
            let mut lie = open.clone();
            lie[at] = value;
            assert_eq!(Dcep::read(&lie, 100), None, "{at}");
        }
        assert_eq!(Dcep::read(&open[..15], 100), None);
        assert_eq!(Dcep::read(&open, 3), None, "a label too long for us");
        let mut latin = open.clone();
        latin[12] = 0xe9;
        assert_eq!(Dcep::read(&latin, 100), None, "not UTF-8");
        let mut unordered = open;
        unordered[1] = 0x80;
        assert_eq!(Dcep::read(&unordered, 100), Some(Dcep::Open { reliable: false, label: "file".into() }));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(label in "\\PC{0,40}") {
            let open = open_message(&label).unwrap();
            prop_assert_eq!(Dcep::read(&open, 1000), Some(Dcep::Open { reliable: true, label: label.into() }));
        }

        #[test]
        fn any_bytes_are_safe(junk in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Dcep::read(&junk, 16);
        }
    }
}
