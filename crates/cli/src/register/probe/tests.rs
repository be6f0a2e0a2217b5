use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const LIST: &str = r#"{"object":"list","data":[{"id":"m","owned_by":"them"}]}"#;

/// A stand-in for an engine: answers each path as `script` says, with status and body; none: not at all.
async fn engine(script: fn(&str) -> Option<(u16, String)>) -> EngineUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a request"));
                }
                let head = String::from_utf8(head).expect("text");
                let path = head.split(' ').nth(1).expect("a path").to_owned();
                assert!(!head.contains("x-inferno-"), "{head}");
                let Some((status, body)) = script(&path) else {
                    return std::future::pending().await;
                };
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}");
                drop(stream.write_all(answer.as_bytes()).await);
            });
        }
    });
    at.to_string().parse().expect("an address")
}

fn prober(url: EngineUrl, is_named: bool) -> Prober {
    Prober::new(url, Duration::from_secs(20), is_named)
}

fn said(outcome: Result<Seen, Failure>) -> String {
    outcome.expect_err("a failure").to_string()
}

#[tokio::test]
async fn a_healthy_engine_tells_models_and_load() {
    let url = engine(|path| {
        let body = match path {
            "/health" => "",
            "/v1/models" => LIST,
            _ => "llamacpp:requests_processing 1\nllamacpp:requests_deferred 2\n",
        };
        Some((200, body.into()))
    });
    let url = url.await;
    let mut prober = prober(url.clone(), false);
    let seen = prober.round().await.expect("it is well");
    assert_eq!(seen.address.port(), url.port);
    assert_eq!(seen.listed.expect("asked at first").models[0].id, "m");
    assert_eq!(seen.load.expect("told").waiting, 2);
    for round in 1..MODELS_EVERY {
        assert!(prober.round().await.expect("well").listed.is_none(), "{round}");
    }
    assert!(prober.round().await.expect("well").listed.is_some(), "its list may have changed");
}

#[tokio::test]
async fn an_engine_without_a_health_page_is_asked_for_its_models() {
    let url = engine(|path| match path {
        "/v1/models" => Some((200, LIST.into())),
        _ => Some((404, "404 page not found".into())),
    });
    let mut prober = prober(url.await, false);
    for _ in 0..2 {
        let seen = prober.round().await.expect("it is well");
        assert!(seen.listed.is_some() && seen.load.is_none());
    }
    let bare = engine(|_| Some((404, String::new()))).await;
    assert!(Prober::new(bare.clone(), Duration::from_secs(20), true).round().await.is_ok());
    assert!(said(super::tests::prober(bare, false).round().await).contains("404"));
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    let loading = engine(|_| Some((503, r#"{"error":{"message":"Loading model"}}"#.into()))).await;
    let error = said(prober(loading, false).round().await);
    assert_eq!(error, "GET /health is answered 503 Service Unavailable: Loading model");
    let empty = engine(|_| Some((200, r#"{"data":[]}"#.into()))).await;
    assert!(said(prober(empty, false).round().await).contains("lists no model"));
    let key = engine(|path| Some((if path == "/health" { 200 } else { 401 }, String::new()))).await;
    assert!(said(prober(key, false).round().await).contains("API key"));
    let page = engine(|_| Some((200, "<html>".into()))).await;
    assert!(said(prober(page, false).round().await).contains("--model NAME"));
    let ours = engine(|_| Some((200, r#"{"data":[{"id":"m","owned_by":"inferno"}]}"#.into())));
    assert!(matches!(prober(ours.await, false).round().await, Err(Failure::Ours)));
    let silent = engine(|_| None).await;
    let mut impatient = Prober::new(silent, Duration::from_millis(50), false);
    assert!(said(impatient.round().await).contains("within 50 ms"));
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr();
    let closed: EngineUrl = closed.expect("bound").to_string().parse().expect("an address");
    assert!(matches!(prober(closed, false).round().await, Err(Failure::Refused)));
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    let url = engine(|path| match path {
        "/v1/models" => Some((200, " ".repeat(ANSWER_BYTES_MAX + 1))),
        _ => Some((200, String::new())),
    });
    assert!(said(prober(url.await, false).round().await).contains("length limit exceeded"));
}
