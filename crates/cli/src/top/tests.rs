//! The screen as a person sees it, at several sizes, through every change that can happen to it.

use std::time::{Duration, Instant};

use inferno_shared::registration::wire::Peer;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::input::{Input, input};
use super::render::{Theme, paint};
use super::state::{Effect, Top};
use super::view::compose;
use crate::nodes::testing::{peer, sighting, silent};

const UNICODE: Theme = Theme { colours: true, unicode: true };
const PLAIN: Theme = Theme { colours: false, unicode: false };

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The screen of that size, line by line.
fn screen(top: &mut Top, theme: Theme, width: u16, height: u16) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    let draw = |frame: &mut ratatui::Frame<'_>| {
        let area = frame.area();
        let view = compose(top, usize::from(area.width), usize::from(area.height));
        paint(&view, theme, area, frame.buffer_mut());
    };
    terminal.draw(draw).expect("drawn");
    terminal.backend().clone()
}

fn text(top: &mut Top, width: u16, height: u16) -> Vec<String> {
    let screen = screen(top, UNICODE, width, height);
    let cells = screen.buffer().content().chunks(usize::from(width));
    let line = |row: &[ratatui::buffer::Cell]| {
        row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>()
    };
    cells.map(|row| line(row).trim_end().to_owned()).collect()
}

/// Two rounds, a second apart: 5 requests were begun in between.
fn watched(peers: &[Peer]) -> Top {
    let start = Instant::now();
    let mut top = Top::new(start);
    top.observe(vec![sighting(peers.to_vec())], start);
    let mut later = sighting(peers.to_vec());
    if let Ok(answer) = &mut later.answer {
        answer.vitals.requests_total += 5;
    }
    top.observe(vec![later], start + seconds(1));
    top
}

fn three() -> Vec<Peer> {
    let mut busy = peer("backend-2", "ready", 1);
    busy.reported.tokens_per_second = 90.0;
    vec![peer("backend-1", "ready", 1), busy, peer("backend-3", "suspect", 1)]
}

fn many(count: usize) -> Vec<Peer> {
    (0..count)
        .map(|n| peer(&format!("a-backend-with-a-rather-long-name-{n:04}"), "ready", 1))
        .collect()
}

#[test]
fn eighty_by_twenty_four() {
    let mut top = watched(&three());
    top.input(Input::Move(1));
    assert_eq!(
        text(&mut top, 80, 24),
        [
            "proxy-1  healthy  up 2 h 1 min  inferno-proxy 0.1.0 at 127.0.0.1:6100",
            "3 requests in progress, 5.0/s, 2 failed",
            "tokens/s 171.0, peak 171.0               requests/s 5.0, peak 5.0",
            "                                     ██                                        █",
            "                                     ██                                        █",
            "                                     ██                                        █",
            "",
            "NODE▲      STATE    MODELS        IN FLIGHT  QUEUE  TOKENS/S  KV %  CPU %  MEM %",
            "backend-1  ready    smollm2-135…          3      2      40.5    12     50     25",
            "backend-2  ready    smollm2-135…          3      2      90.0    12     50     25",
            "backend-3  suspect  smollm2-135…          3      2      40.5    12     50     25",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "3 nodes    2 ready                        9      6     171.0    12     50     25",
            "backend-1  traffic 10.0.0.1:8080, operations 10.0.0.1:6100, generation 1",
            "models smollm2-135m-instruct, fingerprint f00d",
            "q quit  ? help  <> sort  r reverse  p pause                             1-3 of 3",
        ]
    );
}

#[test]
fn tiny_screens_keep_what_matters() {
    let mut top = watched(&three());
    assert_eq!(
        text(&mut top, 20, 5),
        [
            "proxy-1  healthy  u…",
            "NODE▲      STATE",
            "backend-1  ready",
            "backend-2  ready",
            "q quit  ? … 1-2 of 3"
        ]
    );
    assert_eq!(text(&mut top, 12, 2), ["proxy-1  he…", "NODE▲"]);
    for (width, height) in (1..30).flat_map(|width| (1..30).map(move |height| (width, height))) {
        text(&mut top, width, height);
    }
}

