//! A saved answer and the request it answers, in the forms in which people save them.

use super::answer::Answer;
use serde_json::{Map, Value};

/// Why a file is of no use.
#[derive(Debug, thiserror::Error, PartialEq)]
pub(crate) enum SavedError {
    #[error("it is neither JSON nor the events of a stream (lines that begin with `data:`)")]
    NotAnAnswer,
    #[error("the event in line {line} is not JSON")]
    Event { line: usize },
    #[error("the stream has no [DONE] at its end: the answer broke off")]
    BrokenOff,
    #[error("it holds an answer without its request: give that with --request")]
    NoRequest,
    #[error("it holds a request of its own: leave out --request")]
    TwoRequests,
    #[error("the request is not a JSON object with `messages` or `prompt`")]
    NotARequest,
    #[error("the answer has no choices")]
    NoChoices,
    #[error("what was saved is an error, not an answer: {0}")]
    Failed(String),
    #[error("the answer tells no seed, and the request has none: it cannot be asked for again")]
    NoSeed,
}

/// A request and its answer.
#[derive(Debug)]
pub(crate) struct Saved {
    /// Where it was sent.
    pub(crate) path: &'static str,
    request: Map<String, Value>,
    pub(crate) answer: Answer,
}

impl Saved {
    /// Reads `{"request": …, "response": …}`, or an answer whose request is in a file of its own. The response is
    /// an object, the text of a stream's events, or an array of them.
    pub(crate) fn read(file: &str, request: Option<&str>) -> Result<Self, SavedError> {
        let whole: Option<Value> = serde_json::from_str(file).ok();
        let pair = whole.as_ref().filter(|value| value.get("response").is_some());
        let (request, objects) = match (pair, request) {
            (Some(_), Some(_)) => return Err(SavedError::TwoRequests),
            (Some(pair), None) => (pair["request"].clone(), objects(&pair["response"])?),
            (None, None) => return Err(SavedError::NoRequest),
            (None, Some(request)) => {
                let request = serde_json::from_str(request).map_err(|_| SavedError::NotARequest)?;
                let objects = match whole {
                    Some(answer) => objects(&answer)?,
                    None => events(file)?,
                };
                (request, objects)
            }
        };
        let Value::Object(request) = request else { return Err(SavedError::NotARequest) };
        let path = match (request.contains_key("messages"), request.contains_key("prompt")) {
            (true, false) => "/v1/chat/completions",
            (false, true) => "/v1/completions",
            _ => return Err(SavedError::NotARequest),
        };
        Ok(Self { path, request, answer: Answer::of(&objects)? })
    }

    /// The same request in one piece, with the seed that was in use.
    pub(crate) fn again(&self) -> Result<Value, SavedError> {
        let mut request = self.request.clone();
        request.remove("stream");
        request.remove("stream_options");
        if let Some(seed) = &self.answer.seed {
            request.insert("seed".into(), seed.clone());
        } else if !request.get("seed").is_some_and(Value::is_number) {
            return Err(SavedError::NoSeed);
        }
        Ok(Value::Object(request))
    }
}

fn objects(response: &Value) -> Result<Vec<Value>, SavedError> {
    match response {
        Value::Object(_) => Ok(vec![response.clone()]),
        Value::Array(events) => Ok(events.clone()),
        Value::String(text) => events(text),
        _ => Err(SavedError::NotAnAnswer),
    }
}

/// The events of a stream as `curl` shows them.
fn events(text: &str) -> Result<Vec<Value>, SavedError> {
    let lines = text.lines().zip(1..);
    let data = lines.filter_map(|(text, line)| Some((text.strip_prefix("data:")?.trim(), line)));
    let (mut objects, mut is_whole, mut any) = (Vec::new(), false, false);
    for (event, line) in data {
        any = true;
        if event == "[DONE]" {
            is_whole = true;
            break;
        }
        objects.push(serde_json::from_str(event).map_err(|_| SavedError::Event { line })?);
    }
    match (any, is_whole) {
        (false, _) => Err(SavedError::NotAnAnswer),
        // An error inside a stream is its last event, and says more than that it broke off.
        (true, false) if objects.iter().all(|object: &Value| object.get("error").is_none()) => {
            Err(SavedError::BrokenOff)
        }
        _ => Ok(objects),
    }
}
