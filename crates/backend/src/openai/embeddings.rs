//! `POST /v1/embeddings`: texts in, vectors out.
//!
//! Longer texts than the model looks at are refused with their number of tokens; sentence-transformers would cut
//! them without a word. Token ids are taken as they are: the marks that the tokenizer puts around a text
//! (`[CLS]`, `[SEP]`) have to be among them.

use super::{errors::ApiError, fields::Fields};
use crate::{exchange::Exchange, metrics::Observed};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use inferno_engine::{
    Embedder, Finish, FinishReason,
    embed::{EmbedError, Embedded, Embedding},
};
use serde::{Deserialize, Serialize, Serializer};
use tracing::Span;

/// `"text"`, `[1,2]`, `["text"]` or `[[1,2]]`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a string, an array of token ids, or an array of one of these")]
enum Input {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    Lists(Vec<Vec<u32>>),
}

/// How a vector is written.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    /// As JSON numbers.
    #[default]
    Float,
    /// Single-precision floats, little-endian, in base64 (RFC 4648, section 4).
    Base64,
}

/// A request as it was read.
#[derive(Debug)]
struct Prepared {
    texts: Vec<Vec<u32>>,
    encoding: Encoding,
}

/// Answers a request of this body.
pub async fn answer(
    embedder: &Embedder,
    body: Bytes,
    exchange: &mut Exchange,
) -> Result<Bytes, ApiError> {
    let handle = embedder.clone();
    let (embedding, encoding, tokens) = off_thread(move || submit(&handle, &body)).await?;
    exchange.submitted(&embedder.info().id, tokens);
    let embedded = embedding.finished().await?;
    exchange.saw(Observed::Finish(&Finish {
        reason: FinishReason::Stop,
        prompt_tokens: embedded.prompt_tokens,
        completion_tokens: 0,
        cached_tokens: 0,
        timings: embedded.timings,
    }));
    let handle = embedder.clone();
    off_thread(move || Ok(write(&handle, &embedded, encoding))).await
}

/// Tokenizing and writing many texts takes its time: not on a thread that serves connections. A panic in there
/// ends this request alone.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let span = Span::current();
    let work = tokio::task::spawn_blocking(move || span.in_scope(work));
    work.await.unwrap_or_else(|_| Err(ApiError::internal()))
}

fn submit(embedder: &Embedder, body: &[u8]) -> Result<(Embedding, Encoding, usize), ApiError> {
    let Prepared { texts, encoding } = prepare(embedder, Fields::parse(body)?)?;
    let tokens = texts.iter().map(Vec::len).sum();
    Ok((embedder.submit(texts).map_err(refusal)?, encoding, tokens))
}

fn prepare(embedder: &Embedder, mut fields: Fields) -> Result<Prepared, ApiError> {
    let model: String = fields.require("model")?;
    let input: Input = fields.require("input")?;
    let encoding = fields.take::<Encoding>("encoding_format")?.unwrap_or_default();
    let dimensions = fields.take::<usize>("dimensions")?;
    fields.finish()?;
    super::require_model(embedder.info(), &model)?;
    if dimensions.is_some_and(|dimensions| dimensions != embedder.dimensions()) {
        let message = format!(
            "this model's embeddings have {} dimensions and cannot be shortened",
            embedder.dimensions()
        );
        return Err(ApiError::invalid("unsupported_parameter", "dimensions", message));
    }
    let texts = match input {
        Input::Text(text) => embedder.encode(&[text]).map_err(refusal)?,
        Input::Texts(texts) => embedder.encode(&texts).map_err(refusal)?,
        // An empty array is no text of no tokens, but no text.
        Input::Ids(ids) if ids.is_empty() => Vec::new(),
        Input::Ids(ids) => vec![ids],
        Input::Lists(lists) => lists,
    };
    Ok(Prepared { texts, encoding })
}

fn refusal(error: EmbedError) -> ApiError {
    let message = error.to_string();
    match error {
        EmbedError::TooLong { .. } => {
            ApiError::invalid("context_length_exceeded", "input", message)
        }
        EmbedError::Backlog { .. } => ApiError::unavailable("queue_full", message),
        EmbedError::Submit(error) => error.into(),
        EmbedError::Count { .. }
        | EmbedError::Empty { .. }
        | EmbedError::TooManyBytes { .. }
        | EmbedError::UnknownToken { .. }
        | EmbedError::Tokenizer { .. } => ApiError::invalid("invalid_value", "input", message),
    }
}

/// OpenAI's list object.
#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Item<'a>>,
    model: &'a str,
    usage: Usage,
    /// Beside what OpenAI has: which vectors are comparable to the last bit.
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<String>,
}

#[derive(Serialize)]
struct Item<'a> {
    object: &'static str,
    index: usize,
    embedding: Vector<'a>,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

struct Vector<'a> {
    numbers: &'a [f32],
    encoding: Encoding,
}

impl Serialize for Vector<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.encoding {
            Encoding::Float => self.numbers.serialize(serializer),
            Encoding::Base64 => {
                let bytes: Vec<u8> = self.numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
                serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
            }
        }
    }
}

fn write(embedder: &Embedder, embedded: &Embedded, encoding: Encoding) -> Bytes {
    let vectors = embedded.vectors.iter().enumerate();
    let data = vectors.map(|(index, numbers)| Item {
        object: "embedding",
        index,
        embedding: Vector { numbers, encoding },
    });
    let list = List {
        object: "list",
        data: data.collect(),
        model: &embedder.info().id,
        usage: Usage {
            prompt_tokens: embedded.prompt_tokens,
            total_tokens: embedded.prompt_tokens,
        },
        system_fingerprint: embedder.fingerprint().map(|fingerprint| fingerprint.to_string()),
    };
    // Strings and finite numbers: the serialiser has nothing to fail on.
    serde_json::to_vec(&list).unwrap_or_default().into()
}
