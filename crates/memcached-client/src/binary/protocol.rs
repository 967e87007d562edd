//! Encodes and decodes frames of memcached's binary protocol. Does no I/O.
//!
//! The format is specified in memcached's wiki (`BinaryProtocolRevamped`): a header of 24 bytes, then
//! extras, key and value. Numbers are big-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// The length of a header, in bytes.
pub(crate) const HEADER: usize = 24;
/// The first byte of a request.
const REQUEST: u8 = 0x80;
/// The first byte of a response.
const RESPONSE: u8 = 0x81;

pub(crate) mod opcode {
    pub(crate) const GET: u8 = 0x00;
    pub(crate) const SET: u8 = 0x01;
    pub(crate) const ADD: u8 = 0x02;
    pub(crate) const REPLACE: u8 = 0x03;
    pub(crate) const DELETE: u8 = 0x04;
    pub(crate) const INCREMENT: u8 = 0x05;
    pub(crate) const DECREMENT: u8 = 0x06;
    pub(crate) const FLUSH: u8 = 0x08;
    pub(crate) const GETQ: u8 = 0x09;
    pub(crate) const NOOP: u8 = 0x0a;
    pub(crate) const VERSION: u8 = 0x0b;
    pub(crate) const STAT: u8 = 0x10;
    pub(crate) const SETQ: u8 = 0x11;
    pub(crate) const DELETEQ: u8 = 0x14;
    pub(crate) const TOUCH: u8 = 0x1c;
    pub(crate) const SASL_AUTH: u8 = 0x21;
}

pub(crate) mod status {
    pub(crate) const OK: u16 = 0x00;
    pub(crate) const NOT_FOUND: u16 = 0x01;
    pub(crate) const EXISTS: u16 = 0x02;
    pub(crate) const TOO_LARGE: u16 = 0x03;
    pub(crate) const NOT_STORED: u16 = 0x05;
    pub(crate) const NOT_LOGGED_IN: u16 = 0x20;
    pub(crate) const UNKNOWN_COMMAND: u16 = 0x81;
}

/// Returns the meaning of a status, for people.
pub(crate) fn status_text(status: u16) -> &'static str {
    match status {
        status::NOT_FOUND => "key not found",
        status::EXISTS => "key exists",
        status::TOO_LARGE => "value too large",
        0x04 => "invalid arguments",
        status::NOT_STORED => "item not stored",
        0x06 => "value is not a number",
        status::NOT_LOGGED_IN => "not logged in, or the log-in was refused",
        0x21 => "log-in takes a further step",
        status::UNKNOWN_COMMAND => "unknown command",
        0x82 => "out of memory",
        0x83 => "not supported",
        0x84 => "internal error",
        0x85 => "busy",
        0x86 => "temporary failure",
        _ => "unknown status",
    }
}

/// The variable parts of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Request<'a> {
    pub(crate) opcode: u8,
    pub(crate) opaque: u32,
    pub(crate) cas: u64,
    pub(crate) extras: &'a [u8],
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl Request<'_> {
    /// Appends the frame to `out`. The client has checked that key and value fit their length fields.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let body = self.extras.len() + self.key.len() + self.value.len();
        out.reserve(HEADER + body);
        let mut header = [0; HEADER];
        header[0] = REQUEST;
        header[1] = self.opcode;
        header[2..4].copy_from_slice(&low_bytes::<2>(self.key.len()));
        header[4..5].copy_from_slice(&low_bytes::<1>(self.extras.len()));
        header[8..12].copy_from_slice(&low_bytes::<4>(body));
        header[12..16].copy_from_slice(&self.opaque.to_be_bytes());
        header[16..24].copy_from_slice(&self.cas.to_be_bytes());
        out.put_slice(&header);
        out.put_slice(self.extras);
        out.put_slice(self.key);
        out.put_slice(self.value);
    }
}

/// Returns the lowest `N` bytes of a length, big-endian.
fn low_bytes<const N: usize>(length: usize) -> [u8; N] {
    let bytes = (length as u64).to_be_bytes();
    std::array::from_fn(|i| bytes[8 - N + i])
}

