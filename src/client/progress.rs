//! How fast a file goes, and how long it still takes.

use std::time::Duration;

/// What happened so long ago counts 1/e of what happens now.
const MEMORY: Duration = Duration::from_secs(3);

/// Bytes a second, smoothed over the last seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rate {
    last: Option<(Duration, u64)>,
    bytes_per_s: Option<f64>,
}

impl Rate {
    /// `bytes` were through at the time `at`, counted from anything; gives bytes a second. What was there at the first
    /// measurement is not counted: a resumed file has not been that fast.
    pub fn measure(&mut self, at: Duration, bytes: u64) -> f64 {
        if let Some((then, before)) = self.last {
            let passed = at.saturating_sub(then).as_secs_f64();
            if passed <= 0.0 {
                return self.bytes_per_s();
            }
            let now = bytes.saturating_sub(before) as f64 / passed;
            let weight = 1.0 - (-passed / MEMORY.as_secs_f64()).exp();
            self.bytes_per_s = Some(self.bytes_per_s.map_or(now, |rate| rate + weight * (now - rate)));
        }
        self.last = Some((at, bytes));
        self.bytes_per_s()
    }

    /// As measured last; 0 before two measurements.
    #[must_use]
    pub fn bytes_per_s(&self) -> f64 {
        self.bytes_per_s.unwrap_or(0.0)
    }
}

/// How long the rest takes at this rate; `None` where nobody can say.
#[must_use]
pub fn time_left(bytes: u64, total: Option<u64>, bytes_per_s: f64) -> Option<Duration> {
    let left = total?.saturating_sub(bytes) as f64;
    // Longer than 1000 hours is no estimate.
    let seconds = left / bytes_per_s;
    (bytes_per_s >= 1.0 && seconds < 3_600_000.0).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_what_happens_and_forgets_what_was() {
        let mut rate = Rate::default();
        let mut bytes = 5_000_000;
        assert!(rate.measure(Duration::ZERO, bytes) < 1.0, "what a resumed file has was not sent now");
        let mut at = Duration::ZERO;
        for _ in 0..40 {
            at += Duration::from_millis(250);
            bytes += 250_000;
            rate.measure(at, bytes);
        }
        assert!((rate.bytes_per_s() - 1_000_000.0).abs() < 1.0);
        for _ in 0..60 {
            at += Duration::from_millis(250);
            rate.measure(at, bytes);
        }
        assert!(rate.bytes_per_s() < 10_000.0, "{}", rate.bytes_per_s());
        // The same moment again changes nothing.
        let before = rate.bytes_per_s();
        assert!((rate.measure(at, bytes + 9_000_000) - before).abs() < f64::EPSILON);
    }

    #[test]
    fn time_left_is_told_only_where_it_means_something() {
        assert_eq!(time_left(0, Some(10_000), 1_000.0), Some(Duration::from_secs(10)));
        assert_eq!(time_left(20_000, Some(10_000), 1_000.0), Some(Duration::ZERO));
        assert_eq!(time_left(0, None, 1_000.0), None);
        assert_eq!(time_left(0, Some(10_000), 0.0), None);
        assert_eq!(time_left(0, Some(u64::MAX), 2.0), None);
    }
}
