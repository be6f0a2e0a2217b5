//! A client's stream that knows whether all that was said on it has left the process.
//!
//! An HTTP/1 request is done when its answer is written. An HTTP/2 request is done when its answer
//! is queued: the connection's task writes it when it is polled, as fast as the client reads, and
//! tells nobody when that is over.

use crate::wrapped::wraps_a_stream;
use pingora_core::protocols::Stream;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes were given to a stream, or refused by it, since it was last flushed to the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unwritten(Arc<AtomicBool>);

impl Unwritten {
    /// There are such bytes.
    pub(crate) fn is_any(&self) -> bool {
        self.0.load(SeqCst)
    }
}

/// A stream that notes what is [`Unwritten`], and otherwise is the one in it.
#[derive(Debug)]
pub(crate) struct Noting {
    stream: Stream,
    unwritten: Unwritten,
}

impl Noting {
    pub(crate) fn new(stream: Stream) -> (Self, Unwritten) {
        let unwritten = Unwritten::default();
        (Self { stream, unwritten: unwritten.clone() }, unwritten)
    }
}

impl AsyncWrite for Noting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.unwritten.0.store(true, SeqCst);
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unwritten.0.store(true, SeqCst);
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.unwritten.0.store(false, SeqCst);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncRead for Noting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

wraps_a_stream!(Noting);
