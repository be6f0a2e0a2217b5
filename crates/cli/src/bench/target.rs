//! What is put under load.

use std::future::Future;

use bytes::Bytes;

use super::failure::Failure;
use super::template::Endpoint;
use super::watch::{Answer, Watch};
use crate::api::{ApiClient, ApiError};

/// Something that answers requests. In service that is an endpoint; in tests a script with the clock
/// in its hand, so that latencies are exact.
pub(super) trait Target: Send + Sync + 'static {
    /// Sends one request and tells `watch` of each event with content. Dropping it ends the request.
    fn ask(
        &self,
        body: Bytes,
        watch: &mut Watch,
    ) -> impl Future<Output = Result<Answer, Failure>> + Send;
}

/// An endpoint of an OpenAI-compatible API.
pub(super) struct ApiTarget {
    pub(super) client: ApiClient,
    pub(super) endpoint: Endpoint,
    pub(super) stream: bool,
}

impl Target for ApiTarget {
    async fn ask(&self, body: Bytes, watch: &mut Watch) -> Result<Answer, Failure> {
        let answer =
            if self.stream { self.streamed(body, watch).await } else { self.whole(body).await };
        answer.map_err(Failure::from)
    }
}

impl ApiTarget {
    async fn streamed(&self, body: Bytes, watch: &mut Watch) -> Result<Answer, ApiError> {
        let mut events = self.client.stream(self.endpoint.path(), body).await?;
        let mut answer = Answer::default();
        while let Some(chunk) = events.next().await? {
            if chunk.has_content() {
                watch.content();
            }
            answer.usage = chunk.usage.or(answer.usage);
            let mut reasons = chunk.choices.into_iter().filter_map(|choice| choice.finish_reason);
            answer.finish_reason = reasons.next().or(answer.finish_reason);
        }
        watch.end();
        events.finish().await;
        Ok(answer)
    }

    async fn whole(&self, body: Bytes) -> Result<Answer, ApiError> {
        let chunk = self.client.whole(self.endpoint.path(), body).await?;
        let finish_reason = chunk.choices.into_iter().find_map(|choice| choice.finish_reason);
        Ok(Answer { usage: chunk.usage, finish_reason })
    }
}

#[cfg(test)]
mod tests;
