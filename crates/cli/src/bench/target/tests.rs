//! Real HTTP from a scripted server: each way to fail is counted under its own name.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::api::testing::{STREAM, event, nobody, server, streamed, whole};
use crate::bench::failure::ErrorKind;
use crate::bench::figures::Figures;
use crate::bench::runner::{Loader, Prepared, Stop};
use crate::bench::watch::Recorder;

/// Asks once and gives what was measured.
async fn ask(url: &str, stream: bool) -> Figures {
    let client = ApiClient::new(url, Some("sk-secret")).expect("an address");
    let target = ApiTarget { client, endpoint: Endpoint::Chat, stream };
    let recorder = Recorder::new(Figures::default());
    let loader = Loader {
        target: std::sync::Arc::new(target),
        recorder: recorder.clone(),
        timeout: Duration::from_secs(60),
    };
    let body = json!({"model": "m"}).to_string();
    let prepare = move |_| Prepared { body: body.clone().into(), prompt_tokens: None };
    loader.closed_loop(1, Stop { requests: Some(1), at: None }, prepare).await;
    recorder.figures().clone()
}

#[tokio::test]
async fn a_stream_is_counted_by_its_usage_and_its_events() {
    let role = r#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}"#;
    let end = r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    let events = [format!("{role}\n\n"), event("a"), event("bc"), format!("{end}\n\n")];
    let (url, seen) = server(vec![streamed(&events)]).await;
    let figures = ask(&url, true).await;
    assert_eq!((figures.completed, figures.failed), (1, 0), "{:?}", figures.errors);
    assert_eq!((figures.tokens.prompt, figures.tokens.completion), (9, 3));
    assert_eq!(
        (figures.tokens.events, figures.ttft.count(), figures.inter_token.count()),
        (2, 1, 1)
    );
    assert_eq!(figures.finish_reasons["stop"], 1);
    let seen = seen.lock().expect("seen")[0].clone();
    assert_eq!(seen.head[0], "post /v1/chat/completions http/1.1");
    assert!(seen.head.contains(&"authorization: bearer sk-secret".to_owned()));
    assert_eq!(seen.body, json!({"model": "m"}));
}

#[tokio::test]
async fn a_whole_answer_has_an_end_but_no_first_token() {
    let body = r#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"length"}],"usage":{"prompt_tokens":4,"completion_tokens":2}}"#;
    let (url, _) = server(vec![whole("200 OK", body)]).await;
    let figures = ask(&url, false).await;
    assert_eq!((figures.completed, figures.end_to_end.count(), figures.ttft.count()), (1, 1, 0));
    assert_eq!((figures.tokens.prompt, figures.tokens.completion), (4, 2));
    assert_eq!(figures.finish_reasons["length"], 1);
}

#[tokio::test]
async fn each_way_to_fail_has_its_own_name() {
    let error = r#"{"error":{"message":"what the server said"}}"#;
    let torn_chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nda";
    let endless = format!("{STREAM}data: {}", "x".repeat(2 << 20));
    for (answer, kind, example) in [
        (whole("404 Not Found", error), ErrorKind::Http4xx, "what the server said"),
        (whole("429 Too Many Requests", error), ErrorKind::Http429, "what the server said"),
        (whole("503 Service Unavailable", error), ErrorKind::Http5xx, "what the server said"),
        (whole("302 Found", ""), ErrorKind::HttpOther, "302 Found"),
        (format!("{STREAM}{}data: {error}\n\n", event("a")), ErrorKind::ErrorEvent, "what the"),
        (format!("{STREAM}{}", event("a")), ErrorKind::NoDone, "without [DONE]"),
        (torn_chunk.to_owned(), ErrorKind::Broken, "broke off"),
        (String::new(), ErrorKind::Broken, "broke off"),
        ("SSH-2.0-OpenSSH\r\n".to_owned(), ErrorKind::Broken, "broke off"),
        (format!("{STREAM}data: <html>\n\n"), ErrorKind::Malformed, "OpenAI-compatible"),
        (endless, ErrorKind::TooLarge, "1048576 bytes"),
    ] {
        let (url, _) = server(vec![answer.clone()]).await;
        let figures = ask(&url, true).await;
        let shown = answer.chars().take(80).collect::<String>();
        let kinds: Vec<_> = figures.errors.keys().copied().collect();
        assert_eq!((kinds, figures.failed, figures.completed), (vec![kind], 1, 0), "{shown}");
        let found = &figures.errors[&kind].example;
        assert!(found.contains(example), "{shown}: {found}");
    }
    let figures = ask(&nobody().await, true).await;
    assert_eq!(figures.errors[&ErrorKind::Connect].count, 1);
}

#[tokio::test]
async fn a_server_that_repeats_our_key_does_not_get_it_into_the_report() {
    let error = r#"{"error":{"message":"incorrect API key: sk-secret"}}"#;
    let (url, _) = server(vec![whole("401 Unauthorized", error)]).await;
    let figures = ask(&url, true).await;
    assert_eq!(figures.errors[&ErrorKind::Http4xx].example, "incorrect API key: [key]");
}
