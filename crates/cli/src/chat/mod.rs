//! A conversation with a model: its memory, and one turn after the other.

mod turn;

use serde::Serialize;
pub(crate) use turn::{ChatError, End, Turn};

use crate::api::ApiClient;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Message {
    pub(crate) role: &'static str,
    pub(crate) content: String,
}

/// What to ask for with every message. `None` is left out: the server's default holds.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Settings {
    pub(crate) model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
}

/// A conversation: all of it is sent with each message, for the server keeps none of it.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    pub(crate) settings: Settings,
    system: Option<String>,
    messages: Vec<Message>,
}

/// The body of `POST /v1/chat/completions`.
#[derive(Serialize)]
struct Request<'a> {
    #[serde(flatten)]
    settings: &'a Settings,
    messages: &'a [Message],
    stream: bool,
    stream_options: StreamOptions,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl Conversation {
    pub(crate) fn new(settings: Settings, system: Option<String>) -> Self {
        let mut conversation = Self { settings, system, messages: Vec::new() };
        conversation.clear();
        conversation
    }

    /// Forgets all but the system message.
    pub(crate) fn clear(&mut self) {
        let system = self.system.iter().cloned();
        self.messages = system.map(|content| Message { role: "system", content }).collect();
    }

    /// Says something, hears the answer, and keeps both. `show` gets the text as it comes. An
    /// interrupted answer is kept as far as it came; an empty or failed one takes its question
    /// with it.
    pub(crate) async fn say(
        &mut self,
        client: &ApiClient,
        text: String,
        show: &mut dyn FnMut(&str) -> std::io::Result<()>,
    ) -> Result<Turn, ChatError> {
        self.messages.push(Message { role: "user", content: text });
        let outcome = turn::take(client, &self.request(), show).await;
        match &outcome {
            Ok(turn) if !turn.text.is_empty() => {
                let content = turn.text.clone();
                self.messages.push(Message { role: "assistant", content });
            }
            _ => self.messages.truncate(self.messages.len() - 1),
        }
        outcome
    }

    fn request(&self) -> serde_json::Value {
        serde_json::json!(Request {
            settings: &self.settings,
            messages: &self.messages,
            stream: true,
            stream_options: StreamOptions { include_usage: true },
        })
    }
}

#[cfg(test)]
mod tests;
