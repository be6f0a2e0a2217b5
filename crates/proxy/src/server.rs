//! The traffic port: connections are accepted here and served by [`crate::workers`], over Pingora's sessions.
//!
//! Neither Pingora's `Server` nor its `Service` is used. The first ends the process when it stops, waits a
//! fixed time whether or not something runs, and then cuts what does. The second serves each connection on
//! the runtime that accepted it, and we have several.

use crate::{
    admission::Lobby,
    app::Gateway,
    client_stream::ClientStream,
    drain::Drain,
    keys::{Keys, KeysError},
    limits::Connections,
    metrics::ProxyMetrics,
    routing::Fleet,
    tls::Tls,
    transform::{Transform, TransformError},
    unwritten::Noting,
    workers::{self, Workers},
};
use async_trait::async_trait;
use inferno_shared::{
    MetricsCollector,
    config::ProxyConfig,
    listener::{self, BindError},
    reload::Reloadable,
    tls::TlsError,
};
use nix::libc::{EMFILE, ENFILE};
use pingora_core::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp},
    protocols::{Stream, http::ServerSession, l4},
    server::ShutdownWatch,
};
use std::{
    fmt, future::poll_fn, io, net::SocketAddr, pin::pin, sync::Arc, task::Poll, time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

/// How long an HTTP/1 connection may wait for its next request, in seconds, as Pingora counts; clients may
/// allow less.
const KEEP_ALIVE_S: u64 = 60;
/// How long nothing is accepted when the system has no descriptor left for it: the connection stays in its
/// queue, and asking again at once would find it there, and no descriptor.
const NO_FILES_PAUSE: Duration = Duration::from_millis(100);

/// The traffic port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// The address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The listener does not know its own address.
    #[error("traffic listener: {0}")]
    Listener(#[from] io::Error),
    /// The certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The keys file or its pepper.
    #[error("proxy.keys_file: {0}")]
    Keys(#[from] KeysError),
    /// What is to be changed of requests and answers.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// A second gateway in the same collector.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The open traffic port.
#[derive(Debug)]
pub struct TrafficServer {
    address: SocketAddr,
    secured: Secured,
    patience: Duration,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    workers: Workers,
    drain: Arc<Drain>,
}

impl TrafficServer {
    /// Opens `config.listen` (port 0: any free one) and serves requests to `fleet`: accepts on the current
    /// runtime, and serves on threads of its own. What is served is counted in `metrics`.
    ///
    /// # Errors
    /// If the address or a thread cannot be had, a certificate, a key or the keys file not be used, or what is to be
    /// changed of requests and answers makes no sense.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start(
        config: &ProxyConfig,
        fleet: Arc<dyn Fleet>,
        metrics: &Arc<MetricsCollector>,
    ) -> Result<Self, TrafficError> {
        let drain = Arc::<Drain>::default();
        let lobby = Lobby::new(&config.limits);
        let metrics = ProxyMetrics::new(metrics, Arc::clone(&fleet), &lobby)?;
        let secured = Secured::load(config)?;
        let transform = Transform::new(config)?;
        let connections = Connections::new(&config.limits, Arc::clone(&metrics));
        let keys = secured.keys.clone();
        let gateway =
            Gateway::new(config, keys, transform, fleet, lobby, metrics, Arc::clone(&drain));
        let gateway = Arc::new(gateway);
        let listener = TcpListener::from_std(listener::bind(config.listen, "proxy.listen")?)?;
        let address = listener.local_addr()?;
        let (stop, stopping) = watch::channel(false);
        let patience = Duration::from_millis(config.timeouts.idle_ms);
        let tls = secured.tls.clone();
        let front_door = FrontDoor::new(gateway, tls, connections, Arc::clone(&drain), patience);
        let workers = front_door.workers(&stopping)?;
        let accepting = tokio::spawn(accept(listener, workers.clone(), stopping));
        let patience = Duration::from_millis(config.drain_timeout_ms);
        Ok(Self { address, secured, patience, stop, accepting, workers, drain })
    }

    /// Adds to `parts` what this server reads again when told to: its certificate and the API keys.
    pub fn reloaded_with(&self, parts: Reloadable) -> Reloadable {
        let Secured { keys, tls } = self.secured.clone();
        let parts = match tls {
            Some(tls) => parts.with("traffic certificate", move || tls.reload()),
            None => parts,
        };
        match keys {
            Some(keys) => parts.with("API keys", move || keys.reload()),
            None => parts,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets what runs finish within `proxy.drain_timeout_ms`, and cuts the rest.
    /// Returns how much was cut: requests, or if none ran any more, HTTP/2 connections whose client
    /// had not taken all of its answers.
    pub async fn drain(self) -> usize {
        let deadline = Instant::now() + self.patience;
        self.stop.send_replace(true);
        if let Err(error) = self.accepting.await {
            tracing::error!(%error, "the accept loop died");
        }
        let all_said = async {
            self.drain.requests.none().await;
            self.drain.connections.none().await;
        };
        if timeout_at(deadline, all_said).await.is_ok() {
            return 0;
        }
        let (running, unread) = (self.drain.requests.get(), self.drain.connections.get());
        drop(self.workers);
        self.drain.requests.none().await;
        if running > 0 { running } else { unread }
    }
}

/// What decides who gets in.
#[derive(Clone)]
pub(crate) struct Secured {
    pub(crate) keys: Option<Arc<Keys>>,
    tls: Option<Tls>,
}

impl Secured {
    /// Reads the files that `config` names.
    pub(crate) fn load(config: &ProxyConfig) -> Result<Self, TrafficError> {
        let keys = config.keys_file.as_deref().map(Keys::load).transpose()?.map(Arc::new);
        Ok(Self { keys, tls: Tls::load(&config.tls)? })
    }
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, tls } = self;
        f.debug_struct("Secured").field("keys", keys).field("tls", &tls.is_some()).finish()
    }
}

/// Accepts until `stopping`.
async fn accept(listener: TcpListener, workers: Workers, mut stopping: ShutdownWatch) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted.and_then(|(connection, _)| connection.into_std()) {
            Ok(connection) => workers.serve(connection),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) {
                    sleep(NO_FILES_PAUSE).await;
                }
            }
        }
    }
}

