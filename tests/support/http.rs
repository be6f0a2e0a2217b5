//! As little HTTP/1.1 as a benchmark's client needs: its own time must not be what is measured.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

/// A `GET` on a connection that stays open.
#[must_use]
pub fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: benchmark\r\n{headers}\r\n").into_bytes()
}

/// How long the answer is that begins `bytes`, once its head is there. Answers have a length here;
/// one that has none ends with its head.
#[must_use]
pub fn answer_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Some(head + length.unwrap_or(0))
}

/// Whether an answer begins with status 200.
#[must_use]
pub fn is_ok(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200 ")
}

/// A connection that is asked one thing after another.
pub struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    pub fn open(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, answer: Vec::with_capacity(64 << 10) })
    }

    /// Sends `request` and reads the whole answer.
    ///
    /// # Errors
    /// If the connection breaks.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<&[u8]> {
        self.stream.write_all(request)?;
        self.answer.clear();
        let mut chunk = [0; 16 << 10];
        while answer_length(&self.answer).is_none_or(|length| self.answer.len() < length) {
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.answer.extend_from_slice(&chunk[..read]),
            }
        }
        Ok(&self.answer)
    }
}
