//! Encodes and decodes the lines of memcached's meta protocol. Does no I/O.
//!
//! The format is specified in memcached's protocol.txt ("Meta Commands"): a request is a line of a
//! command, a key and flags of one letter, and a value if it stores one. Each request here asks for its
//! opaque in the response, where the protocol has one. The protocol needs memcached 1.6 or newer.

use std::io::Write;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::frame::{Frame, Opcodes, Request, Response, opcode, status};
use crate::{key::MAX_KEY_BYTES, types::lifetime_in_text};

/// The longest line of a response, in bytes. Those of memcached have less than 2048.
const MAX_LINE: usize = 4096;

/// The lifetime of a counter that is not to be created (as in the binary protocol).
const DO_NOT_CREATE: u32 = u32::MAX;

/// Appends a request to `out`. The client has checked that the key has no blank and no control character.
pub(crate) fn encode(request: &Request<'_>, out: &mut BytesMut) {
    let command: &[u8] = match request.opcode {
        opcode::GET | opcode::GETQ | opcode::GAT | opcode::TOUCH => b"mg ",
        opcode::DELETE | opcode::DELETEQ => b"md ",
        opcode::INCREMENT | opcode::DECREMENT => b"ma ",
        opcode::FLUSH => return out.put_slice(b"flush_all\r\n"),
        opcode::VERSION => return out.put_slice(b"version\r\n"),
        opcode::STAT => return out.put_slice(b"stats\r\n"),
        opcode::NOOP => return out.put_slice(b"mn\r\n"),
        _ => b"ms ",
    };
    out.reserve(request.key.len() + request.value.len() + 100);
    out.put_slice(command);
    let is_encoded = put_key(request.key, out);
    let mut line = Line(out);
    let extra = |at: usize| u64::from(number(request.extras, at));
    let lifetime = |at: usize| u64::from(lifetime_in_text(number(request.extras, at)));
    match request.opcode {
        opcode::GET if request.extras.is_empty() => line.flags("v f c"),
        opcode::GET => line.flags("v f c").flag('N', lifetime(0)),
        opcode::GETQ => line.flags("q v f c"),
        opcode::GAT => line.flags("v f c").flag('T', lifetime(0)),
        opcode::TOUCH => line.flag('T', lifetime(0)),
        opcode::DELETE | opcode::DELETEQ => line.unless('C', request.cas, 0),
        opcode::INCREMENT | opcode::DECREMENT => {
            if request.opcode == opcode::DECREMENT {
                line.flags("MD");
            }
            let (delta, initial) = (long(request.extras, 0), long(request.extras, 8));
            line.flags("v").flag('D', delta);
            if number(request.extras, 16) != DO_NOT_CREATE {
                line.flag('N', lifetime(16)).flag('J', initial);
            }
            &mut line
        }
        store => {
            line.value(request.value.len());
            match store {
                opcode::ADD => line.flags("ME"),
                opcode::REPLACE => line.flags("MR"),
                opcode::APPEND => line.flags("MA"),
                opcode::PREPEND => line.flags("MP"),
                _ => &mut line,
            };
            line.unless('F', extra(0), 0).unless('T', lifetime(4), 0).unless('C', request.cas, 0);
            // The token of the new entry.
            if store == opcode::SETQ { &mut line } else { line.flags("c") }
        }
    };
    if is_encoded {
        line.flags("b");
    }
    line.flag('O', u64::from(request.opaque));
    out.put_slice(b"\r\n");
    if command == b"ms " {
        out.put_slice(request.value);
        out.put_slice(b"\r\n");
    }
}

/// Appends a key. One that is not UTF-8 is sent in Base64, where that fits. Returns whether it is.
fn put_key(key: &[u8], out: &mut BytesMut) -> bool {
    if key.len().div_ceil(3) * 4 <= MAX_KEY_BYTES && std::str::from_utf8(key).is_err() {
        out.put_slice(BASE64_STANDARD.encode(key).as_bytes());
        return true;
    }
    out.put_slice(key);
    false
}

/// A request line that is being written.
struct Line<'a>(&'a mut BytesMut);

