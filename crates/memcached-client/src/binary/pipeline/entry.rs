//! What waits for responses, and which ones.

use std::time::Instant;

use super::super::protocol::{Response, opcode};

/// Responses of one operation.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    One(Response),
    /// Of a batch: what the server answered to each quiet request, `None` where it kept silent.
    Batch(Vec<Option<Response>>),
    /// Statistics, each with its name as key.
    List(Vec<Response>),
}

/// What waits for responses, in the order in which it was sent.
#[derive(Debug)]
pub(super) struct Entry {
    /// The first of the opaques of its frames, which count up.
    pub(super) first: u32,
    pub(super) shape: Shape,
    pub(super) slot: usize,
    pub(super) deadline: Instant,
    pub(super) done: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    One { opcode: u8 },
    Batch { opcode: u8, quiet: u32 },
    List { opcode: u8 },
}

impl Shape {
    /// The opcode of the response to a frame.
    pub(super) fn opcode_of(self, frame: u32) -> u8 {
        match self {
            Self::Batch { quiet, .. } if frame == quiet => opcode::NOOP,
            Self::One { opcode } | Self::Batch { opcode, .. } | Self::List { opcode } => opcode,
        }
    }

    pub(super) fn frames(self) -> u32 {
        match self {
            Self::One { .. } | Self::List { .. } => 1,
            Self::Batch { quiet, .. } => quiet + 1,
        }
    }
}
