//! From a request to a backend that answers it: choosing, connecting, and when to try another.
//!
//! - A node that failed is not asked again for the same request.
//! - A connection that could not be made cost the backend nothing: the next candidate is asked.
//! - A backend that took the request and ended the connection without a byte may have begun on it.
//!   Generation changes nothing there, so for the endpoints we know it is asked of
//!   `proxy.retry.replays_max` others: few, for a request that kills backends must not go round the
//!   fleet.
//! - Whoever has answered a byte, or is merely slow, is not overtaken.
//! - All retries together have a budget, and who fails in a row is left alone for a while ([`crate::retry`]).

use crate::{
    admission::Need,
    attempt::{Attempt, Attempts},
    error::RequestError,
    metrics::ProxyMetrics,
    prompt::{self, PromptHashes},
    retry::{Budget, Outliers},
    routing::{Candidates, Fleet, Opinion, Policy, Prompt, RouteRequest, Ticket},
    upstream::{
        Connection, Incarnation, NodeFields, OutgoingRequest, PULSE, Pool, Response, Retry,
        UpstreamError,
    },
};
use inferno_shared::{
    config::{ProxyConfig, ProxyRetry},
    membership::{CandidateList, InFlight, NodeState, NodeView, Snapshot},
};
use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// What a request is routed by.
#[derive(Debug, Default)]
pub(crate) struct RouteKeys {
    /// The model asked for, under its own name.
    pub(crate) model: String,
    /// The alias that it was asked for by.
    pub(crate) alias: Option<String>,
    /// What its prompt has in common with others.
    pub(crate) prompt: PromptHashes,
    /// The tokens it may take.
    pub(crate) need: Need,
    /// Its session, hashed.
    pub(crate) session: Option<u64>,
}

impl RouteKeys {
    fn request(&self, now: Duration) -> RouteRequest<'_> {
        let PromptHashes { blocks, tokens } = &self.prompt;
        let prompt = Prompt { blocks, block_tokens: prompt::BLOCK_TOKENS, tokens: *tokens };
        RouteRequest {
            now,
            model: prompt::name(self.model.as_bytes()),
            prompt,
            session: self.session,
        }
    }
}

/// Brings requests to backends.
pub(crate) struct Dispatcher {
    fleet: Arc<dyn Fleet>,
    policy: Arc<dyn Policy>,
    /// When time began for the policy.
    origin: Instant,
    pool: Pool,
    connect: Duration,
    first_byte: Duration,
    retry: ProxyRetry,
    budget: Budget,
    outliers: Outliers,
    metrics: Arc<ProxyMetrics>,
}

/// One of those that could be asked.
pub(crate) struct Explained {
    pub(crate) node: Arc<NodeView>,
    /// What the policy thinks of it.
    pub(crate) opinion: Opinion,
    /// It is left alone now, for it failed requests.
    pub(crate) is_ejected: bool,
}

/// An answer that has begun, and the node that gives it.
pub(crate) struct Answer {
    /// The attempt that led to it.
    attempt: Attempt,
    /// The answer.
    pub(crate) response: Response,
    /// The policy waits to hear of it.
    pub(crate) ticket: Ticket,
    _in_flight: InFlight,
}

impl Answer {
    /// Who answers.
    pub(crate) fn node(&self) -> &Arc<NodeView> {
        self.attempt.node()
    }
}

impl Dispatcher {
    pub(crate) fn new(
        fleet: Arc<dyn Fleet>,
        policy: Arc<dyn Policy>,
        config: &ProxyConfig,
        metrics: Arc<ProxyMetrics>,
    ) -> Self {
        Self {
            fleet,
            policy,
            origin: Instant::now(),
            pool: Pool::default(),
            connect: Duration::from_millis(config.timeouts.connect_ms),
            first_byte: Duration::from_millis(config.timeouts.first_byte_ms),
            retry: config.retry.clone(),
            budget: Budget::new(config.retry.budget),
            outliers: Outliers::new(&config.retry),
            metrics,
        }
    }

    /// The members now.
    pub(crate) fn members(&self) -> Arc<Snapshot> {
        self.fleet.snapshot()
    }

    /// The time, as the policy has it.
    pub(crate) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// What the policy thinks of everyone who could be asked, and who they are.
    pub(crate) fn opinions(&self, keys: &RouteKeys) -> Result<Vec<Explained>, RequestError> {
        let list = candidates(&self.members(), keys)?;
        let ejected = self.outliers.ejected(self.now(), &list);
        let candidates = Candidates { list: &list, tried: &[] };
        let opinions = self.policy.opinions(&keys.request(self.now()), candidates);
        let explained = |opinion: Opinion| Explained {
            node: Arc::clone(&list.candidates[opinion.index].node),
            is_ejected: ejected.contains(&opinion.index),
            opinion,
        };
        Ok(opinions.into_iter().map(explained).collect())
    }

