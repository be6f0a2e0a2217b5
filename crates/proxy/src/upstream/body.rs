//! Response bodies (RFC 9112 §6.2, §7.1), pure: bytes in, body pieces out, no copy.

use super::CodecError;
use bytes::{Bytes, BytesMut};
use std::io;

/// Longest chunk-size line with its extensions, bytes.
const SIZE_LINE_BYTES_MAX: usize = 1024;
/// All trailers together, bytes. They are dropped, but have to be read.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// Where in a body its reader stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BodyDecoder(State);

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// So many bytes are missing.
    Sized(u64),
    /// A chunk-size line comes next.
    ChunkSize,
    /// So many bytes of this chunk are missing.
    ChunkData(u64),
    /// The line break after a chunk comes next.
    ChunkEnd,
    /// Trailers up to a blank line; so many bytes of them were read.
    Trailers(usize),
    /// The end of the connection is the end of the body.
    UntilClose,
    /// Nothing is missing.
    Done,
}

impl BodyDecoder {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self(State::Done)
    }

    /// `content-length`.
    pub(crate) fn sized(length: u64) -> Self {
        Self(if length == 0 { State::Done } else { State::Sized(length) })
    }

    /// `transfer-encoding: chunked`.
    pub(crate) fn chunked() -> Self {
        Self(State::ChunkSize)
    }

    /// Neither: up to the end of the connection.
    pub(crate) fn until_close() -> Self {
        Self(State::UntilClose)
    }

    /// The body was read to its end.
    pub(crate) fn is_done(&self) -> bool {
        self.0 == State::Done
    }

    /// The body's end can be told from a broken connection.
    pub(crate) fn is_delimited(&self) -> bool {
        self.0 != State::UntilClose
    }

    /// The length, where it is known before the first byte was read.
    pub(crate) fn known_length(&self) -> Option<u64> {
        match self.0 {
            State::Sized(length) => Some(length),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// The next piece of body in `input`; `None`: more input is needed, or [`Self::is_done`].
    pub(crate) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        loop {
            match self.0 {
                State::Done => return Ok(None),
                _ if input.is_empty() => return Ok(None),
                State::UntilClose => return Ok(Some(input.split().freeze())),
                State::Sized(missing) => {
                    let (piece, missing) = take(input, missing);
                    self.0 = if missing == 0 { State::Done } else { State::Sized(missing) };
                    return Ok(Some(piece));
                }
                State::ChunkData(missing) => {
                    let (piece, missing) = take(input, missing);
                    self.0 = if missing == 0 { State::ChunkEnd } else { State::ChunkData(missing) };
                    return Ok(Some(piece));
                }
                State::ChunkSize | State::ChunkEnd | State::Trailers(_) => {
                    if !self.advance(input)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Reads past one line of chunked framing; false: it is not whole yet.
    fn advance(&mut self, input: &mut BytesMut) -> Result<bool, CodecError> {
        let (length, next) = match self.0 {
            State::ChunkSize => {
                match httparse::parse_chunk_size(input).map_err(|_| CodecError::Chunk)? {
                    httparse::Status::Complete((length, 0)) => (length, State::Trailers(0)),
                    httparse::Status::Complete((length, size)) => (length, State::ChunkData(size)),
                    httparse::Status::Partial if input.len() > SIZE_LINE_BYTES_MAX => {
                        return Err(CodecError::Chunk);
                    }
                    httparse::Status::Partial => return Ok(false),
                }
            }
            State::ChunkEnd => match &input[..] {
                [b'\r', b'\n', ..] => (2, State::ChunkSize),
                [b'\r'] => return Ok(false),
                _ => return Err(CodecError::Chunk),
            },
            State::Trailers(read) => match input.iter().position(|&byte| byte == b'\n') {
                Some(end) if input[..end].trim_ascii().is_empty() => (end + 1, State::Done),
                Some(end) => (end + 1, State::Trailers(read + end + 1)),
                None if read + input.len() > TRAILER_BYTES_MAX => return Err(CodecError::Chunk),
                None => return Ok(false),
            },
            _ => return Ok(true),
        };
        if matches!(next, State::Trailers(read) if read > TRAILER_BYTES_MAX) {
            return Err(CodecError::Chunk);
        }
        let _ = input.split_to(length);
        self.0 = next;
        Ok(true)
    }

    /// The connection ended. An error unless that is, or may be, the body's end.
    pub(crate) fn end_of_input(&mut self) -> io::Result<()> {
        if self.is_done() || self.0 == State::UntilClose {
            self.0 = State::Done;
            return Ok(());
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Up to `missing` bytes off the front, and how many are missing then.
fn take(input: &mut BytesMut, missing: u64) -> (Bytes, u64) {
    let length = usize::try_from(missing).unwrap_or(usize::MAX).min(input.len());
    (input.split_to(length).freeze(), missing - length as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `wire` in pieces of the given sizes, repeated; the body and what was left over.
    fn read(
        mut decoder: BodyDecoder,
        wire: &[u8],
        sizes: &[usize],
    ) -> Result<(Vec<u8>, Vec<u8>), CodecError> {
        let (mut input, mut body, mut rest) = (BytesMut::new(), Vec::new(), wire);
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*size).clamp(1, rest.len()));
            input.extend_from_slice(piece);
            rest = after;
            while let Some(piece) = decoder.decode(&mut input)? {
                body.extend_from_slice(&piece);
            }
        }
        if decoder.end_of_input().is_err() {
            return Err(CodecError::Chunk);
        }
        Ok((body, input.to_vec()))
    }

    proptest! {
        #[test]
        fn a_chunked_body_survives_any_cutting(
            body in proptest::collection::vec(any::<u8>(), 0..4000),
            chunks in proptest::collection::vec(1usize..900, 1..8),
            reads in proptest::collection::vec(1usize..700, 1..8),
        ) {
            let (mut wire, mut rest) = (Vec::new(), &body[..]);
            for size in chunks.iter().cycle() {
                if rest.is_empty() { break; }
                let (chunk, after) = rest.split_at((*size).min(rest.len()));
                wire.extend_from_slice(format!("{:x};ext=1\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
                rest = after;
            }
            wire.extend_from_slice(b"0\r\ntrailer: x\r\n\r\nNEXT");
            let (read_body, left) = read(BodyDecoder::chunked(), &wire, &reads).expect("valid");
            prop_assert_eq!(read_body, body);
            prop_assert_eq!(left, b"NEXT".to_vec());
        }
    }

    #[test]
    fn a_sized_body_stops_at_its_length() {
        let (body, left) = read(BodyDecoder::sized(3), b"abcNEXT", &[2]).expect("valid");
        assert_eq!((body.as_slice(), left.as_slice()), (b"abc".as_slice(), b"NEXT".as_slice()));
    }

    #[test]
    fn a_torn_body_is_an_error_unless_its_end_is_the_connections() {
        assert!(read(BodyDecoder::sized(4), b"abc", &[9]).is_err());
        assert!(read(BodyDecoder::chunked(), b"5\r\nabc", &[9]).is_err());
        assert!(read(BodyDecoder::chunked(), b"3\r\nabc\r\n", &[9]).is_err());
        assert!(read(BodyDecoder::until_close(), b"abc", &[9]).is_ok());
    }

    #[test]
    fn broken_chunks_are_refused() {
        for wire in [
            &b"xyz\r\n"[..],
            b"3\r\nabcd\r\n",
            b"-1\r\n",
            b"fffffffffffffffff\r\n",
            b"3\r\nabcX\n0\r\n\r\n",
        ] {
            assert!(
                read(BodyDecoder::chunked(), wire, &[1]).is_err(),
                "{}",
                String::from_utf8_lossy(wire)
            );
        }
        let endless = [b"0\r\n".as_slice(), &b"t: x\r\n".repeat(TRAILER_BYTES_MAX)].concat();
        assert!(read(BodyDecoder::chunked(), &endless, &[4096]).is_err());
    }
}
