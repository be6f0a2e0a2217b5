//! Conversations with a server on loopback that says what a test tells it to.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;

const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

/// Answers one request per element of `answers`; keeps the bodies.
async fn server(answers: Vec<String>) -> (ApiClient, Arc<Mutex<Vec<serde_json::Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let record = bodies.clone();
    tokio::spawn(async move {
        for answer in answers {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut length = 0;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                match line.trim().to_lowercase().split_once(": ") {
                    Some(("content-length", value)) => length = value.parse().unwrap(),
                    Some(_) => {}
                    None if line.trim().is_empty() => break,
                    None => {}
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            record.lock().unwrap().push(serde_json::from_slice(&body).unwrap_or_default());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (ApiClient::new(&url, None).unwrap(), bodies)
}

fn event(content: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}}}}]}}\n\n")
}

fn answer(events: &[String]) -> String {
    let usage = r#"data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}"#;
    format!("{STREAM}{}{usage}\n\ndata: [DONE]\n\n", events.concat())
}

fn conversation() -> Conversation {
    let settings = Settings { model: "m".into(), seed: Some(7), ..Settings::default() };
    Conversation::new(settings, Some("Be brief.".into()))
}

async fn say(
    conversation: &mut Conversation,
    client: &ApiClient,
    text: &str,
) -> (Result<Turn, ChatError>, String) {
    let mut shown = String::new();
    let mut show = |text: &str| {
        shown.push_str(text);
        Ok(())
    };
    let outcome = conversation.say(client, text.to_owned(), &mut show).await;
    (outcome, shown)
}

#[tokio::test]
async fn an_answer_is_shown_counted_and_remembered() {
    let answers = vec![answer(&[event("To"), event("kyo")]), answer(&[event("Yes")])];
    let (client, bodies) = server(answers).await;
    let mut conversation = conversation();
    let (turn, shown) = say(&mut conversation, &client, "Capital of Japan?").await;
    let turn = turn.unwrap();
    assert_eq!((turn.text.as_str(), shown.as_str(), turn.end), ("Tokyo", "Tokyo", End::Complete));
    assert!(turn.summary().starts_with("3 tokens"), "{}", turn.summary());
    say(&mut conversation, &client, "Sure?").await.0.unwrap();
    let expected = serde_json::json!({
        "model": "m",
        "seed": 7,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Capital of Japan?"},
            {"role": "assistant", "content": "Tokyo"},
            {"role": "user", "content": "Sure?"},
        ],
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    assert_eq!(bodies.lock().unwrap()[1], expected);
    conversation.clear();
    assert_eq!(conversation.messages.len(), 1);
}

#[tokio::test]
async fn a_failed_answer_takes_its_question_with_it() {
    let error = r#"{"error":{"message":"the prompt is too long","type":"t","code":"c"}}"#;
    let refused =
        format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{error}", error.len());
    let lost = format!("{STREAM}{}data: {error}\n\n", event("half"));
    let torn = format!("{STREAM}{}", event("half"));
    let (client, _) = server(vec![refused, lost, torn]).await;
    let mut conversation = conversation();
    for (text, shown_before) in
        [("the prompt is too long", ""), ("the prompt is too long", "half"), ("broke off", "half")]
    {
        let (outcome, shown) = say(&mut conversation, &client, "Hi").await;
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        assert_eq!(shown, shown_before);
        assert_eq!(conversation.messages.len(), 1, "only the system message is left");
    }
}

#[tokio::test]
async fn nobody_there_says_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = ApiClient::new(&url, None).unwrap().models().await.unwrap_err().to_string();
    assert!(error.contains("inferno up") && error.contains(&url), "{error}");
}

#[tokio::test]
async fn models_are_listed() {
    let list = r#"{"object":"list","data":[{"id":"a"},{"id":"b"}]}"#;
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{list}", list.len());
    let (client, _) = server(vec![answer]).await;
    assert_eq!(client.models().await.unwrap(), ["a", "b"]);
}
