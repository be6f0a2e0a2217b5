//! A client's HTTP/1 stream, as Pingora reads and writes it, with two things that it does not do.
//!
//! *Small writes leave together.* Pingora writes the head of an answer and then its body. Each write to a socket costs
//! about as much as everything else that is done for a small answer, so what is written here waits for the flush that
//! ends a body or a chunk, or for more than is worth copying, which then leaves with it. It does not wait for a
//! backend: whoever waits for one listens whether the client is still there, and who reads lets go of it.
//!
//! *A header has a limit.* Pingora collects up to a mebibyte of one, and parses from its beginning whenever some of it
//! comes: memory and time that a client could take for every connection. Its limit cannot be set, so the stream ends.

use crate::wrapped::wraps_a_stream;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::Stream;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most that waits, bytes: a head and a short body.
const WAITING_BYTES_MAX: usize = 2048;

/// A stream that holds back small writes until it is flushed, gives no more bytes than it may, and otherwise is the one
/// in it.
#[derive(Debug)]
pub(crate) struct ClientStream {
    stream: Stream,
    waiting: BytesMut,
    /// Bytes it may still give before it fails; the last read may give more.
    left: AtomicUsize,
}

impl ClientStream {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, waiting: BytesMut::new(), left: AtomicUsize::new(usize::MAX) }
    }

    /// From here on it gives about `bytes` and then fails; `usize::MAX`: it does not.
    pub(crate) fn bound(&self, bytes: usize) {
        self.left.store(bytes, Relaxed);
    }

    /// It has given all that it may.
    pub(crate) fn is_spent(&self) -> bool {
        self.left.load(Relaxed) == 0
    }

    /// Keeps what `slices` hold, if it is short. Says how much that is.
    fn keep(&mut self, slices: &[IoSlice<'_>]) -> Option<usize> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        let fits = self.waiting.len() + length <= WAITING_BYTES_MAX;
        fits.then(|| {
            slices.iter().for_each(|slice| self.waiting.extend_from_slice(slice));
            length
        })
    }

    /// Writes what waits, and with it as much of `more` as the socket takes. Says how much of `more` that is,
    /// once nothing waits.
    fn write_out(
        &mut self,
        context: &mut Context<'_>,
        more: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        while !self.waiting.is_empty() {
            let mut all = [IoSlice::new(&[]); 4];
            all[0] = IoSlice::new(&self.waiting);
            let others = more.len().min(all.len() - 1);
            all[1..=others].copy_from_slice(&more[..others]);
            let written = Pin::new(&mut self.stream).poll_write_vectored(context, &all[..=others]);
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if written >= self.waiting.len() {
                let of_more = written - self.waiting.len();
                // A stream that is silent for an hour needs no memory for it.
                self.waiting = BytesMut::new();
                return Poll::Ready(Ok(of_more));
            }
            self.waiting.advance(written);
        }
        Poll::Ready(Ok(0))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(kept) = self.keep(slices) {
            return Poll::Ready(Ok(kept));
        }
        match ready!(self.write_out(context, slices))? {
            0 => Pin::new(&mut self.stream).poll_write_vectored(context, slices),
            of_these => Poll::Ready(Ok(of_these)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_out(context, &[]))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_out(context, &[]))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.write_out(context, &[]) {
            return Poll::Ready(Err(error));
        }
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

wraps_a_stream!(ClientStream);

#[cfg(test)]
mod tests {
    use super::*;
    use pingora_core::protocols::l4;
    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    async fn pair() -> (ClientStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("open");
        let (server, _) = listener.accept().await.expect("connected");
        (ClientStream::new(Box::new(l4::stream::Stream::from(server))), client)
    }

    #[tokio::test]
    async fn a_head_waits_for_its_body() {
        let (mut stream, client) = pair().await;
        stream.write_all(b"head").await.expect("kept");
        assert!(client.try_read(&mut [0; 8]).is_err(), "nothing was sent");
        stream.write_all(b"body").await.expect("kept");
        stream.flush().await.expect("sent");
        client.readable().await.expect("open");
        let mut read = [0; 16];
        assert_eq!(client.try_read(&mut read).expect("both at once"), 8);
        assert_eq!(stream.waiting.capacity(), 0, "no memory is held");
    }

    #[tokio::test]
    async fn nothing_waits_while_the_client_is_listened_to() {
        let (mut stream, mut client) = pair().await;
        stream.write_all(b"head").await.expect("kept");
        let mut said = [0; 2];
        let listen = stream.read_exact(&mut said);
        let answer = async {
            client.read_exact(&mut [0; 4]).await.expect("the head");
            client.write_all(b"ok").await.expect("open");
        };
        let (heard, ()) = tokio::join!(listen, answer);
        heard.expect("open");
    }

    #[tokio::test]
    async fn a_long_body_takes_the_head_along() {
        let (mut stream, mut client) = pair().await;
        stream.write_all(b"head").await.expect("kept");
        stream.write_all(&[b'x'; WAITING_BYTES_MAX]).await.expect("sent");
        let mut read = vec![0; 4 + WAITING_BYTES_MAX];
        client.read_exact(&mut read).await.expect("all, without a flush");
        assert!(read.starts_with(b"headx"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_byte_arrives_once_and_in_order(
            pieces in proptest::collection::vec((1usize..9_000, any::<bool>()), 1..60),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let (mut stream, mut client) = pair().await;
                let total: usize = pieces.iter().map(|(length, _)| length).sum();
                let all: Vec<u8> = (0..total).map(|at| (at % 251) as u8).collect();
                let sent = all.clone();
                let write = async move {
                    let mut rest = &sent[..];
                    for (length, flush) in pieces {
                        let (piece, after) = rest.split_at(length);
                        // In two slices, as a chunk comes.
                        let (one, two) = piece.split_at(length / 3);
                        let mut chunk = bytes::Buf::chain(one, two);
                        stream.write_all_buf(&mut chunk).await.expect("open");
                        if flush {
                            stream.flush().await.expect("open");
                        }
                        rest = after;
                    }
                    AsyncWriteExt::shutdown(&mut stream).await.expect("open");
                };
                let mut read = Vec::new();
                let (_, came) = tokio::join!(write, client.read_to_end(&mut read));
                came.expect("open");
                assert!(read == all, "{} of {total}", read.len());
            });
        }
    }
}
