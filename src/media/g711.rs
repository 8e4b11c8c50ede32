//! µ-law and A-law, ITU-T G.711. Read G.711 tables 1a to 2b before touching this file.

/// µ-law byte to linear sample.
pub const ULAW_TO_LINEAR: [i16; 256] = table_ulaw();
/// A-law byte to linear sample.
pub const ALAW_TO_LINEAR: [i16; 256] = table_alaw();

/// Linear sample to µ-law byte: sign, 3 bits of segment, 4 bits of step, all inverted.
#[must_use]
pub const fn linear_to_ulaw(sample: i16) -> u8 {
    // The bias of 33 and the top of 8 191 of the 14-bit law, on 16-bit samples. One's complement for negative values is
    // what G.191's reference does: the decision values are those of the positive half, mirrored.
    const BIAS: i32 = 33 << 2;
    const TOP: i32 = 0x7FFF;
    let sign: u8 = if sample < 0 { 0x80 } else { 0 };
    let mut magnitude = (if sample < 0 { !(sample as i32) } else { sample as i32 }) + BIAS;
    if magnitude > TOP {
        magnitude = TOP;
    }
    // The highest set bit is between 7 and 14: it names the segment.
    let segment = 31 - (magnitude as u32).leading_zeros() - 7;
    let step = (magnitude >> (segment + 3)) & 0x0F;
    !(sign | ((segment as u8) << 4) | step as u8)
}

/// Linear sample to A-law byte: as µ-law but without bias, with a linear first segment, even bits inverted.
#[must_use]
pub const fn linear_to_alaw(sample: i16) -> u8 {
    // One's complement for negative values keeps the law symmetric around the decision value between −1 and 0.
    let (sign, magnitude) = if sample < 0 { (0u8, !(sample as i32)) } else { (0x80u8, sample as i32) };
    let code = if magnitude < 256 {
        (magnitude >> 4) as u8
    } else {
        let segment = 31 - (magnitude as u32).leading_zeros() - 7;
        ((segment as u8) << 4) | ((magnitude >> (segment + 3)) & 0x0F) as u8
    };
    (sign | code) ^ 0x55
}

const fn ulaw_to_linear(byte: u8) -> i16 {
    let byte = !byte;
    let segment = ((byte >> 4) & 7) as i32;
    let step = (byte & 0x0F) as i32;
    let magnitude = (((step << 3) + 0x84) << segment) - 0x84;
    (if byte & 0x80 != 0 { -magnitude } else { magnitude }) as i16
}

const fn alaw_to_linear(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let segment = ((byte >> 4) & 7) as i32;
    let step = (byte & 0x0F) as i32;
    let magnitude = if segment == 0 { (step << 4) + 8 } else { ((step << 4) + 0x108) << (segment - 1) };
    (if byte & 0x80 != 0 { magnitude } else { -magnitude }) as i16
}

const fn table_ulaw() -> [i16; 256] {
    let mut out = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        out[byte] = ulaw_to_linear(byte as u8);
        byte += 1;
    }
    out
}

const fn table_alaw() -> [i16; 256] {
    let mut out = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        out[byte] = alaw_to_linear(byte as u8);
        byte += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    // The reference: the loops of ITU-T G.191's g711.c, transcribed.
    fn reference_ulaw(sample: i16) -> u8 {
        let wide = i32::from(sample);
        let absolute = ((if wide < 0 { !wide >> 2 } else { wide >> 2 }) + 33).min(0x1FFF);
        let mut i = absolute >> 6;
        let mut segment = 1;
        while i != 0 {
            segment += 1;
            i >>= 1;
        }
        let high = 8 - segment;
        let low = 0xF - ((absolute >> segment) & 0xF);
        ((high << 4) | low) as u8 | if wide >= 0 { 0x80 } else { 0 }
    }

    fn reference_alaw(sample: i16) -> u8 {
        let wide = i32::from(sample);
        let mut i = if wide < 0 { !wide >> 4 } else { wide >> 4 };
        if i > 15 {
            let mut exponent = 1;
            while i > 16 + 15 {
                i >>= 1;
                exponent += 1;
            }
            i = i - 16 + (exponent << 4);
        }
        (i as u8 | if wide >= 0 { 0x80 } else { 0 }) ^ 0x55
    }

    #[test]
    fn every_sample_is_coded_as_the_reference_of_g191_does() {
        for sample in i16::MIN..=i16::MAX {
            assert_eq!(linear_to_ulaw(sample), reference_ulaw(sample), "{sample}");
            assert_eq!(linear_to_alaw(sample), reference_alaw(sample), "{sample}");
        }
    }

    #[test]
    fn the_tables_hold_the_values_of_the_recommendation() {
        // G.711 table 2a/2b: ±8031 of 14 bits is ±32124 of 16; table 1a/1b: ±4032 of 13 bits is ±32256.
        assert_eq!(ULAW_TO_LINEAR[0x00], -32_124);
        assert_eq!(ULAW_TO_LINEAR[0x80], 32_124);
        assert_eq!(ULAW_TO_LINEAR[0xFF], 0);
        assert_eq!(ULAW_TO_LINEAR[0x7F], 0);
        assert_eq!(ULAW_TO_LINEAR[0xFE], 8);
        assert_eq!(ALAW_TO_LINEAR[0xD5], 8);
        assert_eq!(ALAW_TO_LINEAR[0x55], -8);
        assert_eq!(ALAW_TO_LINEAR[0xAA], 32_256);
        assert_eq!(ALAW_TO_LINEAR[0x2A], -32_256);
        for byte in 0..=255u8 {
            // µ-law has two zeros; every other byte survives decode and encode.
            let ulaw = linear_to_ulaw(ULAW_TO_LINEAR[usize::from(byte)]);
            assert!(ulaw == byte || byte == 0x7F && ulaw == 0xFF, "{byte:#x} {ulaw:#x}");
            assert_eq!(linear_to_alaw(ALAW_TO_LINEAR[usize::from(byte)]), byte);
        }
    }

    #[test]
    fn both_laws_are_symmetric_and_monotone() {
        let mut last = (i16::MIN, i16::MIN);
        for sample in i16::MIN..=i16::MAX {
            let now = (
                ULAW_TO_LINEAR[usize::from(linear_to_ulaw(sample))],
                ALAW_TO_LINEAR[usize::from(linear_to_alaw(sample))],
            );
            assert!(now.0 >= last.0 && now.1 >= last.1);
            last = now;
        }
    }
}
