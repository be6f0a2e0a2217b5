//! The terminal: taken over whole, and given back whatever happens.

use std::io::{self, Stdout, stdout};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::style::force_color_output;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::{Position, Rect};

use super::render::{Theme, paint};
use super::state::Top;
use super::view::compose;

/// Whether the terminal is ours now. A panic's hook and a drop both want to know.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The full screen. Dropped, also by a panic, it leaves the terminal as it was.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    theme: Theme,
}

impl Screen {
    /// Takes the terminal over.
    pub(super) fn enter(theme: Theme) -> io::Result<Self> {
        // Whoever asks for colours in so many words gets them, NO_COLOR or not.
        force_color_output(theme.colours);
        give_back_before_panicking();
        let terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        let mut screen = Self { terminal, theme };
        screen.resume()?;
        Ok(screen)
    }

    /// Takes it over again: after [`Self::leave`], or after another program may have changed it.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        TAKEN.store(true, SeqCst);
        // crossterm remembers that it is raw; a shell in between may have made it otherwise.
        disable_raw_mode()?;
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen)?;
        self.clear()
    }

    /// Empties the screen, so that the next picture is drawn whole.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        // Not `Terminal::clear`: that asks the terminal where its cursor is, and fails on a slow line.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size)))
    }

    /// Draws what changed.
    pub(super) fn draw(&mut self, top: &mut Top) -> io::Result<()> {
        let theme = self.theme;
        self.terminal.draw(|frame| {
            let area = frame.area();
            let view = compose(top, usize::from(area.width), usize::from(area.height));
            paint(&view, theme, area, frame.buffer_mut());
        })?;
        Ok(())
    }

    /// Gives the terminal back.
    pub(super) fn leave(&mut self) {
        give_back();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// A terminal that is gone cannot be given back: then there is nobody to tell. Twice would put the
/// cursor back again, over what was printed since.
fn give_back() {
    if !TAKEN.swap(false, SeqCst) {
        return;
    }
    execute!(stdout(), LeaveAlternateScreen, Show).ok();
    disable_raw_mode().ok();
}

/// So that the panic's message is where one can read it.
fn give_back_before_panicking() {
    let print_message = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        give_back();
        print_message(info);
    }));
}
