//! Encodes and decodes frames of memcached's binary protocol. Does no I/O.
//!
//! The format is specified in memcached's wiki (`BinaryProtocolRevamped`): a header of 24 bytes, then
//! extras, key and value. Numbers are big-endian.

use bytes::{Buf, BufMut, BytesMut};
use thiserror::Error;

use super::frame::{Frame, Opcodes, Request, Response, opcode, status};

/// The length of a header, in bytes.
pub(crate) const HEADER: usize = 24;
/// The first byte of a request.
const REQUEST: u8 = 0x80;
/// The first byte of a response.
const RESPONSE: u8 = 0x81;

/// Appends a request to `out`. The client has checked that key and value fit their length fields.
pub(crate) fn encode(request: &Request<'_>, out: &mut BytesMut) {
    let body = request.extras.len() + request.key.len() + request.value.len();
    out.reserve(HEADER + body);
    let mut header = [0; HEADER];
    header[0] = REQUEST;
    header[1] = request.opcode;
    header[2..4].copy_from_slice(&low_bytes::<2>(request.key.len()));
    header[4..5].copy_from_slice(&low_bytes::<1>(request.extras.len()));
    header[8..12].copy_from_slice(&low_bytes::<4>(body));
    header[12..16].copy_from_slice(&request.opaque.to_be_bytes());
    header[16..24].copy_from_slice(&request.cas.to_be_bytes());
    out.put_slice(&header);
    out.put_slice(request.extras);
    out.put_slice(request.key);
    out.put_slice(request.value);
}

/// Splits requests off that [`encode`] has appended.
pub(crate) fn encoded_requests(mut bytes: &[u8]) -> impl Iterator<Item = Request<'_>> {
    std::iter::from_fn(move || {
        let mut header = bytes.get(1..HEADER)?;
        let opcode = header.get_u8();
        let key_length = usize::from(header.get_u16());
        let extras_length = usize::from(header.get_u8());
        header.advance(3); // data type and vbucket
        let body_length = header.get_u32() as usize;
        let (opaque, cas) = (header.get_u32(), header.get_u64());
        let (body, rest) = bytes[HEADER..].split_at(body_length);
        bytes = rest;
        let (extras, body) = body.split_at(extras_length);
        let (key, value) = body.split_at(key_length);
        Some(Request { opcode, opaque, cas, extras, key, value })
    })
}

/// Returns the lowest `N` bytes of a length, big-endian.
fn low_bytes<const N: usize>(length: usize) -> [u8; N] {
    let bytes = (length as u64).to_be_bytes();
    std::array::from_fn(|i| bytes[8 - N + i])
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
    use opcode::{ADD, APPEND, DELETE, DELETEQ, GAT, GET, GETQ, NOOP, PREPEND, REPLACE, SET, SETQ};
    match opcode {
        GET | GETQ | GAT => extras == 4,
        SET | SETQ | ADD | REPLACE | APPEND | PREPEND | DELETE | DELETEQ | NOOP => body == 0,
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
    let flags = if extras_length >= 4 { (&value[..4]).get_u32() } else { 0 };
    value.advance(extras_length);
    let key = value.split_to(key_length);
    let answers = Opcodes::of(&[opcode]);
    let (opaque, is_new) = (Some(opaque), false);
    Ok(Frame::Response(Response { answers, status, opaque, cas, flags, is_new, key, value }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    const MAX_BODY: usize = 1 << 20;

    /// Encodes a response as a server does.
    fn bytes_of(response: &Response) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        let request = Request {
            opcode: (0..64).find(|opcode| response.answers.contains(*opcode)).unwrap(),
            opaque: response.opaque.unwrap(),
            cas: response.cas,
            extras: &response.flags.to_be_bytes(),
            key: &response.key,
            value: &response.value,
        };
        encode(&request, &mut bytes);
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
        let request =
            Request { opcode, opaque, cas, extras: &extras, key: b"Hello", value: b"World" };
        encode(&request, &mut out);
        let expected = b"\x80\x02\x00\x05\x08\x00\x00\x00\x00\x00\x00\x12\x01\x02\x03\x04\
            \x11\x22\x33\x44\x55\x66\x77\x88\xde\xad\xbe\xef\x00\x00\x0e\x10HelloWorld";
        assert_eq!(&out[..], expected);
        encode(&Request::default(), &mut out);
        assert!(encoded_requests(&out).eq([request, Request::default()]));
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
        let fields = (0..64_u8, 1..u16::MAX, any::<(u32, u64, u32)>());
        (fields, bytes(), bytes()).prop_map(
            |((opcode, status, (opaque, cas, flags)), key, value)| Response {
                answers: Opcodes::of(&[opcode]),
                status,
                opaque: Some(opaque),
                cas,
                flags,
                is_new: false,
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