    /// Sends `outgoing` to a backend that serves the model, and others after it where that is safe,
    /// until one answers. Dropping the future drops the connection, and with it the request.
    pub(crate) async fn dispatch(
        &self,
        keys: &RouteKeys,
        outgoing: &OutgoingRequest,
        attempts: &mut Attempts,
    ) -> Result<Answer, RequestError> {
        let members = self.members();
        self.pool.retain(&members);
        let (list, mut tried) = (candidates(&members, keys)?, Vec::new());
        // Those that are left alone: asked if all others have failed.
        let mut ejected = self.outliers.ejected(self.now(), &list);
        tried.extend(&ejected);
        self.budget.earn();
        let mut unanswered = 0;
        // Somebody is left: there was at first, and the last candidate's failure is final.
        loop {
            let request = keys.request(self.now());
            let candidates = Candidates { list: &list, tried: &tried };
            let Some(pick) = self.policy.pick(&request, candidates) else { break };
            tried.push(pick.index);
            if let Some(cached) = pick.cached_tokens {
                self.metrics.routed_tokens.inc_by(keys.prompt.tokens.into());
                self.metrics.routed_cached_tokens.inc_by(cached.into());
            }
            let node = &list.candidates[pick.index].node;
            let ticket = Ticket::new(&self.policy, request.model, &pick);
            let in_flight = node.load.acquire();
            let mut attempt = attempts.begin(node);
            self.metrics.attempts.inc();
            let error = match self.ask_while_there(&attempt, outgoing).await {
                Ok(response) => {
                    attempt.answered(response.head.status);
                    return Ok(Answer { attempt, response, ticket, _in_flight: in_flight });
                }
                Err(error) => error,
            };
            self.note(&mut attempt, &error);
            unanswered += usize::from(error.retry() == Retry::Replay);
            let safe = match error.retry() {
                Retry::Free => true,
                Retry::Replay => outgoing.replayable && unanswered <= self.retry.replays_max,
                Retry::No => false,
            };
            if tried.len() == list.candidates.len() {
                tried.retain(|index| !ejected.contains(index));
                ejected.clear();
            }
            let is_last = tried.len() == list.candidates.len();
            if !safe || is_last || attempts.count as usize == self.retry.attempts_max {
                return Err(error.into());
            }
            if !self.budget.spend(self.now()) {
                self.metrics.budget_spent.inc();
                return Err(RequestError::BudgetSpent(error));
            }
            self.metrics.retries.inc();
        }
        Err(RequestError::NoBackends)
    }

    /// Keeps the connection of a finished answer.
    pub(crate) fn release(&self, answer: Answer) {
        self.outliers.answered(Incarnation::from(&**answer.attempt.node()));
        if let Some(connection) = answer.response.into_connection() {
            self.pool.put(Incarnation::from(&**answer.attempt.node()), connection);
        }
        answer.attempt.completed();
    }

    /// One node's answer, unless the membership loses the node before that: then it hangs, or its machine is gone,
    /// and nothing else would tell for a long time.
    async fn ask_while_there(
        &self,
        attempt: &Attempt,
        outgoing: &OutgoingRequest,
    ) -> Result<Response, UpstreamError> {
        let mut asked = pin!(self.ask(attempt, outgoing));
        loop {
            match timeout(PULSE, asked.as_mut()).await {
                Ok(answered) => return answered,
                Err(_) if self.is_gone(attempt.node()) => return Err(UpstreamError::Gone),
                Err(_) => {}
            }
        }
    }

    /// Whether the membership has lost that incarnation.
    pub(crate) fn is_gone(&self, node: &NodeView) -> bool {
        self.members().get(&node.id).is_none_or(|known| {
            known.generation != node.generation || known.state == NodeState::Gone
        })
    }

