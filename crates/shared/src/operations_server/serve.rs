//! Accepting and serving connections, within limits that no client can stretch.

use super::{Context, counted};
use crate::tls::ServerTls;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};
use tokio_io_timeout::TimeoutStream;

/// Larger headers are answered 431.
pub(super) const HEADER_BYTES_MAX: usize = 16 << 10;

/// How much of a client the server puts up with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// A header must have come within this time, and a connection may idle as long.
    pub(super) header: Duration,
    /// The body of a registration must have come within this time after its header.
    pub(super) body: Duration,
    /// A client that takes nothing of an answer for this long is cut off.
    pub(super) write: Duration,
    /// Connections served at once; more wait in the listen queue.
    pub(super) connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(10),
            body: Duration::from_secs(5),
            write: Duration::from_secs(10),
            connections: 1_024,
        }
    }
}

/// Accepts until told to stop. Each connection is a task; the semaphore bounds them.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<ServerTls>,
    context: Arc<Context>,
    mut shutdown: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let slots = Arc::new(Semaphore::new(context.limits.connections));
    // A sender that was dropped without a word is a server that shall go on.
    let mut told_to_stop = std::pin::pin!(async {
        if (&mut shutdown).await.is_err() {
            std::future::pending::<()>().await;
        }
    });
    loop {
        let accepted = tokio::select! {
            () = &mut told_to_stop => return Ok(()),
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, caller, slot)) => {
                let (context, tls) = (Arc::clone(&context), tls.clone());
                tokio::spawn(async move {
                    serve_stream(stream, tls, caller, context).await;
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: wait for some to be given back.
                tracing::warn!(%error, "operations server could not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &tokio::net::TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, caller) = listener.accept().await?;
    Ok((stream, caller, slot))
}

/// Speaks TLS first if this node does.
async fn serve_stream(
    stream: TcpStream,
    tls: Option<ServerTls>,
    caller: SocketAddr,
    context: Arc<Context>,
) {
    let _ = stream.set_nodelay(true);
    let limits = context.limits;
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write));
    let stream = Box::pin(stream);
    let Some(tls) = tls else { return serve_connection(stream, caller, context).await };
    match tokio::time::timeout(limits.header, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => serve_connection(stream, caller, context).await,
        Ok(Err(error)) => tracing::debug!(%caller, %error, "no TLS with this client"),
        Err(_) => tracing::debug!(%caller, "the client did not finish its TLS handshake"),
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    caller: SocketAddr,
    context: Arc<Context>,
) {
    let limits = context.limits;
    let service = hyper::service::service_fn(move |request| {
        let context = Arc::clone(&context);
        async move {
            Ok::<_, std::convert::Infallible>(counted::answer(&context, caller, request).await)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%caller, %error, "operations connection ended");
    }
}
