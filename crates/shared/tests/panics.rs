//! A panic in a real process: one line that says where, and nothing of what it quotes.

use inferno_shared::{Config, MetricsCollector, config::LogFormat, telemetry};
use std::{env, process::Command, thread};

/// Makes this program the process that panics.
const CHILD: &str = "PANICS_CHILD";
const CANARY: &str = "kanarienvogel";

/// Not a test of itself: what the other one runs in a process of its own.
#[test]
#[expect(clippy::print_stdout, reason = "the other process reads it")]
fn child() {
    if env::var_os(CHILD).is_none() {
        return;
    }
    let mut config = Config::default();
    config.log.format = LogFormat::Json;
    let telemetry = telemetry::start(&config, "inferno-test").expect("a log");
    let slices = || {
        let prompt = format!("{CANARY}ö");
        assert_eq!(prompt[..CANARY.len() + 1].len(), 0);
    };
    let says = || panic!("no slot is free");
    let formats = || {
        let prompt = format!("{CANARY}!");
        panic!("lost {prompt}")
    };
    for panic in [Box::new(slices) as Box<dyn FnOnce() + Send>, Box::new(says), Box::new(formats)] {
        let thread = thread::Builder::new().name("worker".into()).spawn(panic);
        thread.expect("a thread").join().expect_err("it panics");
    }
    let metrics = MetricsCollector::new();
    telemetry::register_metrics(metrics.registry()).expect("new names");
    println!("{}", metrics.prometheus_text(&metrics.vitals()));
    drop(telemetry);
}

#[test]
fn a_panic_says_where_and_quotes_nothing() {
    let own = env::current_exe().expect("this program has a path");
    let output = Command::new(own)
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, "1")
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("it runs");
    let log = String::from_utf8(output.stderr).expect("text");
    let metrics = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{log}");
    assert!(!log.contains(CANARY) && !metrics.contains(CANARY), "{log}");
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("only lines of ours")).collect();
    assert_eq!(lines.len(), 3, "{log}");
    for line in &lines {
        assert_eq!((&line["level"], &line["message"]), (&"ERROR".into(), &"panic".into()));
        assert_eq!(line["thread"], "worker");
        assert!(line["location"].as_str().expect("text").contains(".rs:"), "{line}");
        assert!(line.get("backtrace").is_none(), "only where it is asked for: {line}");
    }
    assert_eq!(lines[1]["reason"], "no slot is free");
    assert!(lines[0]["location"].as_str().expect("text").contains("panics.rs"), "{log}");
    assert!(metrics.contains("\ninferno_panics_total 3\n"), "{metrics}");
}
