//! Operations in flight and the responses that they expect.

use std::time::Instant;

use super::super::frame::{Response, opcode};

/// The responses to one operation.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    One(Response),
    /// The responses to a batch, one per request, `None` for requests without a response.
    Batch(Vec<Option<Response>>),
    /// Statistics. The key of each response is the name.
    List(Vec<Response>),
}

/// An operation in flight.
#[derive(Debug)]
pub(super) struct Entry {
    /// The opaque of the first frame. Later frames have consecutive opaques.
    pub(super) first: u32,
    pub(super) shape: Shape,
    /// The index of the operation's slot.
    pub(super) slot: usize,
    pub(super) deadline: Instant,
    /// Whether all responses have arrived.
    pub(super) done: bool,
}

/// The frames of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    One {
        opcode: u8,
    },
    /// `quiet` requests and a NOOP.
    Batch {
        opcode: u8,
        quiet: u32,
    },
    List {
        opcode: u8,
    },
}

impl Shape {
    /// Returns the opcode of the response to a frame.
    pub(super) fn opcode_of(self, frame: u32) -> u8 {
        match self {
            Self::Batch { quiet, .. } if frame == quiet => opcode::NOOP,
            Self::One { opcode } | Self::Batch { opcode, .. } | Self::List { opcode } => opcode,
        }
    }

    /// Returns the number of frames.
    pub(super) fn frames(self) -> u32 {
        match self {
            Self::One { .. } | Self::List { .. } => 1,
            Self::Batch { quiet, .. } => quiet + 1,
        }
    }
}
