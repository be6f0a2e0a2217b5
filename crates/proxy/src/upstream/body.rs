//! Response bodies (RFC 9112 §6.2, §7.1), pure: bytes in, body pieces out, no copy.

use super::CodecError;
use bytes::{Bytes, BytesMut};
use std::io;

/// What ends every line.
const LINE_BREAK: &[u8] = b"\r\n";
/// Longest chunk-size line with its extensions and its break, bytes.
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
        let length_max = match self.0 {
            State::ChunkSize => SIZE_LINE_BYTES_MAX,
            State::ChunkEnd => LINE_BREAK.len(),
            State::Trailers(read) => TRAILER_BYTES_MAX - read,
            _ => return Ok(true),
        };
        let Some(line) = first_line(input, length_max)? else { return Ok(false) };
        self.0 = match self.0 {
            State::Trailers(_) if line == LINE_BREAK => State::Done,
            State::Trailers(read) => State::Trailers(read + line.len()),
            State::ChunkSize => match chunk_size(line)? {
                0 => State::Trailers(0),
                size => State::ChunkData(size),
            },
            _ => State::ChunkSize,
        };
        let _ = input.split_to(line.len());
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

/// The line that `input` begins with and its break; `None`: it is not whole yet. A line that ends
/// otherwise, or is longer than `length_max`, is an error: what another parser reads in another way
/// could hide an answer in a body.
fn first_line(input: &[u8], length_max: usize) -> Result<Option<&[u8]>, CodecError> {
    let seen = &input[..input.len().min(length_max)];
    match seen.iter().position(|&byte| byte == b'\n').map(|end| &seen[..=end]) {
        Some(line) if line.ends_with(LINE_BREAK) => Ok(Some(line)),
        None if seen.len() < length_max => Ok(None),
        _ => Err(CodecError::Chunk),
    }
}

/// The size in a whole chunk-size line. No digit is no size, which `httparse` takes for size 0, and
/// so for the body's end.
fn chunk_size(line: &[u8]) -> Result<u64, CodecError> {
    match httparse::parse_chunk_size(line) {
        Ok(httparse::Status::Complete((_, size))) if line[0].is_ascii_hexdigit() => Ok(size),
        _ => Err(CodecError::Chunk),
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
            // No digit is no size, not size 0: that would end the body.
            b"3\r\nabc\r\n\r\n\r\n",
            b";x\r\n\r\n",
            b" \r\n\r\n",
            // Lines end in both, whatever stands in them.
            b"3;x\nabc\r\n0\r\n\r\n",
            b"0\r\n\n",
            b"0\r\n \r\n",
            b"0\r\nt: x\n\r\n",
        ] {
            assert!(
                read(BodyDecoder::chunked(), wire, &[1]).is_err(),
                "{}",
                String::from_utf8_lossy(wire)
            );
        }
        let long = format!("0;{}\r\n\r\n", "x".repeat(SIZE_LINE_BYTES_MAX));
        assert!(read(BodyDecoder::chunked(), long.as_bytes(), &[4096]).is_err());
        let endless = [b"0\r\n".as_slice(), &b"t: x\r\n".repeat(TRAILER_BYTES_MAX)].concat();
        assert!(read(BodyDecoder::chunked(), &endless, &[4096]).is_err());
    }
}
