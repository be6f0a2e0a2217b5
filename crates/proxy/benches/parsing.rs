//! What it costs to read what passes through: a chat request's body, as far as routing needs it, beside
//! `serde_json`'s tree of all of it; and an event stream, beside looking for the two bytes that end an event.
//!
//! ```text
//! cargo bench -p inferno-proxy --bench parsing -- [ROUNDS]
//! ```
//!
//! Both of a pair read the same bytes in turn. Medians of ROUNDS (default 15).

#![allow(clippy::print_stdout, missing_docs)]

use bytes::Bytes;
use inferno_proxy::measured::{Events, envelope};
use serde_json::Value;
use std::{hint::black_box, time::Instant};

const ROUNDS: usize = 15;
/// Of a round.
const REPEATS: u32 = 5_000;
/// Of a chat request's body, bytes.
const BODY_BYTES: usize = 2048;
/// Of a stream that is read in pieces.
const EVENTS: u32 = 1_000;

/// A body of so many bytes: a system prompt, and a question with a few characters that JSON escapes.
fn body() -> String {
    let start = r#"{"model":"smollm2-135m-instruct","max_tokens":64,"temperature":0.7,"messages":[{"role":"system","content":"You answer \"briefly\".\n"},{"role":"user","content":""#;
    let end = r#""}],"stream":true}"#;
    let mut question =
        r#"Why is the sky blue, and the sea? \"Because\" is no answer.\n"#.repeat(40);
    question.truncate(BODY_BYTES - start.len() - end.len() - 1);
    let question = question.trim_end_matches('\\');
    let padding = "x".repeat(BODY_BYTES - start.len() - end.len() - question.len());
    format!("{start}{question}{padding}{end}")
}

/// One event of a chat stream.
fn event() -> Bytes {
    Bytes::from_static(
        b"data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\
          \"model\":\"smollm2-135m-instruct\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\
          \"finish_reason\":null}]}\n\n",
    )
}

/// Nanoseconds that one of `repeats` takes.
fn nanos(repeats: u32, mut what: impl FnMut()) -> f64 {
    let began = Instant::now();
    (0..repeats).for_each(|_| what());
    began.elapsed().as_nanos() as f64 / f64::from(repeats)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measures `ours` and `theirs` in turn, and prints both with their ratio. One of them reads `bytes`.
fn compare(
    rounds: usize,
    bytes: usize,
    (our_name, mut ours): (&str, impl FnMut() -> f64),
    (their_name, mut theirs): (&str, impl FnMut() -> f64),
) {
    let (ours, theirs): (Vec<_>, Vec<_>) = (0..rounds).map(|_| (ours(), theirs())).unzip();
    let (ours, theirs) = (median(ours), median(theirs));
    for (name, nanos) in [(our_name, ours), (their_name, theirs)] {
        let mib_s = bytes as f64 / nanos * 1e9 / f64::from(1 << 20);
        println!("{name:<44} {nanos:>8.0} ns {mib_s:>8.0} MiB/s");
    }
    println!("{:<44} {:>8.2}", "ratio", ours / theirs);
}

fn main() {
    let rounds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
    let body = body();
    assert_eq!(body.len(), BODY_BYTES);
    assert!(envelope(body.as_bytes()).is_some_and(|(_, routed_by)| routed_by > BODY_BYTES / 2));
    compare(
        rounds,
        BODY_BYTES,
        ("chat body of 2 KiB, what routing needs", || {
            nanos(REPEATS, || drop(black_box(envelope(black_box(body.as_bytes())))))
        }),
        ("the same, serde_json::Value", || {
            nanos(REPEATS, || {
                drop(black_box(serde_json::from_slice::<Value>(black_box(body.as_bytes()))));
            })
        }),
    );
    let event = event();
    compare(
        rounds,
        event.len(),
        ("an event that comes whole", || {
            let mut events = Events::default();
            nanos(EVENTS, || assert_eq!(events.push(black_box(event.clone())), Some(event.len())))
        }),
        ("the same, looking for two line feeds", || {
            nanos(EVENTS, || {
                let piece = black_box(event.clone());
                let end = piece.windows(2).position(|two| two == b"\n\n");
                assert_eq!(end, Some(event.len() - 2));
            })
        }),
    );
    let (first, second) = (event.slice(..event.len() / 2), event.slice(event.len() / 2..));
    compare(
        rounds,
        event.len(),
        ("an event that comes in two pieces", || {
            let mut events = Events::default();
            nanos(EVENTS, || {
                assert_eq!(events.push(black_box(first.clone())), Some(0));
                assert_eq!(events.push(black_box(second.clone())), Some(event.len()));
            })
        }),
        ("the same, copied and looked through", || {
            let mut held = Vec::new();
            nanos(EVENTS, || {
                held.extend_from_slice(black_box(&first));
                held.extend_from_slice(black_box(&second));
                let end = held.windows(2).position(|two| two == b"\n\n");
                assert_eq!(end, Some(event.len() - 2));
                held.clear();
            })
        }),
    );
}
