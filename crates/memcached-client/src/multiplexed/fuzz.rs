//! Fuzz targets: bytes of a hostile or broken server, as the decoders and the pipeline get them.
//!
//! Each test reads the stored inputs in `__fuzz__`, and then a bounded number of others. To search longer,
//! with coverage (needs `cargo install cargo-bolero` and a nightly toolchain):
//!
//! ```sh
//! cargo +nightly bolero test -p memcached-client --all-features --profile dev -T 10min multiplexed::fuzz::meta
//! ```

use std::time::{Duration, Instant};

use bolero::check;
use bytes::BytesMut;

use super::{
    codec::{Codec, DecodeError},
    frame::{Frame, Request, opcode},
    pipeline::{Pipeline, UnexpectedResponse, Writes},
};

const ITERATIONS: usize = 20_000;
const MAX_BODY: usize = 4096;
/// The longest header or line, in bytes.
const MAX_HEAD: usize = 4096;

/// Decodes all bytes, which arrive in pieces of the length of the first byte.
fn decode(codec: Codec, input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else { return };
    let mut buffer = BytesMut::new();
    for piece in bytes.chunks(usize::from(*size).max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.len();
            match codec.decode(&mut buffer, MAX_BODY) {
                Ok(Frame::Response(response)) => {
                    assert!(buffer.len() < before, "a response takes bytes");
                    assert!(response.value.len() + response.key.len() <= before);
                }
                Ok(Frame::Incomplete(length)) => {
                    assert!(length > before && length <= MAX_BODY + MAX_HEAD + 2, "{length}");
                    assert_eq!(buffer.len(), before, "bytes stay until they are complete");
                    break;
                }
                Err(_) => return,
            }
        }
    }
}

#[test]
fn binary() {
    check!(name = "binary").with_iterations(ITERATIONS).for_each(|input| {
        decode(Codec::Binary, input);
    });
}

#[test]
fn meta() {
    check!(name = "meta").with_iterations(ITERATIONS).for_each(|input| decode(Codec::Meta, input));
}

#[derive(Debug)]
enum DeliverError {
    Decode,
    Unexpected,
}

impl From<DecodeError> for DeliverError {
    fn from(_: DecodeError) -> Self {
        Self::Decode
    }
}

impl From<UnexpectedResponse> for DeliverError {
    fn from(_: UnexpectedResponse) -> Self {
        Self::Unexpected
    }
}

/// Delivers the responses in `bytes` to requests of every shape.
fn deliver(codec: Codec, bytes: &[u8]) {
    let pipeline = Pipeline::new(Writes::new(false));
    pipeline.speak(codec);
    let deadline = Instant::now() + Duration::from_secs(60);
    let request = |opcode| Request { opcode, key: b"k", ..Request::default() };
    let admit = || pipeline.admit(usize::MAX).unwrap();
    let mut slots = Vec::new();
    for opcode in [opcode::GET, opcode::SET, opcode::STAT, opcode::INCREMENT] {
        slots.push(admit().push(request(opcode), deadline).slot);
    }
    for opcode in [opcode::GETQ, opcode::DELETEQ] {
        let two = [request(opcode), request(opcode)];
        slots.push(admit().push_batch(opcode, two.into_iter(), deadline).slot);
    }
    // Some callers are gone.
    slots.drain(3..).for_each(|slot| pipeline.abandon(slot));
    let waker = std::task::Waker::noop();
    pipeline.take_bytes(&mut BytesMut::new(), &mut Writes::new(false), waker);
    let mut buffer = BytesMut::from(bytes);
    let next = || match codec.decode(&mut buffer, MAX_BODY)? {
        Frame::Response(response) => Ok(Some(response)),
        Frame::Incomplete(_) => Ok(None),
    };
    let delivered: Result<(), DeliverError> = pipeline.deliver(next, &mut Vec::new());
    assert!(pipeline.in_flight() <= 6, "{delivered:?}");
}

#[test]
fn responses() {
    check!(name = "responses").with_iterations(ITERATIONS).for_each(|input| {
        if let Some((protocol, bytes)) = input.split_first() {
            let codec = if protocol % 2 == 0 { Codec::Binary } else { Codec::Meta };
            deliver(codec, bytes);
        }
    });
}
