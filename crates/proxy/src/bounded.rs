//! A client's HTTP/1 stream that gives no more bytes than a header may have while one is read.
//!
//! Pingora collects up to a mebibyte of a header, and parses from its beginning whenever some of it comes: memory and
//! time that a client could take for every connection. Its limit cannot be set, so the stream ends instead.

use async_trait::async_trait;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest,
};
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that gives a stated number of bytes, and otherwise is the one in it.
#[derive(Debug)]
pub(crate) struct Bounded {
    stream: Stream,
    /// Bytes it may still give before it fails; the last read may give more.
    left: AtomicUsize,
}

impl Bounded {
    /// Without a bound.
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, left: AtomicUsize::new(usize::MAX) }
    }

    /// From here on it gives about `bytes` and then fails; `usize::MAX`: it does not.
    pub(crate) fn bound(&self, bytes: usize) {
        self.left.store(bytes, Relaxed);
    }

    /// It has given all that it may.
    pub(crate) fn is_spent(&self) -> bool {
        self.left.load(Relaxed) == 0
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.left.load(Relaxed);
        if left == 0 {
            return Poll::Ready(Err(io::Error::other("a header over its limit")));
        }
        let before = into.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, into));
        if left != usize::MAX {
            self.bound(left.saturating_sub(into.filled().len() - before));
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[async_trait]
impl Shutdown for Bounded {
    async fn shutdown(&mut self) {
        self.stream.shutdown().await;
    }
}

#[async_trait]
impl Peek for Bounded {
    async fn try_peek(&mut self, into: &mut [u8]) -> io::Result<bool> {
        self.stream.try_peek(into).await
    }
}

impl UniqueID for Bounded {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

/// Whether there is TLS below decides nothing any more: the protocol is known.
impl Ssl for Bounded {}

impl GetTimingDigest for Bounded {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }
}

impl GetProxyDigest for Bounded {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }
}

impl GetSocketDigest for Bounded {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }
}
