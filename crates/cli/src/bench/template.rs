//! The JSON that is sent.

use bytes::Bytes;
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::workload::{Ask, Content};

/// Which of the API's two generating endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Endpoint {
    /// /v1/chat/completions
    Chat,
    /// /v1/completions
    Completions,
}

impl Endpoint {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
        }
    }
}

/// What all requests of a run have in common.
#[derive(Clone, Debug)]
pub(super) struct Template {
    endpoint: Endpoint,
    fields: Map<String, Value>,
    extra: Map<String, Value>,
}

impl Template {
    /// Fields of `extra` replace ours; `null` takes a field out.
    pub(super) fn new(
        endpoint: Endpoint,
        model: &str,
        stream: bool,
        extra: Map<String, Value>,
    ) -> Self {
        let mut fields = Map::new();
        fields.insert("model".into(), model.into());
        if stream {
            fields.insert("stream".into(), true.into());
            fields.insert("stream_options".into(), json!({ "include_usage": true }));
        }
        Self { endpoint, fields, extra }
    }

    /// The body of one request.
    pub(super) fn body(&self, ask: Ask) -> Bytes {
        let mut fields = self.fields.clone();
        fields.insert("max_tokens".into(), ask.max_tokens.into());
        let (name, content) = match (self.endpoint, ask.content) {
            (Endpoint::Chat, Content::Text(text)) => {
                ("messages", json!([{ "role": "user", "content": text }]))
            }
            (Endpoint::Completions, Content::Text(text)) => ("prompt", text.into()),
            (_, Content::Messages(messages)) => ("messages", messages),
        };
        fields.insert(name.into(), content);
        for (name, value) in &self.extra {
            match value {
                Value::Null => fields.remove(name),
                value => fields.insert(name.clone(), value.clone()),
            };
        }
        Value::Object(fields).to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(endpoint: Endpoint, stream: bool, extra: Value, content: Content) -> Value {
        let Value::Object(extra) = extra else { panic!("an object") };
        let ask = Ask { content, max_tokens: 5, prompt_tokens: None };
        let body = Template::new(endpoint, "m", stream, extra).body(ask);
        serde_json::from_slice(&body).expect("JSON")
    }

    #[test]
    fn each_endpoint_gets_its_own_shape() {
        let text = || Content::Text("Hi".into());
        assert_eq!(
            sent(Endpoint::Chat, true, json!({}), text()),
            json!({"model": "m", "stream": true, "stream_options": {"include_usage": true},
                   "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]})
        );
        assert_eq!(
            sent(Endpoint::Completions, false, json!({}), text()),
            json!({"model": "m", "max_tokens": 5, "prompt": "Hi"})
        );
        let messages = json!([{"role": "system", "content": "x"}]);
        let chat = sent(Endpoint::Chat, false, json!({}), Content::Messages(messages.clone()));
        assert_eq!(chat["messages"], messages);
    }

    #[test]
    fn extra_fields_replace_and_null_removes() {
        let extra = json!({"max_tokens": null, "max_completion_tokens": 9, "temperature": 0});
        assert_eq!(
            sent(Endpoint::Completions, false, extra, Content::Text("Hi".into())),
            json!({"model": "m", "prompt": "Hi", "max_completion_tokens": 9, "temperature": 0})
        );
    }
}
