//! Conversations with a server on loopback that says what a test tells it to.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::api::testing::{STREAM, event, nobody, server, streamed, whole};

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
    let answers = vec![streamed(&[event("To"), event("kyo")]), streamed(&[event("Yes")])];
    let (url, seen) = server(answers).await;
    let client = ApiClient::new(&url, None).unwrap();
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
    assert_eq!(seen.lock().unwrap()[1].body, expected);
    conversation.clear();
    assert_eq!(conversation.messages.len(), 1);
}

#[tokio::test]
async fn a_failed_answer_takes_its_question_with_it() {
    let error = r#"{"error":{"message":"the prompt is too long","type":"t","code":"c"}}"#;
    let refused = whole("400 Bad Request", error);
    let lost = format!("{STREAM}{}data: {error}\n\n", event("half"));
    let torn = format!("{STREAM}{}", event("half"));
    let (url, _) = server(vec![refused, lost, torn]).await;
    let client = ApiClient::new(&url, None).unwrap();
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
    let url = nobody().await;
    let error = ApiClient::new(&url, None).unwrap().models().await.unwrap_err().to_string();
    assert!(error.contains("inferno up") && error.contains(&url), "{error}");
}

#[tokio::test]
async fn models_are_listed() {
    let list = r#"{"object":"list","data":[{"id":"a"},{"id":"b"}]}"#;
    let (url, _) = server(vec![whole("200 OK", list)]).await;
    let client = ApiClient::new(&url, None).unwrap();
    assert_eq!(client.models().await.unwrap(), ["a", "b"]);
}