    /// One node's answer.
    ///
    /// A connection that went stale in the pool is not the node's failure: a new one is tried. But
    /// if none can be had, the node may have taken the request and died of it, and that is what
    /// counts. A request that may change something gets a connection that cannot have gone stale.
    async fn ask(
        &self,
        attempt: &Attempt,
        outgoing: &OutgoingRequest,
    ) -> Result<Response, UpstreamError> {
        let node = &**attempt.node();
        let left =
            outgoing.until.map(|until| until.saturating_duration_since(Instant::now().into()));
        let patience = left.map_or(self.first_byte, |left| left.min(self.first_byte));
        let fields = NodeFields::of(node, attempt.traceparent());
        let pooled = self.pool.take(&node.into(), outgoing.may_reuse);
        let mut unanswered = None;
        if let Some(connection) = pooled {
            match connection.exchange(outgoing, &fields, patience).await {
                Err(error @ UpstreamError::Unanswered(_)) if outgoing.replayable => {
                    unanswered = Some(error);
                }
                answered => return answered,
            }
        }
        match Connection::open(node.address, self.connect).await {
            Ok(connection) => connection.exchange(outgoing, &fields, patience).await,
            Err(error) => {
                if matches!(error, UpstreamError::ConnectRefused) {
                    self.fleet.report_connect_refused(&node.id, node.generation);
                }
                Err(unanswered.unwrap_or(error))
            }
        }
    }

    /// A backend was lost in the middle of its answer.
    pub(crate) fn note_lost(&self, answer: &mut Answer, error: &RequestError) {
        if let RequestError::Upstream(error) = error {
            self.note(&mut answer.attempt, error);
        }
    }

    fn note(&self, attempt: &mut Attempt, error: &UpstreamError) {
        attempt.failed(error.kind());
        let node = attempt.node();
        tracing::warn!(backend = %node.id, address = %node.address, %error, "backend failed a request");
        self.metrics.upstream_error(error.kind());
        if let Some(time) = self.outliers.failed(self.now(), Incarnation::from(&**node), error) {
            self.metrics.ejections.inc();
            let for_ms = time.as_millis() as u64;
            tracing::warn!(backend = %node.id, for_ms, "backend left alone: it failed requests in a row");
        }
    }
}

/// Who may get a request of `keys`, at least one, or the reason why nobody may.
fn candidates(members: &Snapshot, keys: &RouteKeys) -> Result<Arc<CandidateList>, RequestError> {
    let model = keys.model.as_str();
    // A client is told of what it asked for: what that stands for is not its business.
    let named = || keys.alias.as_deref().unwrap_or(model).to_owned();
    if let Some(candidates) = members.candidates(model) {
        Ok(Arc::clone(candidates))
    } else if members.members().next().is_none() {
        Err(RequestError::NoBackends)
    } else if members.has_model(model) {
        Err(RequestError::ModelUnavailable { model: named() })
    } else {
        Err(RequestError::UnknownModel { model: named() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admission::Lobby, routing::tests as routing};
    use http::{HeaderMap, Method};
    use inferno_shared::{MetricsCollector, config::RoutingPolicy, membership::ReportedLoad};
    use std::net::{Ipv4Addr, SocketAddr};
    use tokio::{io::AsyncReadExt, net::TcpListener};

    #[tokio::test]
    async fn who_took_the_request_and_cannot_be_reached_any_more_may_have_begun_on_it() {
        let config = ProxyConfig::default();
        let (collector, lobby) = (MetricsCollector::new(), Lobby::new(&config.limits));
        let fleet = Arc::new(routing::Still::default());
        let metrics = ProxyMetrics::new(&collector, fleet.clone(), &lobby).expect("new");
        let policy = crate::routing::policy(RoutingPolicy::RoundRobin);
        let dispatcher = Dispatcher::new(fleet, policy, &config, metrics);
        // TCP goes to one host, so the system refuses this address without asking anyone.
        let address = SocketAddr::from((Ipv4Addr::BROADCAST, 9));
        let node = NodeView { address, ..routing::node(0, ReportedLoad::default()) };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a listener");
        let address = listener.local_addr().expect("its address");
        let kept = Connection::open(address, dispatcher.connect).await.expect("a connection");
        let (mut backend, _) = listener.accept().await.expect("the same");
        dispatcher.pool.put(Incarnation::from(&node), kept);
        let dies = tokio::spawn(async move { backend.read(&mut [0; 1024]).await });
        let outgoing =
            OutgoingRequest::new(&Method::POST, "/", HeaderMap::new().iter(), "{}".into(), true);
        let hop = inferno_shared::telemetry::spans::Hop::receive(None);
        let attempt = Attempts::new(hop, "POST").begin(&Arc::new(node));
        let error = dispatcher.ask(&attempt, &outgoing).await.expect_err("it died");
        assert!(matches!(error, UpstreamError::Unanswered(_)), "{error}");
        assert!(dies.await.expect("it ran").expect("it read") > 0);
    }
}
