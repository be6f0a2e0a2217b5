//! Points in time as the keys file has them: seconds, in UTC, pure.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};
use toml_edit::{Date, Datetime, Offset, Time};

const DAY_S: u64 = 86_400;
const HOUR_S: u64 = 3_600;

/// Unix seconds. Shown as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    /// This second.
    pub fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    /// `seconds` after 1970.
    pub const fn from_unix(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Seconds after 1970.
    pub const fn unix(self) -> u64 {
        self.0
    }

    /// When a key expires, as a person says it: `90d` or `12h` from `now`, a date (its first second in
    /// UTC), or a date and time with an offset.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn parse_expiry(text: &str, now: Self) -> Result<Self, String> {
        let span = |unit: char, seconds: u64| {
            let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
            // A date beyond the year 9999 cannot be written.
            let at = number.checked_mul(seconds)?.checked_add(now.0)?;
            (number > 0 && at < 253_402_300_800).then_some(Self(at))
        };
        let date = || Self::of(&text.parse().ok()?);
        let at = span('d', DAY_S).or_else(|| span('h', HOUR_S)).or_else(date);
        at.ok_or_else(|| {
            format!("`{text}` is not like 90d, 12h, 2027-01-31 or 2027-01-31T18:00:00Z")
        })
    }

    /// The time that a date of TOML means. None: a time without a date or without an offset, or one
    /// before 1970.
    pub(super) fn of(datetime: &Datetime) -> Option<Self> {
        let date = datetime.date?;
        let days = days_from_civil(date.year.into(), date.month.into(), date.day.into());
        let (seconds, offset_minutes) = match (datetime.time, datetime.offset) {
            (None, None) => (0, 0),
            (Some(time), Some(offset)) => {
                let seconds = i64::from(time.hour) * 3_600
                    + i64::from(time.minute) * 60
                    + i64::from(time.second.unwrap_or(0));
                let minutes = match offset {
                    Offset::Z => 0,
                    Offset::Custom { minutes } => minutes.into(),
                };
                (seconds, minutes)
            }
            _ => return None,
        };
        let unix = days * 86_400 + seconds - offset_minutes * 60;
        u64::try_from(unix).ok().map(Self)
    }

    /// As TOML writes it.
    pub(super) fn datetime(self) -> Datetime {
        let (year, month, day) = civil_from_days(self.0 / DAY_S);
        let second = self.0 % DAY_S;
        let part = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
        Datetime {
            date: Some(Date {
                year: u16::try_from(year).unwrap_or(9_999),
                month: part(month),
                day: part(day),
            }),
            time: Some(Time {
                hour: part(second / HOUR_S),
                minute: part(second / 60 % 60),
                second: Some(part(second % 60)),
                nanosecond: None,
            }),
            offset: Some(Offset::Z),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.datetime().fmt(f)
    }
}

/// Days since 1970-01-01 of a date in the Gregorian calendar; Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms".
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The date that is `days` after 1970-01-01: year, month, day. From the same paper.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn expiries_are_spans_or_dates() {
        let now = Timestamp(1_000_000);
        for (text, unix) in [
            ("1d", 1_086_400),
            ("2h", 1_007_200),
            ("2027-01-31", 1_801_353_600),
            ("2027-01-31T01:00:00+01:00", 1_801_353_600),
            ("2024-02-29T23:59:59Z", 1_709_251_199),
        ] {
            assert_eq!(Timestamp::parse_expiry(text, now), Ok(Timestamp(unix)), "{text}");
        }
        for text in [
            "",
            "d",
            "0d",
            "-1d",
            "5w",
            "2027-02-30",
            "2027-01-31T01:00:00",
            "01:00:00",
            "1969-12-31",
            "99999999999999999999d",
            "4000000d",
            "2027-01-31\n",
        ] {
            assert!(Timestamp::parse_expiry(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_shown_in_utc() {
        assert_eq!(Timestamp(1_709_251_199).to_string(), "2024-02-29T23:59:59Z");
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00Z");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(unix in 0u64..253_402_300_800) {
            let read = Timestamp(unix).to_string().parse::<Datetime>().expect("a date");
            prop_assert_eq!(Timestamp::of(&read), Some(Timestamp(unix)));
        }
    }
}
