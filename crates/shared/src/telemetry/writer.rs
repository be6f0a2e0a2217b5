//! The way of a finished line to standard error: through a bounded buffer and a thread of its own.
//!
//! Whoever reads standard error may be slow, or gone. A request must not wait for it, so a line is
//! copied under a lock that is held for nothing else, and a line that finds the buffer full is
//! dropped and counted. The thread takes the whole buffer at once and writes it in pieces of whole
//! lines that are no longer than what a pipe takes at once: lines of two processes on one pipe do
//! not mix. Lines of requests wait a moment for others: waking the thread for each of them would cost more than
//! the request's line does (`benches/gateway`).
//!
//! Own code, and not `tracing-appender`: its limit counts lines and not bytes, it has no flush, it does
//! not count what a broken pipe swallowed, and it says on standard output, which is not a log's to
//! write to, that it could not finish.

use super::{metrics::LINES_DROPPED, request};
use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that may wait, besides as many again that are being written.
pub(super) const BUFFER_BYTES: usize = 4 << 20;
/// A pipe takes as much in one piece (`PIPE_BUF` on Linux).
const PIECE_BYTES: usize = 4096;
/// How long a request's line may wait for others to be written with.
pub(super) const LINGER: Duration = Duration::from_millis(20);
/// So many bytes are written without waiting for more.
const BATCH_BYTES: usize = 4 * PIECE_BYTES;

/// Where finished lines go.
#[derive(Clone)]
pub(super) struct LineWriter(Arc<Shared>);

struct Shared {
    buffer: Mutex<Buffer>,
    /// The buffer is no longer empty, or not to be waited with.
    arrived: Condvar,
    /// Everything was written.
    written: Condvar,
    capacity: usize,
    /// How long lines wait for others.
    linger: Duration,
}

#[derive(Default)]
struct Buffer {
    pending: Vec<u8>,
    writing: bool,
    /// Something in it is not to wait for others.
    urgent: bool,
}

impl LineWriter {
    /// Starts the thread that writes to `output` what waits for up to `linger`, and at most `capacity` bytes of it.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub(super) fn start(
        output: impl Write + Send + 'static,
        capacity: usize,
        linger: Duration,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            buffer: Mutex::default(),
            arrived: Condvar::new(),
            written: Condvar::new(),
            capacity,
            linger,
        });
        let own = Arc::clone(&shared);
        std::thread::Builder::new().name("log".into()).spawn(move || own.run(output))?;
        Ok(Self(shared))
    }

    /// Waits until everything is written, but no longer than `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let waiting = |buffer: &mut Buffer| buffer.writing || !buffer.pending.is_empty();
        let mut buffer = self.0.lock();
        buffer.urgent = !buffer.pending.is_empty();
        self.0.arrived.notify_one();
        drop(self.0.written.wait_timeout_while(buffer, patience, waiting));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8], urgent: bool) {
        let mut buffer = self.lock();
        if buffer.pending.len() + line.len() > self.capacity {
            drop(buffer);
            LINES_DROPPED.inc();
            return;
        }
        let before = buffer.pending.len();
        buffer.pending.extend_from_slice(line);
        let is_batch = before < BATCH_BYTES && buffer.pending.len() >= BATCH_BYTES;
        let is_news = before == 0 || is_batch || urgent && !buffer.urgent;
        buffer.urgent |= urgent;
        drop(buffer);
        if is_news {
            self.arrived.notify_one();
        }
    }

    fn run(&self, mut output: impl Write) {
        let mut batch = Vec::new();
        let mut told = 0;
        loop {
            self.take(&mut batch);
            let lost = write(&mut output, &batch);
            LINES_DROPPED.inc_by(lost);
            batch.clear();
            // Only now, for while nobody reads, this line would be one more that is lost.
            let dropped = LINES_DROPPED.get();
            if lost == 0 && dropped > told {
                told = dropped;
                tracing::warn!(
                    dropped,
                    "log lines were dropped: standard error is read too slowly"
                );
            }
            self.lock().writing = false;
            self.written.notify_all();
        }
    }

    /// Waits for lines, and a little for more of them, and takes all there are.
    fn take(&self, batch: &mut Vec<u8>) {
        let empty = |buffer: &mut Buffer| buffer.pending.is_empty();
        let few = |buffer: &mut Buffer| !buffer.urgent && buffer.pending.len() < BATCH_BYTES;
        let buffer = self.arrived.wait_while(self.lock(), empty);
        let buffer = buffer.unwrap_or_else(PoisonError::into_inner);
        let buffer = self.arrived.wait_timeout_while(buffer, self.linger, few);
        let (mut buffer, _) = buffer.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut buffer.pending, batch);
        (buffer.writing, buffer.urgent) = (true, false);
    }
}

