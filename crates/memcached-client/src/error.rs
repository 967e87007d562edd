//! Why an operation gave no answer.

use std::time::Duration;

use thiserror::Error;

use crate::{config::ServerAddress, key::KeyError, types::Command};

/// Why an operation gave no answer. Never holds credentials or values.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The key cannot be sent; nothing was.
    #[error("the key is not valid: {0}")]
    Key(#[from] KeyError),
    /// Key and value together are longer than [`Config::max_item_bytes`], or than the server
    /// takes.
    ///
    /// [`Config::max_item_bytes`]: crate::Config::max_item_bytes
    #[error("the item is too large: {bytes} bytes")]
    TooLarge {
        /// Bytes of key and value.
        bytes: usize,
    },
    /// The server failed a moment ago and no probe has reached it since. Nothing was sent; the
    /// error returns at once.
    #[error("the server {0} is down")]
    ServerDown(ServerAddress),
    /// No answer within [`Config::timeout`]. The operation may or may not have been carried out.
    ///
    /// [`Config::timeout`]: crate::Config::timeout
    #[error("the server {server} did not answer within {limit:?}")]
    Timeout {
        /// Which server.
        server: ServerAddress,
        /// The deadline that passed.
        limit: Duration,
    },
    /// The connection failed or could not be opened. An operation that was on its way may or may
    /// not have been carried out.
    #[error("the connection to {server} failed: {reason}")]
    Connection {
        /// Which server.
        server: ServerAddress,
        /// In the words of the system or of the server.
        reason: String,
    },
    /// As many operations as [`Config::max_in_flight`] allows wait for this server already, or
    /// 64 MiB of requests. Nothing was sent.
    ///
    /// [`Config::max_in_flight`]: crate::Config::max_in_flight
    #[error("{limit} operations, or too many bytes, wait for the server {server} already")]
    Overloaded {
        /// Which server.
        server: ServerAddress,
        /// The limit that was reached.
        limit: usize,
    },
    /// The protocol in use does not have the command (see [`Protocol::supports`]). Nothing was
    /// sent.
    ///
    /// [`Protocol::supports`]: crate::Protocol::supports
    #[error("the text protocol's library does not have {0:?}")]
    Unsupported(Command),
    /// The server answered that it will not do this.
    #[error("the server refused: {reason}")]
    Refused {
        /// Status of the binary protocol, where there was one.
        status: Option<u16>,
        /// The meaning of the status, or the server's own words.
        reason: String,
    },
}

impl Error {
    /// Whether the server, not the request, is the cause: the same request may succeed later.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::ServerDown(_)
                | Self::Timeout { .. }
                | Self::Connection { .. }
                | Self::Overloaded { .. }
        )
    }
}
