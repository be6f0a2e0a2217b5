//! The node table: columns chosen and sized for the width there is.

use super::columns::Column;
use super::fleet::{Fleet, Node};
use super::spans::{Spans, Tone};
use super::words::{clip, width};

/// Between two columns.
const GAP: usize = 2;
/// A column of text is never cut to less than this.
const TEXT_CELLS_MIN: usize = 12;

/// The columns shown, and their widths in cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout(Vec<(Column, usize)>);

impl Layout {
    /// Chooses columns for these nodes. In a limited width first the long texts are cut, then the
    /// least important columns go. The GPU column is there if a node has work on one.
    pub(crate) fn of(fleet: &Fleet, width_cells: Option<usize>) -> Self {
        let nodes = &fleet.backends;
        let busy_gpu = |node: &Node| node.reported.is_some_and(|load| load.gpu_usage > 0.0);
        let has_gpu = nodes.iter().any(busy_gpu);
        let shown = Column::ALL.into_iter().filter(|column| has_gpu || *column != Column::Gpu);
        let totals = fleet.totals();
        let natural = |column: Column| {
            let cells = nodes.iter().map(|node| width(&column.cell(node)));
            let fixed = [width(column.title()) + 1, width(&column.total(&totals))];
            cells.chain(fixed).max().unwrap_or(0)
        };
        let mut layout = Self(shown.map(|column| (column, natural(column))).collect());
        if let Some(cells) = width_cells {
            while !layout.shrink_to(cells) && layout.0.len() > 1 {
                layout.drop_one();
            }
        }
        layout
    }

    /// The columns from left to right.
    pub(crate) fn columns(&self) -> impl Iterator<Item = Column> + '_ {
        self.0.iter().map(|(column, _)| *column)
    }

    fn cells(&self) -> usize {
        self.0.iter().map(|(_, cells)| cells + GAP).sum::<usize>().saturating_sub(GAP)
    }

    /// Cuts models, then names, as far as they may be cut. Says whether that was enough.
    fn shrink_to(&mut self, cells: usize) -> bool {
        for long in [Column::Models, Column::Node] {
            let excess = self.cells().saturating_sub(cells);
            if let Some((_, width)) = self.0.iter_mut().find(|(column, _)| *column == long) {
                *width = (*width).min((*width - excess.min(*width)).max(TEXT_CELLS_MIN));
            }
        }
        self.cells() <= cells
    }

    fn drop_one(&mut self) {
        let least = self.0.iter().map(|(column, _)| column.importance()).max();
        self.0.retain(|(column, _)| Some(column.importance()) != least);
    }

    /// The titles; the one that rows are sorted by is marked with `mark`.
    pub(crate) fn head(&self, sorted: Option<(Column, &str)>) -> Spans {
        let cell = |column: Column| {
            let (tone, mark) = match sorted {
                Some((by, mark)) if by == column => (Tone::Bold, mark),
                _ => (Tone::Dim, ""),
            };
            (tone, format!("{}{mark}", column.title()))
        };
        self.line(cell)
    }

    /// One node.
    pub(crate) fn row(&self, node: &Node) -> Spans {
        self.line(|column| (column.tone(node), column.cell(node)))
    }

    /// All nodes together.
    pub(crate) fn total(&self, fleet: &Fleet) -> Spans {
        let totals = fleet.totals();
        self.line(|column| (Tone::Bold, column.total(&totals)))
    }

    fn line(&self, cell: impl Fn(Column) -> (Tone, String)) -> Spans {
        let mut line = Spans::new();
        let last = self.0.len() - 1;
        for (index, (column, cells)) in self.0.iter().enumerate() {
            let (tone, text) = cell(*column);
            let text = clip(&text, *cells);
            let padding = " ".repeat(cells - width(&text));
            line = match column.is_number() {
                true => line.and(Tone::Plain, padding).and(tone, text),
                false if index == last => line.and(tone, text),
                false => line.and(tone, text).and(Tone::Plain, padding),
            };
            if index != last {
                line = line.and(Tone::Plain, " ".repeat(GAP));
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, peer};
    use super::*;

    fn fleet() -> Fleet {
        let mut with_gpu = peer("backend-with-a-long-name-0123456789", "ready", 1);
        with_gpu.reported.gpu_usage = 70.0;
        let answer = answer(vec![peer("backend-1", "joining", 1), with_gpu]);
        Fleet::merge([(&answer, true)])
    }

    fn text(line: &Spans) -> String {
        line.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    fn titles(layout: &Layout) -> Vec<&'static str> {
        layout.columns().map(Column::title).collect()
    }

    #[test]
    fn without_a_limit_everything_is_shown_whole() {
        let layout = Layout::of(&fleet(), None);
        assert_eq!(layout.columns().count(), Column::ALL.len());
        let row = text(&layout.row(&fleet().backends[1]));
        assert!(row.starts_with("backend-with-a-long-name-0123456789  ready"), "{row}");
        assert!(row.trim_end().ends_with("70"), "{row}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_the_name_goes_last() {
        let fleet = fleet();
        let mut before = usize::MAX;
        for cells in (1..200).rev() {
            let layout = Layout::of(&fleet, Some(cells));
            assert!(layout.columns().count() <= before, "{cells}");
            before = layout.columns().count();
            assert!(titles(&layout).contains(&"NODE"));
            let limit = cells.max(TEXT_CELLS_MIN);
            let lines = fleet.backends.iter().map(|node| layout.row(node));
            for line in lines.chain([layout.head(None), layout.total(&fleet)]) {
                assert!(line.width() <= limit, "{} > {cells}: {line:?}", line.width());
            }
        }
        assert_eq!(titles(&Layout::of(&fleet, Some(40))), ["NODE", "STATE", "TOKENS/S"]);
    }

    #[test]
    fn the_gpu_column_needs_a_gpu() {
        let answer = answer(vec![peer("a", "ready", 1)]);
        let layout = Layout::of(&Fleet::merge([(&answer, true)]), None);
        assert!(!titles(&layout).contains(&"GPU %"));
    }

    #[test]
    fn wide_characters_are_counted_as_they_are_drawn() {
        let mut wide = peer("a", "ready", 1);
        wide.models[0].id = "模型模型模型模型模型模型模型模型模型".into();
        let answer = answer(vec![wide, peer("b", "ready", 1)]);
        let fleet = Fleet::merge([(&answer, true)]);
        for cells in 1..140 {
            let layout = Layout::of(&fleet, Some(cells));
            let widths: Vec<_> =
                fleet.backends.iter().map(|node| layout.row(node).width()).collect();
            let ends_in_text =
                matches!(layout.columns().last(), Some(Column::Node | Column::State));
            assert!(ends_in_text || widths[0] == widths[1], "{cells}: {widths:?}");
        }
    }
}