impl Line<'_> {
    /// Appends flags without a token.
    fn flags(&mut self, flags: &str) -> &mut Self {
        self.0.put_u8(b' ');
        self.0.put_slice(flags.as_bytes());
        self
    }

    /// Appends a flag with a number.
    fn flag(&mut self, flag: char, number: u64) -> &mut Self {
        // Writing to a buffer in memory does not fail.
        let _ = write!(self.0.writer(), " {flag}{number}");
        self
    }

    /// Appends a flag, unless it has its default.
    fn unless(&mut self, flag: char, number: u64, default: u64) -> &mut Self {
        if number == default { self } else { self.flag(flag, number) }
    }

    /// Appends the length of the value.
    fn value(&mut self, length: usize) {
        let _ = write!(self.0.writer(), " {length}");
    }
}

/// Returns the number of four bytes at `at`; 0 beyond the end.
fn number(extras: &[u8], at: usize) -> u32 {
    let bytes = extras.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_be_bytes)
}

/// Returns the number of eight bytes at `at`; 0 beyond the end.
fn long(extras: &[u8], at: usize) -> u64 {
    let bytes = extras.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_be_bytes)
}

/// The reason why bytes are not a response.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum DecodeError {
    #[error("a line of more than {MAX_LINE} bytes")]
    LineTooLong,
    #[error("{0:?} is not a response of the meta protocol")]
    Line(String),
    #[error("a response claims a value of {0} bytes; the limit is {1}")]
    ValueTooLong(usize, usize),
    #[error("a value does not end with a line break")]
    NoEnd,
}

/// The requests that an error can answer: all.
const ANY: Opcodes = Opcodes::of(&[
    opcode::GET,
    opcode::SET,
    opcode::ADD,
    opcode::REPLACE,
    opcode::DELETE,
    opcode::INCREMENT,
    opcode::DECREMENT,
    opcode::FLUSH,
    opcode::NOOP,
    opcode::VERSION,
    opcode::APPEND,
    opcode::PREPEND,
    opcode::STAT,
    opcode::SETQ,
    opcode::DELETEQ,
    opcode::TOUCH,
    opcode::GAT,
]);
const VALUE: Opcodes =
    Opcodes::of(&[opcode::GET, opcode::GETQ, opcode::GAT, opcode::INCREMENT, opcode::DECREMENT]);
const DONE: Opcodes = Opcodes::of(&[
    opcode::SET,
    opcode::SETQ,
    opcode::ADD,
    opcode::REPLACE,
    opcode::APPEND,
    opcode::PREPEND,
    opcode::DELETE,
    opcode::DELETEQ,
    opcode::TOUCH,
]);
const MISS: Opcodes = Opcodes::of(&[opcode::GET, opcode::GETQ, opcode::GAT, opcode::TOUCH]);
const MISSING: Opcodes = Opcodes::of(&[
    opcode::SET,
    opcode::DELETE,
    opcode::DELETEQ,
    opcode::INCREMENT,
    opcode::DECREMENT,
]);
const NOT_STORED: Opcodes =
    Opcodes::of(&[opcode::ADD, opcode::REPLACE, opcode::APPEND, opcode::PREPEND]);
const CHANGED: Opcodes = Opcodes::of(&[opcode::SET, opcode::DELETE]);

/// Returns whether a response has its value as decimal digits, rather than as in the binary protocol.
pub(crate) fn has_digits(response: &Response) -> bool {
    response.answers == VALUE
}

/// Removes one response from the front of `buffer`, if it is complete. A value of more than `max_value`
/// bytes is an error, before memory is allocated for it.
pub(crate) fn decode(buffer: &mut BytesMut, max_value: usize) -> Result<Frame, DecodeError> {
    let Some(end) = buffer.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
        if buffer.len() >= MAX_LINE {
            return Err(DecodeError::LineTooLong);
        }
        return Ok(Frame::Incomplete(buffer.len() + 1));
    };
    let line = buffer[..end].strip_suffix(b"\r").unwrap_or(&buffer[..end]);
    let mut tokens = line.split(|byte| *byte == b' ').filter(|token| !token.is_empty());
    let (answers, code) = match tokens.next().unwrap_or_default() {
        b"VA" => return decode_value(buffer, end, max_value),
        b"HD" => (DONE, status::OK),
        b"EN" => (MISS, status::NOT_FOUND),
        b"NF" => (MISSING, status::NOT_FOUND),
        b"NS" => (NOT_STORED, status::NOT_STORED),
        b"EX" => (CHANGED, status::EXISTS),
        b"MN" => (Opcodes::of(&[opcode::NOOP]), status::OK),
        b"OK" => (Opcodes::of(&[opcode::FLUSH]), status::OK),
        b"VERSION" | b"STAT" | b"END" | b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR" => {
            return Ok(Frame::Response(decode_text(buffer, end)));
        }
        _ => return Err(unknown(line)),
    };
    let mut response = empty(answers, code);
    read_flags(tokens, &mut response).ok_or_else(|| unknown(line))?;
    let _line = buffer.split_to(end + 1);
    Ok(Frame::Response(response))
}

