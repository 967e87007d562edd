//! The two protocols that are spoken on a multiplexed connection.

use bytes::BytesMut;
use thiserror::Error;

use super::{
    binary,
    frame::{Frame, Request},
    meta,
};

/// How requests and responses are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Codec {
    #[default]
    Binary,
    Meta,
}

/// The reason why bytes are not a response.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum DecodeError {
    #[error(transparent)]
    Binary(#[from] binary::DecodeError),
    #[error(transparent)]
    Meta(#[from] meta::DecodeError),
}

impl Codec {
    /// Appends a request to `out`.
    pub(crate) fn encode(self, request: &Request<'_>, out: &mut BytesMut) {
        match self {
            Self::Binary => binary::encode(request, out),
            Self::Meta => meta::encode(request, out),
        }
    }

    /// Removes one response from the front of `buffer`, if it is complete. A body of more than
    /// `max_body` bytes is an error, before memory is allocated for it.
    pub(crate) fn decode(
        self,
        buffer: &mut BytesMut,
        max_body: usize,
    ) -> Result<Frame, DecodeError> {
        match self {
            Self::Binary => Ok(binary::decode(buffer, max_body)?),
            Self::Meta => Ok(meta::decode(buffer, max_body)?),
        }
    }
}
