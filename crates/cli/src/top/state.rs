//! What `top` knows: the proxies' last words, how fast things go, and where the user stands. Pure:
//! time comes with the events.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::input::Input;
use crate::nodes::{Answer, Column, Fleet, Node, Sighting, Silence};

/// Samples kept for the graphs: more than any terminal has columns.
const SAMPLES_MAX: usize = 1_000;

/// One proxy, as it was last heard.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) asked: String,
    /// Its last answer, and when that came.
    pub(super) last: Option<(Answer, Instant)>,
    /// Why it is silent now.
    pub(super) silence: Option<Silence>,
    /// Since when it is silent.
    pub(super) silent_since: Option<Instant>,
    /// Requests begun a second, between its last two answers.
    pub(super) requests_per_second: f64,
}

/// What the loop has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing changed.
    Nothing,
    /// Draw what changed.
    Draw,
    /// Draw all of it.
    Redraw,
    Suspend,
    Quit,
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct Top {
    pub(super) sources: Vec<Source>,
    /// Merged, its backends in the order they are shown.
    pub(super) fleet: Fleet,
    pub(super) tokens_per_second: VecDeque<f64>,
    pub(super) requests_per_second: VecDeque<f64>,
    pub(super) sort: Column,
    pub(super) descending: bool,
    /// By name: a row keeps its mark wherever sorting puts it.
    pub(super) selected: Option<String>,
    /// The first row that is shown.
    pub(super) first_row: usize,
    /// How many rows are.
    page: usize,
    /// The columns that are, for sorting by the next.
    columns: Vec<Column>,
    pub(super) paused: bool,
    pub(super) help: bool,
    pub(super) now: Instant,
}

