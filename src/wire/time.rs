//! Date and time on the wire: stamps (XEP-0082 1.1.1) and delays (XEP-0203 2.0). Read XEP-0082 §3.2 before touching this
//! file.

use super::jid::Jid;
use super::ns;
use super::xml::{Reader, Writer, jid};
use std::time::{Duration, SystemTime};

/// A moment: milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    /// May be negative.
    pub unix_ms: i64,
}

/// XEP-0203.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delay {
    /// When it was sent.
    pub stamp: Stamp,
    /// Who delayed it.
    pub from: Option<Jid>,
}

const DAY_MS: i64 = 86_400_000;
/// 0000-01-01 and 9999-12-31: the years that four digits can name.
const FIRST_DAY: i64 = -719_528;
const LAST_DAY: i64 = 2_932_896;

impl Stamp {
    /// The moment as wall time; `None` where that cannot hold it.
    #[must_use]
    pub fn to_system_time(self) -> Option<SystemTime> {
        let distance = Duration::from_millis(self.unix_ms.unsigned_abs());
        if self.unix_ms < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(distance)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(distance)
        }
    }

    /// Reads `CCYY-MM-DDThh:mm:ss[.sss]TZD`, where TZD is `Z` or `±hh:mm`. Digits past milliseconds are dropped; a
    /// leap second counts as the second after it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (date, time) = text.split_once(['T', 't'])?;
        let mut parts = date.split('-');
        let (year, month, day) = (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
        if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=month_days(year, month)).contains(&day) {
            return None;
        }
        let zone = time.find(['Z', 'z', '+', '-'])?;
        let (clock, zone) = time.split_at_checked(zone)?;
        let offset_min = match zone {
            "Z" | "z" => 0,
            _ => {
                let sign = if zone.starts_with('-') { -1 } else { 1 };
                let (hours, minutes) = zone.get(1..)?.split_once(':')?;
                sign * (up_to(hours, 23)? * 60 + up_to(minutes, 59)?)
            }
        };
        let (clock, fraction) = clock.split_once('.').map_or((clock, None), |(c, f)| (c, Some(f)));
        let mut parts = clock.split(':');
        let (hour, minute, second) = (up_to(parts.next()?, 23)?, up_to(parts.next()?, 59)?, up_to(parts.next()?, 60)?);
        if parts.next().is_some() {
            return None;
        }
        let ms = match fraction {
            None => 0,
            Some(f) if !f.is_empty() && f.bytes().all(|b| b.is_ascii_digit()) => {
                f.bytes().chain(*b"000").take(3).fold(0, |ms, b| ms * 10 + i64::from(b - b'0'))
            }
            Some(_) => return None,
        };
        let seconds = (hour * 60 + minute - offset_min) * 60 + second;
        Some(Self { unix_ms: days(year, month, day) * DAY_MS + seconds * 1000 + ms })
    }
}

impl std::fmt::Display for Stamp {
    /// UTC; years outside 0 to 9999 are cut to those.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = self.unix_ms.clamp(FIRST_DAY * DAY_MS, LAST_DAY * DAY_MS + DAY_MS - 1);
        let (year, month, day) = date(ms.div_euclid(DAY_MS));
        let ms = ms.rem_euclid(DAY_MS);
        let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        match ms % 1000 {
            0 => f.write_str("Z"),
            ms => write!(f, ".{ms:03}Z"),
        }
    }
}

impl Delay {
    /// Reads the `<delay/>` that `r` has just entered; `None` if its stamp cannot be read.
    #[must_use]
    pub fn read(r: &Reader<'_>) -> Option<Self> {
        let stamp = r.attr("stamp").and_then(Stamp::parse)?;
        Some(Self { stamp, from: jid(r, "delay", "from").ok().flatten() })
    }

    /// Writes the `<delay/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("delay", ns::DELAY).attr_opt("from", self.from.as_ref().map(Jid::as_str));
        w.attr_number("stamp", self.stamp).end("delay");
    }
}

fn digits(text: &str, len: usize) -> Option<i64> {
    if text.len() == len && text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn up_to(text: &str, most: i64) -> Option<i64> {
    digits(text, 2).filter(|n| *n <= most)
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar. Years begin in March, so that the leap day is
/// the last one; an era is 400 years.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The inverse of [`days`].
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_xep_0082_are_one_moment() {
        for text in ["1969-07-21T02:56:15Z", "1969-07-20T21:56:15-05:00"] {
            assert_eq!(Stamp::parse(text).unwrap().unix_ms, -14_159_025_000, "{text}");
        }
    }

    #[test]
    fn known_moments_are_right() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00.5Z", 951_825_600_500),
            ("2026-11-21T15:14:18.123456Z", 1_795_274_058_123),
            ("0000-01-01T00:00:00Z", FIRST_DAY * DAY_MS),
            ("9999-12-31T00:00:00Z", LAST_DAY * DAY_MS),
        ] {
            assert_eq!(Stamp::parse(text).unwrap().unix_ms, ms, "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "T",
            "2026-11-21",
            "2026-11-21T15:14:18",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T15:14:18.Z",
            "2026-11-21T15:14:18+1:00",
            "26-11-21T15:14:18Z",
            "2026-11-21T15:14:18Zé",
            "２026-11-21T15:14:18Z",
        ] {
            assert_eq!(Stamp::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(unix_ms in FIRST_DAY * DAY_MS..LAST_DAY * DAY_MS) {
            prop_assert_eq!(Stamp::parse(&Stamp { unix_ms }.to_string()), Some(Stamp { unix_ms }));
        }

        #[test]
        fn no_number_and_no_text_panics(unix_ms: i64, text in "[0-9TZ:+.-]{0,32}|\\PC{0,32}") {
            let _ = Stamp { unix_ms }.to_string();
            let _ = Stamp { unix_ms }.to_system_time();
            let _ = Stamp::parse(&text);
        }
    }
}
