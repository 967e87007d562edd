//! Where a request ends in the bytes of a connection (RFC 9112, sections 3 to 7).
//!
//! This decides only when bytes are handed on, not what they mean: that is Actix's parser. If the two
//! ever disagree, the connection waits for bytes that do not come, and a deadline ends it.

use memchr::memchr;

/// Finds the empty line at the end of a head.
#[derive(Debug, Default)]
pub(super) struct HeadScanner {
    seen: Seen,
    /// Bytes of this head so far.
    pub(super) length: usize,
}

#[derive(Debug, Default)]
enum Seen {
    /// Nothing but line breaks, which clients may send before a request.
    #[default]
    Nothing,
    Text,
    LineFeed,
    LineFeedAndReturn,
}

impl HeadScanner {
    /// Returns how many of `bytes` belong to the head, if it ends in them.
    pub(super) fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        let end = loop {
            let Some(&byte) = bytes.get(at) else { break None };
            self.seen = match (&self.seen, byte) {
                (Seen::Nothing, b'\r' | b'\n') => Seen::Nothing,
                (Seen::LineFeed, b'\r') => Seen::LineFeedAndReturn,
                (Seen::LineFeed | Seen::LineFeedAndReturn, b'\n') => break Some(at + 1),
                _ => {
                    let line_feed = memchr(b'\n', &bytes[at..]);
                    at += line_feed.unwrap_or(bytes.len() - at);
                    if line_feed.is_some() { Seen::LineFeed } else { Seen::Text }
                }
            };
            at += 1;
        };
        self.length += end.unwrap_or(bytes.len());
        end
    }
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BodyKind {
    /// There is no body.
    Absent,
    /// `Content-Length`
    Sized(u64),
    /// `Transfer-Encoding: chunked`
    Chunked,
    /// The body ends with the connection.
    UntilClosed,
}

/// Finds the end of a body.
#[derive(Debug)]
pub(super) enum BodyScanner {
    Sized(u64),
    Chunked(ChunkScanner),
    UntilClosed,
}

impl BodyScanner {
    pub(super) fn new(kind: BodyKind) -> Self {
        match kind {
            BodyKind::Absent => Self::Sized(0),
            BodyKind::Sized(length) => Self::Sized(length),
            BodyKind::Chunked => Self::Chunked(ChunkScanner::default()),
            BodyKind::UntilClosed => Self::UntilClosed,
        }
    }

    /// Returns whether the body is at its end.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Sized(rest) => *rest == 0,
            Self::Chunked(scanner) => matches!(scanner.part, Part::End),
            Self::UntilClosed => false,
        }
    }

    /// Returns how many of `bytes` belong to the body.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Sized(rest) => {
                let taken = bytes.len().min(usize::try_from(*rest).unwrap_or(usize::MAX));
                *rest -= taken as u64;
                taken
            }
            Self::Chunked(scanner) => scanner.take(bytes),
            Self::UntilClosed => bytes.len(),
        }
    }
}

/// Finds the end of a chunked body (RFC 9112, section 7.1).
#[derive(Debug, Default)]
pub(super) struct ChunkScanner {
    part: Part,
    /// The size that is being read, or the bytes of the chunk that are still to come.
    size: u64,
}

#[derive(Clone, Copy, Debug, Default)]
enum Part {
    #[default]
    Size,
    /// The rest of the line of a size: an extension, and the line break.
    SizeLine,
    Data,
    /// The line break after a chunk.
    DataEnd,
    /// A line after the last chunk: trailers, then an empty line.
    TrailerStart,
    Trailer,
    End,
}

impl ChunkScanner {
    fn take(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            self.part = match self.part {
                Part::Size => match char::from(byte).to_digit(16) {
                    Some(digit) => {
                        self.size = self.size.saturating_mul(16).saturating_add(u64::from(digit));
                        Part::Size
                    }
                    None => self.after_size(byte),
                },
                Part::SizeLine => self.after_size(byte),
                Part::Data => {
                    let rest = usize::try_from(self.size).unwrap_or(usize::MAX);
                    let taken = rest.min(bytes.len() - at);
                    self.size -= taken as u64;
                    at += taken;
                    self.part = if self.size == 0 { Part::DataEnd } else { Part::Data };
                    continue;
                }
                Part::DataEnd if byte == b'\n' => Part::Size,
                Part::DataEnd => Part::DataEnd,
                Part::TrailerStart if byte == b'\n' => Part::End,
                Part::TrailerStart if byte == b'\r' => Part::TrailerStart,
                Part::TrailerStart | Part::Trailer if byte == b'\n' => Part::TrailerStart,
                Part::TrailerStart | Part::Trailer => Part::Trailer,
                Part::End => break,
            };
            at += 1;
        }
        at
    }

    fn after_size(&self, byte: u8) -> Part {
        match (byte, self.size) {
            (b'\n', 0) => Part::TrailerStart,
            (b'\n', _) => Part::Data,
            _ => Part::SizeLine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of a head, fed in pieces of `size` bytes.
    fn head_end(bytes: &[u8], size: usize) -> Option<usize> {
        let mut scanner = HeadScanner::default();
        for piece in bytes.chunks(size) {
            if scanner.end(piece).is_some() {
                return Some(scanner.length);
            }
        }
        None
    }

    #[test]
    fn a_head_ends_with_its_empty_line_however_it_is_cut() {
        for (bytes, end) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /"[..], Some(27)),
            (b"GET / HTTP/1.1\nHost: a\n\nrest", Some(24)),
            (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", Some(22)),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", None),
            (b"GET / HTTP/1.1\r\n\rX: y\r\n", None),
            (b"\r\n\r\n\r\n", None),
        ] {
            for size in 1..=bytes.len() {
                assert_eq!(head_end(bytes, size), end, "{size}: {}", bytes.escape_ascii());
            }
        }
    }

    /// The end of a body, fed in pieces of `size` bytes.
    fn body_end(kind: BodyKind, bytes: &[u8], size: usize) -> Option<usize> {
        let mut scanner = BodyScanner::new(kind);
        let mut end = 0;
        for piece in bytes.chunks(size) {
            end += scanner.take(piece);
            if scanner.is_done() {
                return Some(end);
            }
        }
        None
    }

    #[test]
    fn a_body_ends_where_its_framing_says_however_it_is_cut() {
        for (kind, bytes, end) in [
            (BodyKind::Sized(4), &b"name=Milk"[..], Some(4)),
            (BodyKind::Sized(40), b"name", None),
            (BodyKind::Chunked, b"4\r\nname\r\n0\r\n\r\nGET", Some(14)),
            (BodyKind::Chunked, b"A;x=\"0\"\r\n0\r\n\r\n56789\r\n0\r\nX: y\r\n\r\nGET", Some(32)),
            (BodyKind::Chunked, b"4\nname\n0\n\nGET", Some(10)),
            (BodyKind::Chunked, b"4\r\nname\r\n", None),
            (BodyKind::Chunked, b"4\r\nname\r\n0\r\n", None),
            (BodyKind::UntilClosed, b"anything", None),
        ] {
            for size in 1..=bytes.len() {
                assert_eq!(body_end(kind, bytes, size), end, "{size}: {}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn an_absurd_size_of_a_chunk_is_only_very_long() {
        let bytes = b"ffffffffffffffffffff\r\nname";
        assert_eq!(body_end(BodyKind::Chunked, bytes, bytes.len()), None);
    }
}
