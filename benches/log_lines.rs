//! What a request's log line costs whoever logs it, beside tracing-subscriber's own JSON form.
//!
//! ```text
//! cargo bench -p inferno-benches --bench log_lines -- [ROUNDS]
//! ```
//!
//! Every form logs the same events, with the fields of a request's line in a span with its two ids, to a
//! standard error that goes nowhere, in processes of their own, in turn. Wall time is the logging
//! thread's: what a request waits. CPU time is the process's: the writing thread's share included.
//! Medians of ROUNDS (default 7).

use inferno_benches::median;
use inferno_shared::{
    Config, telemetry,
    telemetry::{
        request::{self, RequestLine},
        spans::Hop,
    },
};
use nix::sys::resource::{UsageWho, getrusage};
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const LINES: u32 = 20_000;
const FORMS: [&str; 3] = ["json", "human", "tracing-subscriber"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, form] = arguments.as_slice()
        && flag == "--form"
    {
        return log_lines(form);
    }
    let rounds = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(7);
    let mut wall = [(); FORMS.len()].map(|()| Vec::new());
    let mut cpu = [(); FORMS.len()].map(|()| Vec::new());
    for _ in 0..rounds {
        for (index, form) in FORMS.iter().enumerate() {
            let [waited, used] = measure(form);
            wall[index].push(waited);
            cpu[index].push(used);
        }
    }
    println!("form                 wall ns a line  CPU ns a line");
    for (form, (wall, cpu)) in FORMS.iter().zip(wall.into_iter().zip(cpu)) {
        println!("{form:<20} {:>14} {:>14}", median(wall).as_nanos(), median(cpu).as_nanos());
    }
}

/// Runs one form in a process of its own.
fn measure(form: &str) -> [Duration; 2] {
    let own = std::env::current_exe().expect("this program has a path");
    let output = Command::new(own).args(["--form", form]).stderr(Stdio::null()).output();
    let text = String::from_utf8(output.expect("it runs").stdout).expect("text");
    let mut numbers = text.split_whitespace().map(|number| number.parse().expect("a number"));
    [(); 2].map(|()| Duration::from_nanos(numbers.next().expect("two numbers")))
}

fn log_lines(form: &str) {
    let telemetry = if form == "tracing-subscriber" {
        tracing_subscriber::fmt().json().flatten_event(true).with_writer(std::io::stderr).init();
        None
    } else {
        let mut config = Config::default();
        config.log.format = if form == "json" {
            inferno_shared::config::LogFormat::Json
        } else {
            inferno_shared::config::LogFormat::Human
        };
        Some(telemetry::start(&config, "inferno-bench").expect("a log"))
    };
    let line = RequestLine {
        route: "chat_completions",
        model: Some("smollm2-135m-instruct".into()),
        stream: true,
        status: 200,
        backend: Some("backend-1".into()),
        attempts: Some(1),
        duration: Duration::from_micros(123_456),
        ttfb: Some(Duration::from_micros(1_234)),
        request_bytes: 321,
        response_bytes: 12_345,
        ..RequestLine::default()
    };
    let id = http::HeaderValue::from_static("req-0123456789abcdef-1f");
    // The first line pays for what is set up once.
    line.log(&request::span(&id, &Hop::receive(None)));
    let (began, cpu_before) = (Instant::now(), cpu());
    for _ in 0..LINES {
        line.log(&request::span(&id, &Hop::receive(None)));
    }
    let wall = began.elapsed();
    // What waits is written now, and is part of the cost.
    drop(telemetry);
    let cpu = cpu() - cpu_before;
    println!("{} {}", (wall / LINES).as_nanos(), (cpu / LINES).as_nanos());
}

/// User and system time of this process.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("it knows");
    let of = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1_000)
    };
    of(usage.user_time()) + of(usage.system_time())
}