fn empty(answers: Opcodes, status: u16) -> Response {
    let (key, value) = (Bytes::new(), Bytes::new());
    Response { answers, status, opaque: None, cas: 0, flags: 0, is_new: false, key, value }
}

fn unknown(line: &[u8]) -> DecodeError {
    DecodeError::Line(String::from_utf8_lossy(&line[..line.len().min(100)]).into_owned())
}

/// Reads the flags of a response. Returns `None` if one that is used is not a number.
fn read_flags<'a>(flags: impl Iterator<Item = &'a [u8]>, response: &mut Response) -> Option<()> {
    for flag in flags {
        let (name, token) = flag.split_first()?;
        match name {
            b'O' => response.opaque = Some(digits(token)?),
            b'c' => response.cas = digits(token)?,
            b'f' => response.flags = digits(token)?,
            b'W' => response.is_new = true,
            _ => {}
        }
    }
    Some(())
}

/// Parses a number of decimal digits.
fn digits<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Decodes `VA`, its flags and its value. `end` is the end of the line.
fn decode_value(buffer: &mut BytesMut, end: usize, max_value: usize) -> Result<Frame, DecodeError> {
    let line = buffer[..end].strip_suffix(b"\r").unwrap_or(&buffer[..end]);
    let mut tokens = line.split(|byte| *byte == b' ').filter(|token| !token.is_empty()).skip(1);
    let length: usize = tokens.next().and_then(digits).ok_or_else(|| unknown(line))?;
    if length > max_value {
        return Err(DecodeError::ValueTooLong(length, max_value));
    }
    let mut response = empty(VALUE, status::OK);
    read_flags(tokens, &mut response).ok_or_else(|| unknown(line))?;
    let start = end + 1;
    if buffer.len() < start + length + 2 {
        return Ok(Frame::Incomplete(start + length + 2));
    }
    if buffer[start + length..start + length + 2] != *b"\r\n" {
        return Err(DecodeError::NoEnd);
    }
    let mut frame = buffer.split_to(start + length + 2).freeze();
    response.value = frame.split_to(start + length).slice(start..);
    Ok(Frame::Response(response))
}

