//! The node table: columns chosen and sized for the width there is.

use super::columns::Column;
use super::fleet::{Fleet, Node};
use super::spans::{Spans, Tone};
use super::words::{clip, clip_middle, width};

/// Between two columns.
const GAP: usize = 2;
/// Names and models are cut to this before a column goes …
const COMFORTABLE: [(Column, usize); 2] = [(Column::Models, 12), (Column::Node, 28)];
/// … and the name to this before the state and the tokens do.
const TIGHT: [(Column, usize); 1] = [(Column::Node, 8)];
/// Columns that are worth cutting the name for.
const ESSENTIAL: usize = 3;

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
            // A title of text may have a mark behind it, and nothing behind that.
            let title = width(column.title()) + usize::from(!column.is_number());
            let fixed = [title, width(&column.total(&totals))];
            cells.chain(fixed).max().unwrap_or(0)
        };
        let mut layout = Self(shown.map(|column| (column, natural(column))).collect());
        if let Some(cells) = width_cells {
            layout.fit(cells);
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

    fn fit(&mut self, cells: usize) {
        loop {
            let essential = self.0.len() <= ESSENTIAL;
            let cut = if essential { &TIGHT[..] } else { &COMFORTABLE[..] };
            if self.shrunk(cells, cut) || self.0.len() == 1 {
                break;
            }
            self.drop_one();
        }
        // Nothing is left but the name: it takes what there is.
        if let [(_, only)] = &mut self.0[..] {
            *only = (*only).min(cells);
        }
    }

    /// Cuts these columns as far as they may be, if that is enough.
    fn shrunk(&mut self, cells: usize, cut: &[(Column, usize)]) -> bool {
        let mut shrunk = self.clone();
        for (long, least) in cut {
            let excess = shrunk.cells().saturating_sub(cells);
            if let Some((_, width)) = shrunk.0.iter_mut().find(|(column, _)| column == long) {
                *width = (*width).min(width.saturating_sub(excess).max(*least));
            }
        }
        let fits = shrunk.cells() <= cells;
        if fits {
            *self = shrunk;
        }
        fits
    }

    fn drop_one(&mut self) {
        let least = self.0.iter().map(|(column, _)| column.importance()).max();
        self.0.retain(|(column, _)| Some(column.importance()) != least);
    }

    /// The titles; the one that rows are sorted by has a `mark`, before a number in the gap if need be.
    pub(crate) fn head(&self, sorted: Option<(Column, &str)>) -> Spans {
        let mut line = Spans::new();
        for (index, (column, cells)) in self.0.iter().enumerate() {
            let mark = sorted.filter(|(by, _)| by == column).map(|(_, mark)| mark);
            let tone = if mark.is_some() { Tone::Bold } else { Tone::Dim };
            let (mark, title) = (mark.unwrap_or_default(), column.title());
            let gap = if index == 0 { 0 } else { GAP };
            line = match column.is_number() {
                true => line.and(tone, format!("{:>1$}", format!("{mark}{title}"), gap + cells)),
                false => {
                    let title = clip(&format!("{title}{mark}"), *cells);
                    line.and(Tone::Plain, " ".repeat(gap)).and(tone, format!("{title:<cells$}"))
                }
            };
        }
        line.trimmed()
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
        for (index, (column, cells)) in self.0.iter().enumerate() {
            let (tone, text) = cell(*column);
            let text = match column {
                // Names of one kind often differ at the end.
                Column::Node => clip_middle(&text, *cells),
                _ => clip(&text, *cells),
            };
            let padding = " ".repeat(cells - width(&text));
            let gap = " ".repeat(if index == 0 { 0 } else { GAP });
            line = line.and(Tone::Plain, gap);
            line = match column.is_number() {
                true => line.and(Tone::Plain, padding).and(tone, text),
                false => line.and(tone, text).and(Tone::Plain, padding),
            };
        }
        line.trimmed()
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
            let lines = fleet.backends.iter().map(|node| layout.row(node));
            for line in lines.chain([layout.head(None), layout.total(&fleet)]) {
                // The mark of a sorted column that is the last may stand out by its own cell.
                assert!(line.width() <= cells, "{} > {cells}: {line:?}", line.width());
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
