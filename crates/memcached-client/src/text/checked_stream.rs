//! A stream between memcache-async and the socket, which buffers requests and checks replies.
//!
//! memcache-async allocates as much memory as a reply claims to need, and treats some invalid replies
//! as success. So the stream fails on lines that memcached does not send.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};

/// The longest accepted line, in bytes. The longest line of memcached, which announces a value, has a
/// key of 250 bytes and three numbers.
const MAX_LINE: usize = 2048;

/// A line of a reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ReplyLine {
    Stored,
    NotFound,
    /// The line before the value of this key.
    Value(String),
    /// The whole line of an `ERROR`, `CLIENT_ERROR` or `SERVER_ERROR`.
    Error(String),
    Other,
}

/// The lines that a [`CheckedStream`] has read during an operation. Cloning shares the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReplyLog(Arc<Mutex<LogState>>);

#[derive(Debug, Default)]
struct LogState {
    /// Whether the operation has not written yet, so that bytes to read are left over from another.
    is_fresh: bool,
    last: Option<ReplyLine>,
    /// The keys of the values that were read.
    keys: Vec<String>,
    /// The number of complete replies.
    replies: u32,
    /// Whether the bytes that were read end with a complete line or value.
    is_complete: bool,
}

impl ReplyLog {
    fn state(&self) -> MutexGuard<'_, LogState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Clears the log at the beginning of an operation.
    pub(crate) fn begin(&self) {
        *self.state() = LogState { is_fresh: true, is_complete: true, ..LogState::default() };
    }

    /// Returns the last line.
    pub(crate) fn last(&self) -> Option<ReplyLine> {
        self.state().last.clone()
    }

    /// Returns the keys of the values that were read.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.state().keys.clone()
    }

    /// Returns whether exactly this number of replies was read, without further bytes.
    pub(crate) fn is_clean(&self, replies: u32) -> bool {
        let state = self.state();
        state.replies == replies && state.is_complete
    }

    fn push(&self, line: ReplyLine) {
        let mut state = self.state();
        match &line {
            ReplyLine::Value(key) => state.keys.push(key.clone()),
            _ => state.replies += 1,
        }
        state.last = Some(line);
    }
}

/// Splits the bytes of replies into lines and values.
#[derive(Debug)]
struct Scanner {
    /// The beginning of a line that is incomplete.
    line: Vec<u8>,
    /// The number of bytes until the end of the current value and its line break.
    skip: usize,
    /// The largest value that is accepted, in bytes.
    max_value: usize,
}

impl Scanner {
    fn new(max_value: usize) -> Self {
        Self { line: Vec::new(), skip: 0, max_value }
    }

    /// Adds the lines in `bytes` to `log`. Fails on a line that memcached does not send.
    fn scan(&mut self, mut bytes: &[u8], log: &ReplyLog) -> io::Result<()> {
        while !bytes.is_empty() {
            // A value may contain bytes that look like a line.
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let end = bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            self.line.extend_from_slice(line);
            if self.line.len() > MAX_LINE {
                return Err(invalid("a line is too long"));
            }
            if end.is_some() {
                let (line, value_length) = parse_line(&self.line, self.max_value)?;
                log.push(line);
                self.skip = value_length;
                self.line.clear();
            }
            bytes = rest;
        }
        log.state().is_complete = self.line.is_empty() && self.skip == 0;
        Ok(())
    }
}