#[test]
fn a_wide_screen_has_every_column() {
    let mut peers = three();
    peers[0].reported.gpu_usage = 80.0;
    let lines = text(&mut watched(&peers), 200, 50);
    let head = lines.iter().find(|line| line.starts_with("NODE")).expect("a head");
    assert_eq!(
        head.split_whitespace().collect::<Vec<_>>(),
        [
            "NODE▲", "STATE", "ADDRESS", "MODELS", "IN", "FLIGHT", "QUEUE", "TOKENS/S", "KV", "%",
            "CPU", "%", "MEM", "%", "GPU", "%"
        ]
    );
}

#[test]
fn states_have_their_colours_and_the_selected_row_is_reversed() {
    let mut top = watched(&three());
    top.input(Input::Last);
    let coloured = screen(&mut top, UNICODE, 80, 24);
    let cell = |x, y| coloured.buffer()[(x, y)].clone();
    assert_eq!((cell(11, 8).symbol(), cell(11, 8).fg), ("r", Color::Green));
    assert_eq!((cell(11, 10).symbol(), cell(11, 10).fg), ("s", Color::Red));
    assert!(cell(0, 10).modifier.contains(Modifier::REVERSED));
    assert!(!cell(0, 8).modifier.contains(Modifier::REVERSED));
    let plain = screen(&mut top, PLAIN, 80, 24);
    let cells = plain.buffer().content();
    assert!(cells.iter().all(|cell| cell.fg == Color::Reset && cell.symbol().is_ascii()));
}

#[test]
fn a_proxy_that_goes_away_keeps_its_last_words_dimmed_and_comes_back() {
    let mut top = watched(&three());
    let at = top.now;
    top.observe(vec![silent("127.0.0.1:6100")], at + seconds(1));
    top.observe(vec![silent("127.0.0.1:6100")], at + seconds(13));
    let lines = text(&mut top, 80, 24);
    assert_eq!(
        lines[0],
        "no answer for 12 s: connection refused  proxy-1  healthy  up 2 h 1 min  inferno…"
    );
    assert!(lines.iter().any(|line| line.starts_with("backend-1  ready")), "{lines:#?}");
    let dimmed = screen(&mut top, UNICODE, 80, 24);
    let state = &dimmed.buffer()[(11, 8)];
    assert_eq!((state.symbol(), state.fg), ("r", Color::Reset));
    assert!(state.modifier.contains(Modifier::DIM));
    assert_eq!(top.tokens_per_second.len(), 2, "nothing is known of those seconds");

    top.observe(vec![sighting(three())], at + seconds(14));
    assert!(text(&mut top, 80, 24)[0].starts_with("proxy-1  healthy"));
    assert_eq!(screen(&mut top, UNICODE, 80, 24).buffer()[(11, 8)].fg, Color::Green);
}

#[test]
fn before_the_first_answer_it_says_what_it_waits_for() {
    let mut top = Top::new(Instant::now());
    assert_eq!(text(&mut top, 40, 3)[0], "asking…");
    let now = top.now;
    top.observe(vec![silent("127.0.0.1:6100")], now);
    assert_eq!(
        text(&mut top, 80, 3)[0],
        "no answer for 0 s: connection refused  at 127.0.0.1:6100"
    );
    top.observe(vec![sighting(Vec::new())], now);
    assert!(text(&mut top, 80, 10).contains(&"no backend has registered yet".to_owned()));
}

#[test]
fn one_of_two_proxies_silent_is_said() {
    let now = Instant::now();
    let mut top = Top::new(now);
    top.observe(vec![sighting(three()), silent("10.0.0.2:6100")], now);
    let lines = text(&mut top, 90, 24);
    assert_eq!(lines[1], "no answer for 0 s: connection refused  at 10.0.0.2:6100");
    assert_eq!(lines[2], "1 of 2 proxies answer: 3 requests in progress, 0.0/s, 2 failed");
    let lines = text(&mut top, 90, 6);
    assert_eq!(lines[0], "2 proxies, 1 of all silent");
}

#[test]
fn hundreds_of_nodes_scroll_with_the_selection() {
    let mut top = watched(&many(500));
    assert!(text(&mut top, 100, 30).last().expect("a footer").ends_with("1-20 of 500"));
    top.input(Input::Last);
    let lines = text(&mut top, 100, 30);
    assert!(
        lines.iter().any(|line| line.starts_with("a-backend-with-a-rather-long-name-0499")),
        "{lines:#?}"
    );
    assert!(lines.last().expect("a footer").ends_with("484-500 of 500"), "{lines:#?}");
    top.input(Input::Page(-1));
    assert_eq!(top.selected.as_deref(), Some("a-backend-with-a-rather-long-name-0482"));
    top.input(Input::First);
    text(&mut top, 100, 30);
    assert_eq!((top.first_row, top.selected_row()), (0, Some(0)));
}