/// Decodes a line of text: a version, a statistic, the end of a list, or an error.
fn decode_text(buffer: &mut BytesMut, end: usize) -> Response {
    let line = buffer.split_to(end + 1).freeze();
    let line = line.slice(..line.trim_ascii_end().len());
    let of = |opcode| empty(Opcodes::of(&[opcode]), status::OK);
    if let Some(version) = line.strip_prefix(b"VERSION ") {
        return Response { value: line.slice_ref(version), ..of(opcode::VERSION) };
    }
    if let Some(statistic) = line.strip_prefix(b"STAT ") {
        let blank = statistic.iter().position(|byte| *byte == b' ').unwrap_or(statistic.len());
        let value = statistic.get(blank + 1..).unwrap_or_default();
        let (key, value) = (line.slice_ref(&statistic[..blank]), line.slice_ref(value));
        return Response { key, value, ..of(opcode::STAT) };
    }
    if *line == *b"END" {
        return of(opcode::STAT);
    }
    let code = if line.starts_with(b"SERVER_ERROR object too large") {
        status::TOO_LARGE
    } else if *line == *b"CLIENT_ERROR unauthenticated" {
        status::NOT_LOGGED_IN
    } else {
        status::REFUSED
    };
    Response { value: line, ..empty(ANY, code) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1 << 20;

    fn encoded(request: &Request<'_>) -> String {
        let mut out = BytesMut::new();
        encode(request, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn request(opcode: u8) -> Request<'static> {
        Request { opcode, opaque: 7, key: b"k", ..Request::default() }
    }

    fn decoded(bytes: &[u8]) -> Response {
        let mut buffer = BytesMut::from(bytes);
        match decode(&mut buffer, MAX) {
            Ok(Frame::Response(response)) if buffer.is_empty() => response,
            other => panic!("{other:?}, {buffer:?} is left"),
        }
    }

    #[test]
    fn requests_are_encoded_as_in_the_specification() {
        assert_eq!(encoded(&request(opcode::GET)), "mg k v f c O7\r\n");
        assert_eq!(encoded(&request(opcode::GETQ)), "mg k q v f c O7\r\n");
        assert_eq!(encoded(&Request { cas: 9, ..request(opcode::DELETE) }), "md k C9 O7\r\n");
        let reserve = Request { extras: &[0, 0, 0, 10], ..request(opcode::GET) };
        assert_eq!(encoded(&reserve), "mg k v f c N10 O7\r\n");
        let item = [0, 0, 0, 5, 0, 0, 0, 60];
        let store = Request { extras: &item, value: b"a\r\nb", ..request(opcode::ADD) };
        assert_eq!(encoded(&store), "ms k 4 ME F5 T60 c O7\r\na\r\nb\r\n");
        let store = Request { cas: 9, value: b"", ..request(opcode::SET) };
        assert_eq!(encoded(&store), "ms k 0 C9 c O7\r\n\r\n");
        let touch = Request { extras: &item[4..], ..request(opcode::TOUCH) };
        assert_eq!(encoded(&touch), "mg k T60 O7\r\n");
        let mut counter = [0; 20];
        (counter[7], counter[15], counter[19]) = (2, 40, 60);
        let count = Request { extras: &counter, ..request(opcode::DECREMENT) };
        assert_eq!(encoded(&count), "ma k MD v D2 N60 J40 O7\r\n");
        counter[16..].copy_from_slice(&[0xff; 4]);
        let count = Request { extras: &counter, ..request(opcode::INCREMENT) };
        assert_eq!(encoded(&count), "ma k v D2 O7\r\n");
    }

    #[test]
    fn a_key_that_is_not_text_is_sent_in_base64() {
        let get = Request { key: b"\xff\xfe", ..request(opcode::GET) };
        assert_eq!(encoded(&get), "mg //4= v f c b O7\r\n");
        let mut out = BytesMut::new();
        let long = [0xff; 200];
        encode(&Request { key: &long, ..request(opcode::GET) }, &mut out);
        assert!(out[3..].starts_with(&long), "too long in Base64");
    }

    #[test]
    fn responses_are_decoded() {
        let value = decoded(b"VA 4 f5 c9 t-1 O7 W\r\na\r\nb\r\n");
        assert_eq!((value.flags, value.cas, value.opaque), (5, 9, Some(7)));
        assert_eq!((value.status, &value.value[..]), (status::OK, &b"a\r\nb"[..]));
        assert!(decoded(b"VA 0 f0 c9 W O7\r\n\r\n").is_new);
        assert!(!decoded(b"VA 0 f0 c9 Z O7\r\n\r\n").is_new);
        for (line, code) in [
            (&b"HD O7\r\n"[..], status::OK),
            (b"EN O7\r\n", status::NOT_FOUND),
            (b"NF O7\r\n", status::NOT_FOUND),
            (b"NS O7\r\n", status::NOT_STORED),
            (b"EX O7\r\n", status::EXISTS),
        ] {
            let response = decoded(line);
            assert_eq!((response.status, response.opaque), (code, Some(7)), "{line:?}");
        }
        assert_eq!(decoded(b"EN\r\n").opaque, None);
        assert_eq!(decoded(b"VERSION 1.6.18\r\n").value, "1.6.18");
        let statistic = decoded(b"STAT version 1.6.18\r\n");
        assert_eq!((&statistic.key[..], &statistic.value[..]), (&b"version"[..], &b"1.6.18"[..]));
        assert!(decoded(b"END\r\n").key.is_empty());
        assert_eq!(
            decoded(b"SERVER_ERROR object too large for cache\r\n").status,
            status::TOO_LARGE
        );
        assert_eq!(decoded(b"CLIENT_ERROR unauthenticated\r\n").status, status::NOT_LOGGED_IN);
        assert_eq!(decoded(b"CLIENT_ERROR no\r\n").value, "CLIENT_ERROR no");
    }

    #[test]
    fn what_is_no_response_is_an_error() {
        let decode = |bytes: &[u8]| decode(&mut BytesMut::from(bytes), MAX);
        let line = |text: &str| Err(DecodeError::Line(text.to_owned()));
        assert_eq!(decode(b"HTTP/1.1 400\r\n"), line("HTTP/1.1 400"));
        assert_eq!(decode(b"\r\n"), line(""));
        assert_eq!(decode(b"VA x O7\r\n"), line("VA x O7"));
        assert_eq!(decode(b"VA -1\r\n"), line("VA -1"));
        assert_eq!(decode(b"HD O+7\r\n"), line("HD O+7"));
        assert_eq!(decode(b"VA 1 O7\r\nxyz"), Err(DecodeError::NoEnd));
        assert_eq!(decode(b"VA 4294967296\r\n"), Err(DecodeError::ValueTooLong(1 << 32, MAX)));
        assert_eq!(decode(&[b'x'; MAX_LINE]), Err(DecodeError::LineTooLong));
    }

    fn bytes_of(response: &(u32, Option<Vec<u8>>)) -> Vec<u8> {
        match response {
            (opaque, None) => format!("HD c5 O{opaque}\r\n").into_bytes(),
            (opaque, Some(value)) => {
                let line = format!("VA {} f1 c5 O{opaque}\r\n", value.len());
                [line.as_bytes(), value, b"\r\n"].concat()
            }
        }
    }

    proptest! {
        #[test]
        fn responses_are_decoded_however_the_bytes_are_split(
            responses in prop::collection::vec(
                (any::<u32>(), prop::option::of(prop::collection::vec(any::<u8>(), 0..40))), 0..6),
            cuts in prop::collection::vec(1..60_usize, 1..20),
        ) {
            let bytes: Vec<u8> = responses.iter().flat_map(bytes_of).collect();
            let (mut buffer, mut found, mut rest) = (BytesMut::new(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (piece, later) = rest.split_at((*cut).min(rest.len()));
                buffer.extend_from_slice(piece);
                while let Frame::Response(response) = decode(&mut buffer, MAX).unwrap() {
                    let value = has_digits(&response).then(|| response.value.to_vec());
                    found.push((response.opaque.unwrap(), value));
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, responses);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn decoding_never_panics_or_requests_more_than_the_limit(
            mut bytes in prop::collection::vec(any::<u8>(), 0..100),
            start in prop::sample::select(vec!["", "VA ", "VA 5 f", "HD O", "STAT ", "VERSION "]),
        ) {
            bytes.splice(0..0, start.bytes());
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(decoded) = decode(&mut buffer, MAX) {
                if let Frame::Incomplete(needed) = decoded {
                    prop_assert!(needed > buffer.len() && needed <= MAX_LINE + MAX + 2);
                    break;
                }
            }
        }

        #[test]
        fn a_request_is_one_line_and_its_value(
            opcode in prop::sample::select(vec![
                opcode::GET, opcode::GETQ, opcode::SET, opcode::SETQ, opcode::ADD, opcode::DELETE,
                opcode::TOUCH, opcode::GAT, opcode::INCREMENT, opcode::APPEND]),
            key in prop::collection::vec(0x21..=0xff_u8, 1..=MAX_KEY_BYTES),
            value in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            prop_assume!(!key.contains(&0x7f));
            let mut out = BytesMut::new();
            encode(&Request { opcode, key: &key, value: &value, ..Request::default() }, &mut out);
            let end = out.windows(2).position(|pair| pair == b"\r\n").unwrap();
            let key = out[..end].split(|byte| *byte == b' ').nth(1).unwrap();
            prop_assert!(key.len() <= MAX_KEY_BYTES);
            prop_assert_eq!(out.starts_with(b"ms "), out.len() > end + 2);
        }
    }
}
