//! Points in time as the keys file has them: seconds, in UTC, pure.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};
use time::{Month, OffsetDateTime};
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
        let month = Month::try_from(date.month).ok()?;
        let day = time::Date::from_calendar_date(date.year.into(), month, date.day).ok()?;
        let midnight = day.midnight().assume_utc().unix_timestamp();
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
        let unix = midnight + seconds - offset_minutes * 60;
        u64::try_from(unix).ok().map(Self)
    }

    /// As TOML writes it.
    pub(super) fn datetime(self) -> Datetime {
        let last = time::PrimitiveDateTime::MAX.assume_utc();
        let unix = i64::try_from(self.0).ok();
        let at = unix.and_then(|unix| OffsetDateTime::from_unix_timestamp(unix).ok());
        let at = at.unwrap_or(last);
        Datetime {
            date: Some(Date {
                year: at.year().try_into().unwrap_or_default(),
                month: at.month().into(),
                day: at.day(),
            }),
            time: Some(Time {
                hour: at.hour(),
                minute: at.minute(),
                second: Some(at.second()),
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