impl Top {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            sources: Vec::new(),
            fleet: Fleet::default(),
            tokens_per_second: VecDeque::new(),
            requests_per_second: VecDeque::new(),
            sort: Column::Node,
            descending: false,
            selected: None,
            first_row: 0,
            page: 1,
            columns: Column::ALL.to_vec(),
            paused: false,
            help: false,
            now,
        }
    }

    /// One round of answers came.
    pub(super) fn observe(&mut self, sightings: Vec<Sighting>, now: Instant) -> Effect {
        if self.paused {
            return Effect::Nothing;
        }
        self.now = now;
        let answered = sightings.iter().any(|sighting| sighting.answer.is_ok());
        // A proxy that left its name's addresses is forgotten, unless there is nothing else to show.
        if answered {
            let asked =
                |source: &Source| sightings.iter().any(|sighting| sighting.asked == source.asked);
            self.sources.retain(asked);
        }
        for sighting in sightings {
            self.source(&sighting.asked).heard(sighting.answer, now);
        }
        self.merge();
        if answered {
            let live = self.sources.iter().filter(|source| source.is_live());
            let requests = live.map(|source| source.requests_per_second).sum();
            push(&mut self.requests_per_second, requests);
            push(&mut self.tokens_per_second, self.fleet.totals().tokens_per_second);
        }
        Effect::Draw
    }

    fn source(&mut self, asked: &str) -> &mut Source {
        let known = self.sources.iter().position(|source| source.asked == asked);
        let index = known.unwrap_or_else(|| {
            self.sources.push(Source::new(asked));
            self.sources.len() - 1
        });
        &mut self.sources[index]
    }

    fn merge(&mut self) {
        let answers = self.sources.iter().filter_map(|source| {
            source.last.as_ref().map(|(answer, _)| (answer, source.is_live()))
        });
        self.fleet = Fleet::merge(answers);
        self.order();
    }

    fn order(&mut self) {
        let (column, descending) = (self.sort, self.descending);
        self.fleet.backends.sort_by(|a, b| {
            let order = column.compare(a, b);
            // Equals are in the order of their names either way.
            if descending { order.reverse() } else { order }.then_with(|| a.id.cmp(&b.id))
        });
    }

    /// The screen shows so many rows and these columns: scrolls so that the selection is among them.
    pub(super) fn fit(&mut self, rows: usize, columns: Vec<Column>) {
        self.page = rows.max(1);
        self.columns = columns;
        let last_first = self.fleet.backends.len().saturating_sub(rows);
        self.first_row = self.first_row.min(last_first);
        if let Some(selected) = self.selected_row() {
            let lowest = (selected + 1).saturating_sub(self.page);
            self.first_row = self.first_row.clamp(lowest, selected.max(lowest));
        }
    }

    /// How many rows the screen shows.
    pub(super) fn page(&self) -> usize {
        self.page
    }

    /// The marked row, if its node is still there.
    pub(super) fn selected_row(&self) -> Option<usize> {
        let selected = self.selected.as_deref()?;
        self.fleet.backends.iter().position(|node| node.id == selected)
    }

    /// The marked node.
    pub(super) fn selected_node(&self) -> Option<&Node> {
        self.fleet.backends.get(self.selected_row()?)
    }

    /// The user wants something.
    pub(super) fn input(&mut self, input: Input) -> Effect {
        match input {
            Input::Quit => return Effect::Quit,
            Input::Close if self.help => self.help = false,
            Input::Close => return Effect::Quit,
            Input::Suspend => return Effect::Suspend,
            Input::Redraw => return Effect::Redraw,
            Input::Help => self.help = !self.help,
            Input::Pause => self.paused = !self.paused,
            Input::Move(rows) => self.select(rows),
            Input::Page(pages) => self.select(pages * self.page as isize),
            Input::First => self.select(isize::MIN),
            Input::Last => self.select(isize::MAX),
            Input::SortBy(columns) => self.sort_by(columns),
            Input::Reverse => {
                self.descending = !self.descending;
                self.order();
            }
        }
        Effect::Draw
    }

    fn select(&mut self, rows: isize) {
        let Some(last) = self.fleet.backends.len().checked_sub(1) else { return };
        let row = match self.selected_row() {
            Some(row) => row.saturating_add_signed(rows).min(last),
            None if rows == isize::MAX => last,
            None => self.first_row.min(last),
        };
        self.selected = Some(self.fleet.backends[row].id.clone());
    }

    /// Numbers start with the greatest, text with the first.
    fn sort_by(&mut self, columns: isize) {
        let shown = self.columns.iter().position(|column| *column == self.sort).unwrap_or(0);
        let next = shown.saturating_add_signed(columns).min(self.columns.len().saturating_sub(1));
        if let Some(column) = self.columns.get(next).filter(|column| **column != self.sort) {
            self.sort = *column;
            self.descending = column.is_number();
            self.order();
        }
    }
}

impl Source {
    fn new(asked: &str) -> Self {
        let asked = asked.to_owned();
        Self { asked, last: None, silence: None, silent_since: None, requests_per_second: 0.0 }
    }

    /// Whether its last word is of now.
    pub(super) fn is_live(&self) -> bool {
        self.silence.is_none()
    }

    fn heard(&mut self, answer: Result<Answer, Silence>, now: Instant) {
        match answer {
            Ok(answer) => {
                self.requests_per_second = self.rate(&answer, now);
                self.last = Some((answer, now));
                (self.silence, self.silent_since) = (None, None);
            }
            Err(silence) => {
                self.silence = Some(silence);
                self.silent_since.get_or_insert(now);
            }
        }
    }

    /// Between the last answer and this; a restarted proxy counts from its beginning.
    fn rate(&self, answer: &Answer, now: Instant) -> f64 {
        let Some((last, at)) = &self.last else { return 0.0 };
        let seconds =
            now.saturating_duration_since(*at).max(Duration::from_millis(1)).as_secs_f64();
        let same = last.vitals.generation == answer.vitals.generation;
        let before = if same { last.vitals.requests_total } else { 0 };
        answer.vitals.requests_total.saturating_sub(before) as f64 / seconds
    }
}

fn push(samples: &mut VecDeque<f64>, value: f64) {
    if samples.len() == SAMPLES_MAX {
        samples.pop_front();
    }
    samples.push_back(value);
}