/// Parses a line. Returns the length of the value that follows it too, with its line break.
fn parse_line(line: &[u8], max_value: usize) -> io::Result<(ReplyLine, usize)> {
    let line = std::str::from_utf8(line).map_err(|_| invalid("a line is not UTF-8"))?;
    let line =
        line.strip_suffix("\r\n").ok_or_else(|| invalid("a line does not end with CR LF"))?;
    let mut words = line.split(' ');
    match words.next().unwrap_or_default() {
        "VALUE" => {
            let key = words.next().unwrap_or_default().to_owned();
            let length = words.nth(1).and_then(|length| length.parse::<usize>().ok());
            match length {
                Some(length) if length <= max_value => Ok((ReplyLine::Value(key), length + 2)),
                _ => Err(invalid("a value has an invalid length")),
            }
        }
        "STORED" => Ok((ReplyLine::Stored, 0)),
        "NOT_FOUND" => Ok((ReplyLine::NotFound, 0)),
        "ERROR" | "CLIENT_ERROR" | "SERVER_ERROR" => Ok((ReplyLine::Error(line.to_owned()), 0)),
        "END" | "NOT_STORED" | "EXISTS" | "DELETED" | "OK" | "VERSION" => Ok((ReplyLine::Other, 0)),
        number if number.parse::<u64>().is_ok() => Ok((ReplyLine::Other, 0)),
        _ => Err(invalid("a line is not a reply of memcached")),
    }
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Buffers writes until they are flushed, and checks the lines that are read.
pub(crate) struct CheckedStream<S: AsyncWrite> {
    stream: BufWriter<S>,
    scanner: Scanner,
    log: ReplyLog,
}

impl<S: AsyncRead + AsyncWrite + Unpin> CheckedStream<S> {
    /// Values of more than `max_value` bytes are refused.
    pub(crate) fn new(stream: S, log: ReplyLog, max_value: usize) -> Self {
        Self { stream: BufWriter::new(stream), scanner: Scanner::new(max_value), log }
    }

    /// Fails if there are bytes to read before the first write of an operation: they belong to no
    /// request.
    fn refuse_leftovers(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !std::mem::take(&mut self.log.state().is_fresh) {
            return Ok(());
        }
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
            Poll::Pending => Ok(()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) if buf.filled().is_empty() => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Poll::Ready(Ok(())) => Err(invalid("bytes without a request")),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for CheckedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                Poll::Ready(this.scanner.scan(&buf.filled()[before..], &this.log))
            }
            other => other,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for CheckedStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.refuse_leftovers(cx)?;
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(bytes: &[u8]) -> io::Result<Option<ReplyLine>> {
        let log = ReplyLog::default();
        Scanner::new(1 << 20).scan(bytes, &log).map(|()| log.last())
    }

    #[test]
    fn a_line_within_a_value_is_ignored() {
        let reply = b"VALUE k 0 9\r\nGARBAGE\r\n\r\nEND\r\n";
        assert_eq!(scan(reply).unwrap(), Some(ReplyLine::Other));
    }

    #[test]
    fn lines_that_memcached_does_not_send_are_refused() {
        let lines = [
            "HTTP/1.1 400 Bad Request\r\n",
            "VALUE k 0 99999999999999\r\n",
            "VALUE\r\n",
            "VALUE k 0 -1\r\n",
            "\r\n",
            "STORED\n",
            "stored\r\n",
            "\u{e9}\r\n",
        ];
        for line in lines {
            assert!(scan(line.as_bytes()).is_err(), "{line:?}");
        }
        assert!(scan(&[b'1'; MAX_LINE + 1]).is_err());
    }

    /// See [`multiplexed::fuzz`](crate::multiplexed) for how to search longer. A text is scanned in the same
    /// way in one piece and in many.
    #[test]
    fn fuzz() {
        bolero::check!(name = "text").with_iterations(20_000).for_each(|input| {
            let Some((size, bytes)) = input.split_first() else { return };
            let (whole, parts) = (ReplyLog::default(), ReplyLog::default());
            let is_valid = Scanner::new(4096).scan(bytes, &whole).is_ok();
            let mut scanner = Scanner::new(4096);
            let mut pieces = bytes.chunks(usize::from(*size).max(1));
            let in_parts = pieces.all(|piece| scanner.scan(piece, &parts).is_ok());
            assert_eq!(is_valid, in_parts);
            assert!(scanner.line.len() <= MAX_LINE + bytes.len() && scanner.skip <= 4096 + 2);
            if is_valid {
                assert_eq!((whole.last(), whole.keys()), (parts.last(), parts.keys()));
            }
        });
    }

    proptest! {
        #[test]
        fn a_reply_is_read_however_its_bytes_are_split(
            value in prop::collection::vec(any::<u8>(), 0..60),
            cut in 0..80_usize,
        ) {
            let head = format!("VALUE k 0 {} 7\r\n", value.len());
            let reply = [head.as_bytes(), &value, b"\r\nEND\r\nSTORED\r\n"].concat();
            let (first, second) = reply.split_at(cut.min(reply.len()));
            let log = ReplyLog::default();
            let mut scanner = Scanner::new(1 << 20);
            scanner.scan(first, &log).unwrap();
            scanner.scan(second, &log).unwrap();
            prop_assert_eq!(log.last(), Some(ReplyLine::Stored));
            prop_assert_eq!(log.keys(), ["k"]);
            prop_assert!(log.is_clean(2) && !log.is_clean(1));
        }

        #[test]
        fn scanning_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = scan(&bytes);
        }
    }
}
