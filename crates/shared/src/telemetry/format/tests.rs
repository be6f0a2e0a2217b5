use super::*;
use std::sync::{Arc, Mutex};
use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lines").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// What `log` logs as JSON, and for people.
fn both(log: impl Fn(), colours: bool) -> (String, String) {
    let origin = Origin { service: "inferno-test", node_id: "node-1".into() };
    let (json, human) = (Lines::default(), Lines::default());
    let layer = || tracing_subscriber::fmt::layer().with_writer(json.clone());
    let subscriber = tracing_subscriber::registry()
        .with(layer().fmt_fields(JsonFields).event_format(Json::new(&origin)));
    tracing::subscriber::with_default(subscriber, &log);
    let layer = tracing_subscriber::fmt::layer().with_writer(human.clone()).with_ansi(colours);
    let layer = layer.fmt_fields(HumanFields).event_format(Human);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), &log);
    let text =
        |lines: Lines| String::from_utf8(lines.0.lock().expect("lines").clone()).expect("UTF-8");
    (text(json), text(human))
}

#[test]
fn a_line_is_one_flat_object_with_its_spans_fields() {
    let log = || {
        let span = tracing::error_span!("request", request_id = "req-1", trace_id = %"4bf9");
        let _inside = span.enter();
        let nothing: Option<u64> = None;
        tracing::warn!(
            target: "inferno_test",
            count = 3,
            ratio = 0.5,
            odd = f64::NAN,
            gone = true,
            backend = %"b-1",
            nothing,
            "it \"happened\""
        );
    };
    let (json, human) = both(log, false);
    assert!(json.ends_with("}\n") && json.lines().count() == 1, "{json}");
    let line: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let names: Vec<&String> = line.as_object().expect("an object").keys().collect();
    assert_eq!(
        names,
        [
            "timestamp",
            "level",
            "message",
            "target",
            "service",
            "node_id",
            "request_id",
            "trace_id",
            "count",
            "ratio",
            "odd",
            "gone",
            "backend"
        ]
    );
    let expected = serde_json::json!({
        "timestamp": line["timestamp"], "level": "WARN", "message": "it \"happened\"",
        "target": "inferno_test", "service": "inferno-test", "node_id": "node-1",
        "request_id": "req-1", "trace_id": "4bf9", "count": 3, "ratio": 0.5, "odd": "NaN",
        "gone": true, "backend": "b-1"
    });
    assert_eq!(line, expected);
    let timestamp = line["timestamp"].as_str().expect("text");
    let form: String =
        timestamp.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(form, "0000-00-00T00:00:00.000000Z");
    assert_eq!(
        &human[12..],
        " WARN  it \"happened\" count=3 ratio=0.5 odd=NaN gone=true backend=b-1 request_id=req-1 trace_id=4bf9\n"
    );
}

#[test]
fn nothing_can_begin_another_line_or_steer_a_terminal() {
    let log = || tracing::info!(error = %"a\n{\"level\":\"ERROR\"}\u{1b}[2J", spaced = "a b", none = "", "m\u{1b}[31m\nx");
    let (json, human) = both(log, false);
    assert_eq!((json.lines().count(), human.lines().count()), (1, 1), "{json}{human}");
    let control = |text: &str| text.trim_end().chars().any(char::is_control);
    assert!(!control(&json) && !control(&human), "{json}{human}");
    assert!(human.contains(r#"spaced="a b" none="""#), "{human}");
    assert!(human.contains(r"m\u{1b}[31m\nx"), "{human}");
}

#[test]
fn colours_come_only_where_they_are_wanted() {
    let log = || tracing::info!(a = 1, "m");
    let escape = '\u{1b}';
    assert!(both(log, true).1.contains(escape));
    assert!(!both(log, false).1.contains(escape));
}