#[test]
fn a_selected_node_keeps_its_mark_when_others_come_and_go() {
    let mut top = watched(&three());
    top.input(Input::Last);
    assert_eq!(top.selected.as_deref(), Some("backend-3"));
    let now = top.now;
    top.observe(
        vec![sighting(vec![peer("backend-0", "ready", 1), peer("backend-3", "ready", 1)])],
        now,
    );
    assert_eq!(top.selected_row(), Some(1));
    top.observe(vec![sighting(vec![peer("backend-0", "ready", 1)])], now);
    assert_eq!(top.selected_row(), None);
    text(&mut top, 80, 24);
}

#[test]
fn sorting_goes_through_the_columns_that_are_shown() {
    let mut top = watched(&three());
    text(&mut top, 40, 24);
    // State, in flight, tokens.
    for _ in 0..3 {
        top.input(Input::SortBy(1));
    }
    let lines = text(&mut top, 40, 24);
    let names: Vec<_> = lines
        .iter()
        .filter_map(|line| line.get(..9))
        .filter(|name| name.starts_with("backend-"))
        .collect();
    assert_eq!(names, ["backend-2", "backend-1", "backend-3"]);
    assert!(lines.iter().any(|line| line.contains("▼TOKENS/S")), "{lines:#?}");
    top.input(Input::Reverse);
    assert_eq!(top.fleet.backends[0].id, "backend-1");
    top.input(Input::SortBy(-9));
    assert_eq!(top.fleet.backends[2].id, "backend-3");
}

#[test]
fn paused_means_that_nothing_moves() {
    let mut top = watched(&three());
    let before = top.fleet.clone();
    top.input(Input::Pause);
    assert_eq!(top.observe(vec![silent("127.0.0.1:6100")], top.now + seconds(9)), Effect::Nothing);
    assert_eq!(top.fleet, before);
    let lines = text(&mut top, 60, 12);
    assert_eq!(lines[11], "PAUSED  p goes on  q quit                           1-3 of 3");
    top.input(Input::Pause);
    assert_eq!(top.observe(vec![silent("127.0.0.1:6100")], top.now + seconds(9)), Effect::Draw);
}

#[test]
fn names_of_models_cannot_steer_the_terminal() {
    let mut peers = three();
    peers[0].models[0].id = "\u{1b}[2J\u{202e}模型\n".into();
    let mut top = watched(&peers);
    top.input(Input::First);
    let lines = text(&mut top, 160, 24);
    // A wide character takes two cells; the second of them is a blank.
    assert!(lines.iter().any(|line| line.contains("[2J模 型")), "{lines:#?}");
}

#[test]
fn the_request_rate_survives_a_restart_of_the_proxy() {
    let mut top = watched(&three());
    let mut restarted = sighting(three());
    if let Ok(answer) = &mut restarted.answer {
        answer.vitals.generation.0 += 1;
        answer.vitals.requests_total = 8;
    }
    let now = top.now + seconds(2);
    top.observe(vec![restarted], now);
    assert_eq!(top.requests_per_second, [0.0, 5.0, 4.0]);
}

#[test]
fn keys_mean_what_the_help_says() {
    let key = |code| input(KeyEvent::new(code, KeyModifiers::NONE));
    let control = |c| input(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL));
    assert_eq!(key(KeyCode::Char('q')), Some(Input::Quit));
    assert_eq!(control('c'), Some(Input::Quit));
    assert_eq!(control('z'), Some(Input::Suspend));
    assert_eq!(control('q'), None);
    assert_eq!(key(KeyCode::Char('x')), None);
    let mut top = watched(&three());
    assert_eq!(top.input(Input::Help), Effect::Draw);
    assert!(text(&mut top, 80, 24)[0].starts_with("q  Esc  Ctrl-C"));
    assert_eq!(top.input(Input::Close), Effect::Draw, "Esc leaves the help first");
    assert_eq!(top.input(Input::Close), Effect::Quit);
}
