//! `strftime_now`: the request's own time of creation, in UTC, so that a replay renders the same prompt.

use time::OffsetDateTime;

/// Formats `unix_s` by a `strftime` pattern; `None` after the year 9999, or when the pattern has a directive
/// not in the list `%Y %y %m %d %e %H %I %M %S %p %j %a %A %b %B %%`, each also with `-` for no padding.
pub(super) fn format(pattern: &str, unix_s: u64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(i64::try_from(unix_s).ok()?).ok()?;
    let mut out = String::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        match characters.next()? {
            '-' => out.push_str(unpadded(&expand(characters.next()?, time)?)),
            directive => out.push_str(&expand(directive, time)?),
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

/// What a directive stands for; `None` for one that is not in the list.
fn expand(directive: char, time: OffsetDateTime) -> Option<String> {
    let (hour, minute, second) = time.to_hms();
    let month = MONTHS[usize::from(u8::from(time.month())) - 1];
    let weekday = WEEKDAYS[usize::from(time.weekday().number_days_from_sunday())];
    Some(match directive {
        'Y' => time.year().to_string(),
        'y' => format!("{:02}", time.year() % 100),
        'm' => format!("{:02}", u8::from(time.month())),
        'd' => format!("{:02}", time.day()),
        'e' => format!("{:2}", time.day()),
        'H' => format!("{hour:02}"),
        'I' => format!("{:02}", (hour + 11) % 12 + 1),
        'M' => format!("{minute:02}"),
        'S' => format!("{second:02}"),
        'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
        'j' => format!("{:03}", time.ordinal()),
        'a' => weekday[..3].to_owned(),
        'A' => weekday.to_owned(),
        'b' => month[..3].to_owned(),
        'B' => month.to_owned(),
        '%' => "%".to_owned(),
        _ => return None,
    })
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
