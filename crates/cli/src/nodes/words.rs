//! Durations, figures and foreign text, as they fit into a line.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Terminal cells that `text` takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// Text from outside as one harmless line: no control characters (they could steer the terminal),
/// nothing invisible or reversing (it could make one name look like another).
pub(crate) fn one_line(text: &str) -> String {
    let is_invisible = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
    };
    text.chars().filter(|c| !is_invisible(*c)).collect()
}

/// `text` in at most `cells`; what is cut off leaves a `…`.
pub(crate) fn clip(text: &str, cells: usize) -> String {
    if width(text) <= cells {
        return text.to_owned();
    }
    let Some(room) = cells.checked_sub(1) else { return String::new() };
    let mut taken = 0;
    let fits = |c: &char| {
        taken += c.width().unwrap_or(0);
        taken <= room
    };
    let mut clipped: String = text.chars().take_while(fits).collect();
    clipped.push('…');
    clipped
}

/// The same, cut in the middle: a little more of the beginning is kept than of the end.
pub(crate) fn clip_middle(text: &str, cells: usize) -> String {
    if width(text) <= cells {
        return text.to_owned();
    }
    let end_cells = cells.saturating_sub(1) * 2 / 5;
    let mut taken = 0;
    let fits = |c: &char| {
        taken += c.width().unwrap_or(0);
        taken <= end_cells
    };
    let end: Vec<char> = text.chars().rev().take_while(fits).collect();
    let end: String = end.into_iter().rev().collect();
    format!("{}{end}", clip(text, cells - width(&end)))
}

/// The two largest units: `3 d 4 h`, `12 min 5 s`.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// A rate in at most six characters: `0.4`, `912.0`, `12.3k`, `4.56M`.
pub(crate) fn figure(value: f64) -> String {
    match value {
        value if !value.is_finite() || value < 0.0 => "-".to_owned(),
        value if value < 9_999.5 => format!("{value:.1}"),
        value if value < 999_950.0 => format!("{:.1}k", value / 1e3),
        value => format!("{:.2}M", value / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_its_line() {
        assert_eq!(one_line("a\u{1b}[2J\nb\tc\u{202e}d\u{200b}"), "a[2Jbcd");
        assert_eq!(one_line("qwen-é-模型"), "qwen-é-模型");
    }

    #[test]
    fn clipping_counts_cells_not_characters() {
        assert_eq!(clip("backend-1", 9), "backend-1");
        assert_eq!(clip("backend-1", 8), "backend…");
        assert_eq!(clip("模型模型", 5), "模型…");
        assert_eq!(clip("模型模型", 4), "模…");
        assert_eq!(clip("ab", 0), "");
    }

    #[test]
    fn names_are_cut_in_the_middle() {
        assert_eq!(clip_middle("gpu-host-17.rack-3", 18), "gpu-host-17.rack-3");
        assert_eq!(clip_middle("gpu-host-17.rack-3", 11), "gpu-ho…ck-3");
        assert_eq!(clip_middle("gpu-host-17", 1), "…");
        assert_eq!(clip_middle("gpu-host-17", 0), "");
        assert_eq!(clip_middle("模型模型模型", 6), "模…型");
    }

    #[test]
    fn durations_have_two_units() {
        let words = [0, 59, 60, 3599, 3600, 86_399, 86_400].map(duration);
        let expected =
            ["0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "23 h 59 min", "1 d 0 h"];
        assert_eq!(words, expected);
    }

    #[test]
    fn figures_stay_short() {
        let words = [0.0, 0.44, 9999.4, 12_345.0, 1e6, f64::NAN, -1.0].map(figure);
        assert_eq!(words, ["0.0", "0.4", "9999.4", "12.3k", "1.00M", "-", "-"]);
    }
}