/// A response. Key and value are slices of the read buffer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Response {
    pub(crate) opcode: u8,
    pub(crate) status: u16,
    pub(crate) opaque: u32,
    pub(crate) cas: u64,
    /// The flags of a value: the first four bytes of the extras, or 0.
    pub(crate) flags: u32,
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
}

/// The first frame in a buffer.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Frame {
    /// A complete response, which was removed from the buffer.
    Response(Response),
    /// The beginning of a response. Holds the length of the frame, or [`HEADER`] while the header is
    /// incomplete.
    Incomplete(usize),
}

/// The reason why bytes are not a response.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum DecodeError {
    #[error("a frame begins with byte {0:#04x}, but a response begins with 0x81")]
    Magic(u8),
    #[error("the parts of a frame are longer than its body")]
    Lengths,
    #[error("a frame claims a body of {0} bytes; the limit is {1}")]
    BodyTooLong(usize, usize),
    #[error("a frame reports success of command {0:#04x}, but its body has the wrong parts")]
    Success(u8),
}

/// Returns whether a successful response has the parts that the protocol requires. A failure has a
/// message as its body, so a failure with a corrupted status is recognised.
fn has_parts_of_success(opcode: u8, extras: usize, body: usize) -> bool {
    use opcode::{ADD, DELETE, DELETEQ, GET, GETQ, NOOP, REPLACE, SET, SETQ};
    match opcode {
        GET | GETQ => extras == 4,
        SET | SETQ | ADD | REPLACE | DELETE | DELETEQ | NOOP => body == 0,
        _ => true,
    }
}

