//! A small graph out of block characters.

use std::collections::VecDeque;

/// From nothing to a full cell.
const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The newest `width` values, the last at the right edge, in `height` lines from top to bottom. The
/// highest of them fills its column; what is more than nothing is never drawn as nothing.
pub(super) fn graph(values: &VecDeque<f64>, width: usize, height: usize) -> Vec<String> {
    let values: Vec<f64> =
        values.iter().copied().skip(values.len().saturating_sub(width)).collect();
    let peak = peak(&values);
    let eighths = |value: f64| match value > 0.0 {
        true => ((value / peak * (height * 8) as f64).round() as usize).max(1),
        false => 0,
    };
    let empty = width - values.len();
    let line = |row: usize| {
        let below = (height - 1 - row) * 8;
        let cell = |value: &f64| LEVELS[eighths(*value).saturating_sub(below).min(8)];
        " ".repeat(empty).chars().chain(values.iter().map(cell)).collect()
    };
    (0..height).map(line).collect()
}

/// The highest value.
pub(super) fn peak(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_value_fills_its_column_and_the_newest_is_at_the_right() {
        let values = VecDeque::from([100.0, 0.0, 0.01, 4.0, 8.0]);
        assert_eq!(graph(&values, 4, 1), [" ▁▄█"]);
        assert_eq!(graph(&values, 7, 2), ["  █    ", "  █ ▁▁▁"]);
        assert_eq!(graph(&VecDeque::new(), 3, 1), ["   "]);
        assert_eq!(graph(&values, 0, 1), [""]);
    }
}