/// Writes whole lines in pieces. Returns how many could not be written.
fn write(output: &mut impl Write, mut lines: &[u8]) -> u64 {
    while !lines.is_empty() {
        let piece = piece(lines);
        if output.write_all(piece).and_then(|()| output.flush()).is_err() {
            return lines.iter().filter(|&&byte| byte == b'\n').count() as u64;
        }
        lines = &lines[piece.len()..];
    }
    0
}

/// As many whole lines as fit in a piece, at least one.
fn piece(lines: &[u8]) -> &[u8] {
    let end_of_line = |byte: &u8| *byte == b'\n';
    let within = &lines[..lines.len().min(PIECE_BYTES)];
    let end = within.iter().rposition(end_of_line).or_else(|| lines.iter().position(end_of_line));
    end.map_or(lines, |end| &lines[..=end])
}

/// The way of one line.
pub(super) struct Line<'a> {
    writer: &'a LineWriter,
    urgent: bool,
}

/// One line, complete when it comes: the formatter writes each in one call.
impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.writer.0.push(line, self.urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { writer: self, urgent: true }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        Line { writer: self, urgent: metadata.target() != request::TARGET }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    const PATIENCE: Duration = Duration::from_secs(60);
    /// Nobody sees a line that waits so long.
    const FOR_EVER: Duration = Duration::from_secs(3_600);

    /// Takes a piece only when somebody receives it: a pipe whose reader is slow.
    struct Slow(SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
            self.0.send(piece.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(piece.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow(capacity: usize) -> (LineWriter, Receiver<Vec<u8>>) {
        let (sender, receiver) = sync_channel(0);
        (LineWriter::start(Slow(sender), capacity, LINGER).expect("a thread"), receiver)
    }

    /// The counter is the process's: one test looks at it, and no other drops lines.
    #[test]
    fn nobody_waits_for_a_slow_reader_and_what_is_lost_is_counted() {
        let (writer, reader) = slow(100);
        let line = [b'x'; 49].into_iter().chain([b'\n']).collect::<Vec<u8>>();
        let before = LINES_DROPPED.get();
        // Nobody reads: one batch is stuck in `write`, 100 bytes wait, the rest has no place. None
        // of this blocks, or the test would never get past it.
        writer.0.push(&line, false);
        while !writer.0.lock().writing {
            std::thread::yield_now();
        }
        (0..5).for_each(|_| writer.0.push(&line, false));
        assert_eq!(LINES_DROPPED.get() - before, 3);
        writer.flush(Duration::ZERO);
        assert_eq!(reader.recv().expect("the stuck batch"), line);
        assert_eq!(reader.recv().expect("what waited").len(), 100);
        writer.flush(PATIENCE);
        assert!(writer.0.lock().pending.is_empty());
        // Now nobody can ever read: writing goes on failing, logging does not.
        drop(reader);
        writer.0.push(&line, false);
        writer.flush(PATIENCE);
        assert_eq!(LINES_DROPPED.get() - before, 4);
    }

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("kept").extend_from_slice(piece);
            Ok(piece.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flush_waits_for_the_last_line() {
        let kept = Kept::default();
        let writer = LineWriter::start(kept.clone(), BUFFER_BYTES, FOR_EVER).expect("a thread");
        let lines: String = (0..10_000).map(|number| format!("line {number}\n")).collect();
        lines.split_inclusive('\n').for_each(|line| writer.0.push(line.as_bytes(), false));
        writer.flush(PATIENCE);
        assert!(*kept.0.lock().expect("kept") == lines.as_bytes(), "in order, none missing");
    }

    #[test]
    fn lines_of_requests_wait_for_many_or_for_one_that_does_not_wait() {
        let (sender, reader) = sync_channel(0);
        let writer = LineWriter::start(Slow(sender), BUFFER_BYTES, FOR_EVER).expect("a thread");
        let line = [b'x'; 99].into_iter().chain([b'\n']).collect::<Vec<u8>>();
        (0..3).for_each(|_| writer.0.push(&line, false));
        writer.0.push(b"now\n", true);
        let all = [line.repeat(3), b"now\n".to_vec()].concat();
        assert_eq!(reader.recv_timeout(PATIENCE).expect("at once, and with it what waited"), all);
        let many = BATCH_BYTES.div_ceil(line.len());
        (0..many).for_each(|_| writer.0.push(&line, false));
        let mut written = 0;
        while written < many * line.len() {
            written += reader.recv_timeout(PATIENCE).expect("there are many").len();
        }
    }

    #[test]
    fn pieces_are_whole_lines_that_a_pipe_takes_at_once() {
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        let (many, long) = (line.repeat(10), [b"y".repeat(9_000), b"\n".to_vec()].concat());
        assert_eq!(piece(&many).len(), 4_000);
        assert_eq!(piece(&line), line);
        let mixed = [long.clone(), line].concat();
        assert_eq!(piece(&mixed), long, "a line over the size of a piece goes alone");
    }
}
