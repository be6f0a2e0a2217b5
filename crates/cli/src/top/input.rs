//! What keys mean.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Quit,
    /// Closes what is open, else quits.
    Close,
    Suspend,
    /// Draw everything again, over whatever another program wrote.
    Redraw,
    Help,
    Pause,
    /// So many rows down, or up.
    Move(isize),
    /// So many screens down, or up.
    Page(isize),
    First,
    Last,
    /// So many columns to the right, or left.
    SortBy(isize),
    Reverse,
}

/// The help page: keys, and what they do.
pub(super) const KEYS: &[(&str, &str)] = &[
    ("q  Esc  Ctrl-C", "quit"),
    ("?  h", "this help"),
    ("Left  Right  <  >", "sort by the column to the left or right"),
    ("r", "reverse the order"),
    ("Up  Down  k  j", "select a node; its details are below"),
    ("PgUp  PgDn  Home  End", "the same in larger steps"),
    ("p  Space", "pause: keep what is shown"),
    ("Ctrl-L", "draw again"),
    ("Ctrl-Z", "suspend; fg comes back"),
];

/// What a key means; none: nothing.
pub(super) fn input(key: KeyEvent) -> Option<Input> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Input::Quit),
            KeyCode::Char('z') => Some(Input::Suspend),
            KeyCode::Char('l') => Some(Input::Redraw),
            _ => None,
        };
    }
    Some(match key.code {
        KeyCode::Char('q') => Input::Quit,
        KeyCode::Esc => Input::Close,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => Input::Help,
        KeyCode::Char('p' | ' ') => Input::Pause,
        KeyCode::Up | KeyCode::Char('k') => Input::Move(-1),
        KeyCode::Down | KeyCode::Char('j') => Input::Move(1),
        KeyCode::PageUp => Input::Page(-1),
        KeyCode::PageDown => Input::Page(1),
        KeyCode::Home | KeyCode::Char('g') => Input::First,
        KeyCode::End | KeyCode::Char('G') => Input::Last,
        KeyCode::Left | KeyCode::Char('<') => Input::SortBy(-1),
        KeyCode::Right | KeyCode::Char('>') => Input::SortBy(1),
        KeyCode::Char('r') => Input::Reverse,
        _ => return None,
    })
}
