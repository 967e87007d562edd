//! Errors of operations.

use std::time::Duration;

use thiserror::Error;

use crate::{address::ServerAddress, key::KeyError, types::Command};

/// The reason why an operation failed. Never holds credentials or values.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The key is not valid. The operation was not sent.
    #[error("the key “{key}” is not valid: {reason}")]
    Key {
        /// The key, escaped and cut.
        key: String,
        /// The rule that the key breaks.
        reason: KeyError,
    },
    /// Key and value together exceed [`Config::max_item_bytes`] or the limit of the server.
    ///
    /// [`Config::max_item_bytes`]: crate::Config::max_item_bytes
    #[error("the item “{key}” is too large: {bytes} bytes, and {} {limit}", whose_limit(*.is_servers))]
    TooLarge {
        /// The key, escaped and cut.
        key: String,
        /// Bytes of key and value.
        bytes: usize,
        /// [`Config::max_item_bytes`](crate::Config::max_item_bytes). If the server refused the item, its
        /// own limit is lower.
        limit: usize,
        /// Whether the server refused the item. Otherwise it was not sent.
        is_servers: bool,
    },
    /// The server has failed, and no probe has reached it since. The operation was not sent; the
    /// error is returned without waiting.
    #[error("the server {0} is down")]
    ServerDown(ServerAddress),
    /// The server did not answer within [`Config::timeout`]. The operation may or may not have been
    /// carried out.
    ///
    /// [`Config::timeout`]: crate::Config::timeout
    #[error("the server {server} did not answer within {limit:?}")]
    Timeout {
        /// The server.
        server: ServerAddress,
        /// The deadline that was exceeded.
        limit: Duration,
    },
    /// The connection failed or could not be opened. An operation in flight may or may not have
    /// been carried out.
    #[error("the connection to {server} failed: {reason}")]
    Connection {
        /// The server.
        server: ServerAddress,
        /// The error message of the system or of the server.
        reason: String,
    },
    /// [`Config::max_in_flight`] operations or 64 MiB of requests are waiting for the server
    /// already. The operation was not sent.
    ///
    /// [`Config::max_in_flight`]: crate::Config::max_in_flight
    #[error("{limit} operations or 64 MiB of requests are waiting for the server {server} already")]
    Overloaded {
        /// The server.
        server: ServerAddress,
        /// The value of [`Config::max_in_flight`](crate::Config::max_in_flight).
        limit: usize,
    },
    /// The protocol in use does not have the command: see
    /// [`Protocol::supports`](crate::Protocol::supports). The operation was not sent.
    #[error("{0:?} is not supported with the text protocol; use the binary protocol")]
    Unsupported(Command),
    /// The server refused the operation.
    #[error("the server {server} refused{}: {reason}", of_key(.key.as_deref()))]
    Refused {
        /// The server.
        server: ServerAddress,
        /// The key, escaped and cut, if the operation has one.
        key: Option<String>,
        /// The status code, with the binary protocol.
        status: Option<u16>,
        /// The meaning of the status code, or the server's error message.
        reason: String,
    },
}

fn whose_limit(is_servers: bool) -> &'static str {
    if is_servers { "the limit of the server is below" } else { "the limit is" }
}

fn of_key(key: Option<&str>) -> String {
    key.map_or_else(String::new, |key| format!(" an operation on “{key}”"))
}

impl Error {
    /// Returns whether the server is the cause rather than the request, which may succeed later.
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