/// Removes one response from the front of `buffer`, if it is complete. A body of more than `max_body`
/// bytes is an error, before memory is allocated for it.
pub(crate) fn decode(buffer: &mut BytesMut, max_body: usize) -> Result<Frame, DecodeError> {
    let Some(mut header) = buffer.get(..HEADER) else {
        return match buffer.first() {
            Some(&magic) if magic != RESPONSE => Err(DecodeError::Magic(magic)),
            _ => Ok(Frame::Incomplete(HEADER)),
        };
    };
    let magic = header.get_u8();
    if magic != RESPONSE {
        return Err(DecodeError::Magic(magic));
    }
    let opcode = header.get_u8();
    let key_length = usize::from(header.get_u16());
    let extras_length = usize::from(header.get_u8());
    header.advance(1); // data type
    let status = header.get_u16();
    let body_length = header.get_u32() as usize;
    let (opaque, cas) = (header.get_u32(), header.get_u64());
    if body_length > max_body {
        return Err(DecodeError::BodyTooLong(body_length, max_body));
    }
    if key_length + extras_length > body_length {
        return Err(DecodeError::Lengths);
    }
    if status == status::OK && !has_parts_of_success(opcode, extras_length, body_length) {
        return Err(DecodeError::Success(opcode));
    }
    if buffer.len() < HEADER + body_length {
        return Ok(Frame::Incomplete(HEADER + body_length));
    }
    let mut value = buffer.split_to(HEADER + body_length).freeze();
    value.advance(HEADER);
    let mut extras = value.split_to(extras_length);
    let flags = if extras.len() >= 4 { extras.get_u32() } else { 0 };
    let key = value.split_to(key_length);
    Ok(Frame::Response(Response { opcode, status, opaque, cas, flags, key, value }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX_BODY: usize = 1 << 20;

    /// Encodes a response as a server does.
    fn bytes_of(response: &Response) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        let request = Request {
            opcode: response.opcode,
            opaque: response.opaque,
            cas: response.cas,
            extras: &response.flags.to_be_bytes(),
            key: &response.key,
            value: &response.value,
        };
        request.encode(&mut bytes);
        bytes[0] = RESPONSE;
        bytes[6..8].copy_from_slice(&response.status.to_be_bytes());
        bytes.to_vec()
    }

    fn decode_all(buffer: &mut BytesMut) -> Result<Vec<Response>, DecodeError> {
        let mut responses = Vec::new();
        while let Frame::Response(response) = decode(buffer, MAX_BODY)? {
            responses.push(response);
        }
        Ok(responses)
    }

    #[test]
    fn a_request_is_encoded_as_in_the_specification() {
        // The example "Add" of the specification, with an opaque and a CAS token.
        let mut out = BytesMut::new();
        let extras = [0xde, 0xad, 0xbe, 0xef, 0, 0, 0x0e, 0x10];
        let (opcode, opaque, cas) = (opcode::ADD, 0x0102_0304, 0x1122_3344_5566_7788);
        Request { opcode, opaque, cas, extras: &extras, key: b"Hello", value: b"World" }
            .encode(&mut out);
        let expected = b"\x80\x02\x00\x05\x08\x00\x00\x00\x00\x00\x00\x12\x01\x02\x03\x04\
            \x11\x22\x33\x44\x55\x66\x77\x88\xde\xad\xbe\xef\x00\x00\x0e\x10HelloWorld";
        assert_eq!(&out[..], expected);
    }

    #[test]
    fn a_wrong_first_byte_is_refused_before_the_rest_arrives() {
        assert_eq!(decode(&mut BytesMut::from(&b"H"[..]), MAX_BODY), Err(DecodeError::Magic(b'H')));
    }

    #[test]
    fn an_absurd_length_is_refused_before_memory_is_allocated() {
        let mut frame = [0; HEADER];
        frame[0] = RESPONSE;
        frame[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        let outcome = decode(&mut BytesMut::from(&frame[..]), MAX_BODY);
        assert_eq!(outcome, Err(DecodeError::BodyTooLong(u32::MAX as usize, MAX_BODY)));
    }

    #[test]
    fn parts_longer_than_the_body_are_refused() {
        let mut frame = [0; HEADER];
        frame[0] = RESPONSE;
        frame[3] = 1;
        assert_eq!(decode(&mut BytesMut::from(&frame[..]), MAX_BODY), Err(DecodeError::Lengths));
    }

    #[test]
    fn a_failure_with_a_corrupted_status_is_not_a_success() {
        use opcode::{ADD, DELETE, GET, NOOP, SET};
        for opcode in [GET, SET, ADD, DELETE, NOOP] {
            let mut frame = [0; HEADER + 9];
            (frame[0], frame[1], frame[11]) = (RESPONSE, opcode, 9);
            frame[HEADER..].copy_from_slice(b"Not found");
            let outcome = decode(&mut BytesMut::from(&frame[..]), MAX_BODY);
            assert_eq!(outcome, Err(DecodeError::Success(opcode)));
        }
    }

    fn response() -> impl Strategy<Value = Response> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        // Only statuses of failures, because successes require certain parts.
        let fields = (any::<u8>(), 1..=u16::MAX, any::<(u32, u64, u32)>());
        (fields, bytes(), bytes()).prop_map(
            |((opcode, status, (opaque, cas, flags)), key, value)| Response {
                opcode,
                status,
                opaque,
                cas,
                flags,
                key,
                value,
            },
        )
    }

    proptest! {
        #[test]
        fn responses_are_decoded_however_the_bytes_are_split(
            responses in prop::collection::vec(response(), 0..6),
            cuts in prop::collection::vec(1..60_usize, 1..20),
        ) {
            let bytes: Vec<u8> = responses.iter().flat_map(bytes_of).collect();
            let (mut buffer, mut decoded, mut rest) = (BytesMut::new(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (piece, later) = rest.split_at((*cut).min(rest.len()));
                buffer.extend_from_slice(piece);
                decoded.extend(decode_all(&mut buffer).unwrap());
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(decoded, responses);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn decoding_never_panics_or_requests_more_than_the_limit(
            mut bytes in prop::collection::vec(any::<u8>(), 0..100),
            is_response in any::<bool>(),
        ) {
            if let (true, Some(first)) = (is_response, bytes.first_mut()) {
                *first = RESPONSE;
            }
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(decoded) = decode(&mut buffer, MAX_BODY) {
                if let Frame::Incomplete(needed) = decoded {
                    prop_assert!(needed > buffer.len() && needed <= HEADER + MAX_BODY);
                    break;
                }
            }
        }
    }
}
