//! `strftime_now`: the request's own time of creation, in UTC, so that a replay renders the same prompt.

/// Formats `unix_s` by a `strftime` pattern; `None` when the pattern has a directive not in the list
/// `%Y %y %m %d %e %H %I %M %S %p %j %a %A %b %B %%`, each also with `-` for no padding.
pub(super) fn format(pattern: &str, unix_s: u64) -> Option<String> {
    let time = Civil::from_unix(unix_s);
    let mut out = String::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        match characters.next()? {
            '-' => out.push_str(unpadded(&time.directive(characters.next()?)?)),
            directive => out.push_str(&time.directive(directive)?),
        }
    }
    Some(out)
}

/// Without leading zeros and spaces, of which a lone zero keeps one.
fn unpadded(number: &str) -> &str {
    match number.trim_start_matches(['0', ' ']) {
        "" => "0",
        digits => digits,
    }
}

struct Civil {
    year: u64,
    month: u64,
    day: u64,
    day_of_year: u64,
    weekday: u64,
    second_of_day: u64,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Civil {
    /// The proleptic Gregorian date (Hinnant, "chrono-compatible low-level date algorithms").
    fn from_unix(unix_s: u64) -> Self {
        let days = unix_s / 86_400;
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * from_march + 2) / 153;
        let day = from_march - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let before_march = 59 + u64::from(leap);
        let day_of_year =
            if month > 2 { from_march + before_march + 1 } else { from_march - 306 + 1 };
        Self {
            year,
            month,
            day,
            day_of_year,
            weekday: (days + 4) % 7,
            second_of_day: unix_s % 86_400,
        }
    }

    fn directive(&self, directive: char) -> Option<String> {
        let (hour, minute) = (self.second_of_day / 3_600, self.second_of_day / 60 % 60);
        let month = MONTHS[self.month as usize - 1];
        let weekday = WEEKDAYS[self.weekday as usize];
        Some(match directive {
            'Y' => self.year.to_string(),
            'y' => format!("{:02}", self.year % 100),
            'm' => format!("{:02}", self.month),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'H' => format!("{hour:02}"),
            'I' => format!("{:02}", (hour + 11) % 12 + 1),
            'M' => format!("{minute:02}"),
            'S' => format!("{:02}", self.second_of_day % 60),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            'j' => format!("{:03}", self.day_of_year),
            'a' => weekday[..3].to_owned(),
            'A' => weekday.to_owned(),
            'b' => month[..3].to_owned(),
            'B' => month.to_owned(),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_the_calendar() {
        let full = "%Y-%m-%d %H:%M:%S %A %B %j";
        for (unix_s, want) in [
            (0, "1970-01-01 00:00:00 Thursday January 001"),
            (951_782_399, "2000-02-28 23:59:59 Monday February 059"),
            (951_868_799, "2000-02-29 23:59:59 Tuesday February 060"),
            (1_735_603_200, "2024-12-31 00:00:00 Tuesday December 366"),
            (4_107_542_400, "2100-03-01 00:00:00 Monday March 060"),
        ] {
            assert_eq!(format(full, unix_s).as_deref(), Some(want));
        }
    }

    #[test]
    fn directives_of_the_field() {
        assert_eq!(format("%d %b %Y", 1_722_038_400).as_deref(), Some("27 Jul 2024"));
        assert_eq!(
            format("%-d.%-m. %-H %I %p %%", 1_722_038_400).as_deref(),
            Some("27.7. 0 12 AM %")
        );
        assert_eq!(format("%Q", 0), None);
    }
}
