//! Stands between memcache-async and the socket: collects what is written until it is to be sent,
//! and lets through only lines that a memcached sends.
//!
//! memcache-async sets aside as much memory as a reply claims to need, and takes some replies that
//! are none for success.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};

use crate::types::MAX_RESPONSE_BODY;

/// The longest line: that of a value with the longest key and the longest numbers, amply.
const LONGEST_LINE: usize = 2048;

/// What a line of a reply says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    Stored,
    NotFound,
    /// A value follows, of that key.
    Value(String),
    /// `ERROR`, `CLIENT_ERROR` or `SERVER_ERROR`, with the server's words.
    Error(String),
    Other,
}

/// What has gone by, for both sides of a [`Watched`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// An operation begins: nothing may be there to be read.
    is_fresh: bool,
    last: Option<Answer>,
    /// The keys of the values of this operation.
    keys: Vec<String>,
    /// The lines of this operation that end a reply.
    ends: u32,
    /// Whether what has been read ends with a whole line.
    is_whole: bool,
}

impl Watch {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operation begins.
    pub(crate) fn begin(&self) {
        *self.seen() = Seen { is_fresh: true, is_whole: true, ..Seen::default() };
    }

    /// The last line.
    pub(crate) fn last(&self) -> Option<Answer> {
        self.seen().last.clone()
    }

    /// The keys of the values that have come.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.seen().keys.clone()
    }

    /// Whether so many replies have come, whole, and nothing else.
    pub(crate) fn is_clean(&self, replies: u32) -> bool {
        let seen = self.seen();
        seen.ends == replies && seen.is_whole
    }

    fn note(&self, answer: Answer) {
        let mut seen = self.seen();
        match &answer {
            Answer::Value(key) => seen.keys.push(key.clone()),
            _ => seen.ends += 1,
        }
        seen.last = Some(answer);
    }
}

/// Reads lines and values, byte by byte, as they go by.
#[derive(Debug, Default)]
struct Scanner {
    line: Vec<u8>,
    /// Bytes of a value, and of the line end after it, that are still to come.
    skip: usize,
}

impl Scanner {
    fn scan(&mut self, mut bytes: &[u8], watch: &Watch) -> io::Result<()> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let end = bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            self.line.extend_from_slice(line);
            if self.line.len() > LONGEST_LINE {
                return Err(invalid("a line is too long"));
            }
            if end.is_some() {
                let (answer, skip) = read_line(&self.line)?;
                watch.note(answer);
                self.skip = skip;
                self.line.clear();
            }
            bytes = rest;
        }
        watch.seen().is_whole = self.line.is_empty() && self.skip == 0;
        Ok(())
    }
}

/// What a line says, and how many bytes follow it that are no line.
fn read_line(line: &[u8]) -> io::Result<(Answer, usize)> {
    let line = std::str::from_utf8(line).map_err(|_| invalid("a line is not text"))?;
    let line = line.strip_suffix("\r\n").ok_or_else(|| invalid("a line has no proper end"))?;
    let mut words = line.split(' ');
    match words.next().unwrap_or_default() {
        "VALUE" => {
            let key = words.next().unwrap_or_default().to_owned();
            let length = words.nth(1).and_then(|length| length.parse::<usize>().ok());
            match length {
                Some(length) if length <= MAX_RESPONSE_BODY => Ok((Answer::Value(key), length + 2)),
                _ => Err(invalid("a value claims an absurd length")),
            }
        }
        "STORED" => Ok((Answer::Stored, 0)),
        "NOT_FOUND" => Ok((Answer::NotFound, 0)),
        "ERROR" | "CLIENT_ERROR" | "SERVER_ERROR" => Ok((Answer::Error(line.to_owned()), 0)),
        "END" | "NOT_STORED" | "EXISTS" | "DELETED" | "OK" | "VERSION" => Ok((Answer::Other, 0)),
        number if number.parse::<u64>().is_ok() => Ok((Answer::Other, 0)),
        _ => Err(invalid("a line is none that a memcached sends")),
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A stream that is written when it is flushed, and read with care.
pub(crate) struct Watched<S: AsyncWrite> {
    stream: BufWriter<S>,
    scanner: Scanner,
    watch: Watch,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watched<S> {
    pub(crate) fn new(stream: S, watch: Watch) -> Self {
        Self { stream: BufWriter::new(stream), scanner: Scanner::default(), watch }
    }

    /// Before an operation writes anything: what can be read belongs to none.
    fn refuse_leftovers(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !std::mem::take(&mut self.watch.seen().is_fresh) {
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
            Poll::Ready(Ok(())) => Err(invalid("bytes that nobody has asked for")),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                Poll::Ready(this.scanner.scan(&buf.filled()[before..], &this.watch))
            }
            other => other,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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

    fn scan(bytes: &[u8]) -> io::Result<Option<Answer>> {
        let watch = Watch::default();
        Scanner::default().scan(bytes, &watch).map(|()| watch.last())
    }

    #[test]
    fn what_looks_like_a_line_within_a_value_is_none() {
        let reply = b"VALUE k 0 9\r\nGARBAGE\r\n\r\nEND\r\n";
        assert_eq!(scan(reply).unwrap(), Some(Answer::Other));
    }

    #[test]
    fn what_no_memcached_sends_is_refused() {
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
        assert!(scan(&[b'1'; LONGEST_LINE + 1]).is_err());
    }

    proptest! {
        #[test]
        fn a_reply_is_read_the_same_however_it_is_cut(
            value in prop::collection::vec(any::<u8>(), 0..60),
            cut in 0..80_usize,
        ) {
            let head = format!("VALUE k 0 {} 7\r\n", value.len());
            let reply = [head.as_bytes(), &value, b"\r\nEND\r\nSTORED\r\n"].concat();
            let (first, second) = reply.split_at(cut.min(reply.len()));
            let watch = Watch::default();
            let mut scanner = Scanner::default();
            scanner.scan(first, &watch).unwrap();
            scanner.scan(second, &watch).unwrap();
            prop_assert_eq!(watch.last(), Some(Answer::Stored));
            prop_assert_eq!(watch.keys(), ["k"]);
            prop_assert!(watch.is_clean(2) && !watch.is_clean(1));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = scan(&bytes);
        }
    }
}
