//! Requests and responses in memory, common to both protocols.
//!
//! They have the parts of the binary protocol, which is the more regular one; [`meta`](super::meta)
//! translates. Does no I/O.

use bytes::Bytes;

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
    pub(crate) const APPEND: u8 = 0x0e;
    pub(crate) const PREPEND: u8 = 0x0f;
    pub(crate) const STAT: u8 = 0x10;
    pub(crate) const SETQ: u8 = 0x11;
    pub(crate) const DELETEQ: u8 = 0x14;
    pub(crate) const TOUCH: u8 = 0x1c;
    pub(crate) const GAT: u8 = 0x1d;
    pub(crate) const SASL_AUTH: u8 = 0x21;
}

/// The statuses of the binary protocol, and [`REFUSED`](status::REFUSED).
pub(crate) mod status {
    pub(crate) const OK: u16 = 0x00;
    pub(crate) const NOT_FOUND: u16 = 0x01;
    pub(crate) const EXISTS: u16 = 0x02;
    pub(crate) const TOO_LARGE: u16 = 0x03;
    pub(crate) const NOT_STORED: u16 = 0x05;
    pub(crate) const NOT_LOGGED_IN: u16 = 0x20;
    pub(crate) const UNKNOWN_COMMAND: u16 = 0x81;
    /// An error with a message instead of a status: the value is the message.
    pub(crate) const REFUSED: u16 = u16::MAX;
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
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Request<'a> {
    pub(crate) opcode: u8,
    pub(crate) opaque: u32,
    pub(crate) cas: u64,
    /// The extras of the binary protocol: flags and lifetime of a stored item, the lifetime of a touch,
    /// or delta, initial value and lifetime of a counter. In the meta protocol alone, a get may have the
    /// lifetime of an empty entry that it creates if there is none.
    pub(crate) extras: &'a [u8],
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// Which requests a response can answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Opcodes(u64);

impl Opcodes {
    /// Returns the set of `opcodes`. An opcode of 64 or more, which no request has, is left out.
    pub(crate) const fn of(opcodes: &[u8]) -> Self {
        let (mut set, mut i) = (0, 0);
        while i < opcodes.len() {
            if opcodes[i] < 64 {
                set |= 1 << opcodes[i];
            }
            i += 1;
        }
        Self(set)
    }

    pub(crate) const fn contains(self, opcode: u8) -> bool {
        opcode < 64 && self.0 & (1 << opcode) != 0
    }
}

/// A response. Key and value are slices of the read buffer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Response {
    /// The requests that it can answer.
    pub(crate) answers: Opcodes,
    pub(crate) status: u16,
    /// The opaque of the request; `None` if the server did not return it, so that the response belongs
    /// to the oldest request.
    pub(crate) opaque: Option<u32>,
    pub(crate) cas: u64,
    /// The flags of a value, or 0.
    pub(crate) flags: u32,
    /// Whether the request has created the entry, which is empty, and no other client has asked for it
    /// (the flag `W` of the meta protocol).
    pub(crate) is_new: bool,
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
}

impl Response {
    /// Returns whether it answers only the NOOP that ends a batch.
    pub(crate) fn is_end_of_batch(&self) -> bool {
        self.answers == Opcodes::of(&[opcode::NOOP])
    }
}

/// The first frame in a buffer.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Frame {
    /// A complete response, which was removed from the buffer.
    Response(Response),
    /// The beginning of a response. Holds the length of the frame as far as it is known.
    Incomplete(usize),
}