/// Lets connections in, as many as there may be, and finds out what they speak: TLS says it in its
/// handshake, without TLS what a connection says first decides.
///
/// Pingora looks for the HTTP/2 preface by waiting for its 24 bytes, for ever. Three tell as well,
/// for no HTTP/1 method begins with `PRI`; and none of it may take longer than an idle connection.
struct FrontDoor {
    gateway: Arc<Gateway>,
    http2: Arc<Http2>,
    tls: Option<Tls>,
    connections: Connections,
    drain: Arc<Drain>,
    patience: Duration,
}

impl FrontDoor {
    fn new(
        gateway: Arc<Gateway>,
        tls: Option<Tls>,
        connections: Connections,
        drain: Arc<Drain>,
        patience: Duration,
    ) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(patience);
        options.h2c = true;
        let http2 = Arc::new(Http2 { gateway: Arc::clone(&gateway), options });
        Self { gateway, http2, tls, connections, drain, patience }
    }

    /// Threads that stand behind it until `stopping`.
    fn workers(self, stopping: &ShutdownWatch) -> io::Result<Workers> {
        let (own, stopping) = (Arc::new(self), stopping.clone());
        Workers::start(workers::count(), move |connection| {
            let (own, stopping) = (Arc::clone(&own), stopping.clone());
            async move { own.serve(connection, &stopping).await }
        })
    }

    /// Serves one connection to its end.
    async fn serve(&self, connection: TcpStream, stopping: &ShutdownWatch) {
        let Some(_place) = self.connections.admit() else { return };
        // Answers come in small pieces that must not wait for each other (Nagle). It cannot fail on an open socket.
        let _ = connection.set_nodelay(true);
        let stream: Stream = Box::new(l4::stream::Stream::from(connection));
        let mut stop = stopping.clone();
        let opened = tokio::select! {
            biased;
            opened = tokio::time::timeout(self.patience, self.open(stream)) => opened.ok().flatten(),
            _ = stop.wait_for(|stop| *stop) => None,
        };
        match opened {
            Some((stream, true)) => self.serve_http2(stream, stopping).await,
            Some((stream, false)) => self.serve_http1(stream, stopping).await,
            None => {}
        }
    }

    /// The connection as requests come over it, and whether they come by HTTP/2. None: nothing that
    /// we speak.
    async fn open(&self, mut stream: Stream) -> Option<(Stream, bool)> {
        match &self.tls {
            Some(tls) => tls.accept(stream).await,
            None => {
                let http2 = speaks_http2(&mut stream).await.ok()?;
                Some((stream, http2))
            }
        }
    }

    /// Serves one HTTP/1 request after another. Pingora would do the same, with a future on the heap for
    /// each, into which the session is moved.
    async fn serve_http1(&self, stream: Stream, stopping: &ShutdownWatch) {
        let mut session = ServerSession::new_http1(Box::new(ClientStream::new(stream)));
        session.set_keepalive((!*stopping.borrow()).then_some(KEEP_ALIVE_S));
        while let Some(reused) = self.gateway.serve(session, stopping).await {
            let (stream, settings) = reused.consume();
            session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
        }
    }

    /// Serves an HTTP/2 connection. It holds the drain until all that it was given is written, and
    /// no longer: a client that keeps it open, and does not even answer the ping that goes with the
    /// farewell, has had what it asked for.
    async fn serve_http2(&self, stream: Stream, stopping: &ShutdownWatch) {
        let entered = self.drain.connections.enter();
        let (stream, unwritten) = Noting::new(stream);
        let mut connection = pin!(self.http2.process_new(Box::new(stream), stopping));
        let mut stop = stopping.clone();
        let requests_done = async {
            let _ = stop.wait_for(|stop| *stop).await;
            self.drain.requests.none().await;
        };
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            () = requests_done => {}
        }
        // A poll writes whatever is queued, as far as the client lets it.
        let closed = poll_fn(|context| match connection.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if unwritten.is_any() => Poll::Pending,
            Poll::Pending => Poll::Ready(false),
        });
        let closed = closed.await;
        drop(entered);
        if !closed {
            connection.await;
        }
    }
}

/// The HTTP/2 connection preface (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

async fn speaks_http2(stream: &mut Stream) -> io::Result<bool> {
    let mut first = [0; 3];
    stream.try_peek(&mut first).await?;
    if !PREFACE.starts_with(&first) {
        return Ok(false);
    }
    // All of it is here when Pingora looks for it.
    stream.try_peek(&mut [0; PREFACE.len()]).await
}

/// The gateway on HTTP/2 connections, which Pingora tells apart into requests.
struct Http2 {
    gateway: Arc<Gateway>,
    options: HttpServerOptions,
}

#[async_trait]
impl HttpServerApp for Http2 {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        stopping: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.gateway.serve(session, stopping).await
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
