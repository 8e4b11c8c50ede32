//! How a call sounds, estimated: the E-model. Read ITU-T G.107 (06/2015) §7 and G.113 appendix I before touching this file.

use std::time::Duration;

use super::codec::CodecName;

/// What the estimate is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QualityInput {
    /// What is heard.
    pub codec: CodecName,
    /// Part of the packets that was neither received in time nor recovered by FEC, 0 to 1.
    pub loss: f64,
    /// Burstiness `BurstR`: 1 is random loss, more is bursts.
    pub burst_ratio: f64,
    /// Delay of the jitter buffer.
    pub buffer: Duration,
    /// Round trip of the network, as RTCP measures it.
    pub rtt: Duration,
}

/// An estimate of how a call sounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Mean opinion score, 1 (bad) to 4.5 (best for telephony).
    pub mos: f64,
    /// Rating factor, 0 to 93.2.
    pub r: f64,
    /// Part of it lost to delay.
    pub delay_impairment: f64,
    /// Part of it lost to codec and loss.
    pub equipment_impairment: f64,
    /// One-way delay from mouth to ear that was assumed, in milliseconds.
    pub one_way_ms: f64,
}

/// R with every parameter of G.107 table 3 at its default.
pub const R_DEFAULT: f64 = 93.2;

/// The estimate for one direction.
#[must_use]
pub fn quality(input: QualityInput) -> Quality {
    let codec = impairment(input.codec);
    let one_way_ms =
        input.rtt.as_secs_f64() * 500.0 + input.buffer.as_secs_f64() * 1_000.0 + codec.algorithmic_delay_ms;
    let delay_impairment = delay_impairment(one_way_ms);
    let loss_percent = if input.loss.is_finite() { input.loss.clamp(0.0, 1.0) * 100.0 } else { 0.0 };
    let burst_ratio = if input.burst_ratio.is_finite() { input.burst_ratio.max(1.0) } else { 1.0 };
    // G.107 (7-29): Ie-eff = Ie + (95 − Ie) · Ppl / (Ppl / BurstR + Bpl).
    let equipment_impairment = codec.ie + (95.0 - codec.ie) * loss_percent / (loss_percent / burst_ratio + codec.bpl);
    let r = R_DEFAULT - delay_impairment - equipment_impairment;
    Quality { mos: mos(r), r: r.max(0.0), delay_impairment, equipment_impairment, one_way_ms }
}

/// G.107 annex B: mean opinion score of a rating factor.
#[must_use]
pub fn mos(r: f64) -> f64 {
    if r <= 0.0 {
        return 1.0;
    }
    if r >= 100.0 {
        return 4.5;
    }
    // The cubic dips below 1 for R under 6.5.
    (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0)
}

/// G.107 (7-27): Idd, what delay alone costs. Echo is taken as cancelled.
fn delay_impairment(one_way_ms: f64) -> f64 {
    if !one_way_ms.is_finite() || one_way_ms <= 100.0 {
        return 0.0;
    }
    let x = (one_way_ms / 100.0).log2();
    25.0 * ((1.0 + x.powi(6)).powf(1.0 / 6.0) - 3.0 * (1.0 + (x / 3.0).powi(6)).powf(1.0 / 6.0) + 2.0)
}

struct Impairment {
    ie: f64,
    bpl: f64,
    algorithmic_delay_ms: f64,
}

/// Ie and Bpl on the narrow-band scale.
const fn impairment(codec: CodecName) -> Impairment {
    match codec {
        // G.113 table I.4: G.711 with packet loss concealment, random loss; one 20 ms packet.
        CodecName::Pcmu | CodecName::Pcma => Impairment { ie: 0.0, bpl: 25.1, algorithmic_delay_ms: 20.0 },
        // Wide band is never worse than G.711 on this scale; its concealment here is the same.
        CodecName::G722 => Impairment { ie: 0.0, bpl: 25.1, algorithmic_delay_ms: 21.6 },
        // G.113 has no row for Opus. An estimate, not a measurement: no coding impairment on this narrow-band scale, and
        // concealment a little better than G.711's, as in-band FEC brings back single losses.
        CodecName::Opus => Impairment { ie: 0.0, bpl: 28.0, algorithmic_delay_ms: 26.5 },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn input(codec: CodecName, loss: f64, one_way_ms: u64) -> QualityInput {
        QualityInput {
            codec,
            loss,
            burst_ratio: 1.0,
            buffer: Duration::ZERO,
            rtt: Duration::from_millis(2 * one_way_ms),
        }
    }

    #[test]
    fn the_reference_points_of_the_recommendation_come_out() {
        let best = quality(input(CodecName::Pcmu, 0.0, 0));
        assert!((best.r - 93.2).abs() < 1e-9);
        assert!((best.mos - 4.41).abs() < 0.005, "{}", best.mos);
        // G.107 annex B, table B.1: R = 90, 80, 70, 60, 50.
        for (r, score) in [(90.0, 4.34), (80.0, 4.03), (70.0, 3.60), (60.0, 3.10), (50.0, 2.58)] {
            assert!((mos(r) - score).abs() < 0.01, "{r} {}", mos(r));
        }
        assert_eq!((mos(-5.0), mos(200.0)), (1.0, 4.5));
    }

    #[test]
    fn delay_past_100_ms_and_loss_cost_what_the_formulas_say() {
        // G.107 (7-27) by hand: Ta = 200 ms has X = 1, Idd = 25 · (2^(1/6) − 3 · (1 + 3^-6)^(1/6) + 2) = 3.04.
        assert!((delay_impairment(200.0) - 3.04).abs() < 0.02, "{}", delay_impairment(200.0));
        assert_eq!(delay_impairment(100.0), 0.0);
        assert!(delay_impairment(400.0) > 20.0);
        // G.711 with PLC, 5 %: 95 · 5 / 30.1 = 15.8.
        let lossy = quality(input(CodecName::Pcma, 0.05, 10));
        assert!((lossy.equipment_impairment - 15.78).abs() < 0.01);
        assert!(quality(input(CodecName::Opus, 0.01, 30)).mos >= 4.1);
        assert!(quality(input(CodecName::Opus, 0.05, 30)).mos >= 3.8);
    }

    #[test]
    fn nonsense_in_gives_a_score_in_range() {
        for loss in [f64::NAN, -1.0, 7.0, f64::INFINITY] {
            for burst_ratio in [f64::NAN, 0.0, -3.0, f64::INFINITY] {
                let result = quality(QualityInput {
                    codec: CodecName::Opus,
                    loss,
                    burst_ratio,
                    buffer: Duration::MAX,
                    rtt: Duration::from_secs(9),
                });
                assert!((1.0..=4.5).contains(&result.mos), "{loss} {burst_ratio} {result:?}");
            }
        }
    }
}
