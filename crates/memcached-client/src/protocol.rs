//! The protocols of memcached.

use std::str::FromStr;

use thiserror::Error;

/// The protocol between client and servers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Protocol {
    /// The binary protocol, on one multiplexed connection per server and runtime, with log-in by
    /// SASL.
    #[default]
    Binary,
    /// The meta protocol of memcached 1.6 and newer: lines of text, on one multiplexed connection as with
    /// the binary protocol, and with the same commands.
    ///
    /// The client logs in with an initial `set`, as `memcached -Y` and MemCachier expect; there is no
    /// log-in by SASL.
    Meta,
    /// Whichever the server speaks: the binary protocol, else the meta protocol, else (with the feature
    /// `text`) the text protocol.
    ///
    /// Each connection finds out again, so that a server may be upgraded or replaced by a proxy.
    /// [`ServerStatus::protocol`](crate::ServerStatus::protocol) is the result. With credentials,
    /// log-in by SASL is tried first, and the initial `set` of the other protocols only if the server does
    /// not speak the binary one.
    Auto,
    /// The text protocol, by the crate memcache-async. Requires the feature `text`.
    ///
    /// Each server carries out one operation at a time per runtime. The client logs in with an
    /// initial `set`, as MemCachier and `memcached -Y` expect.
    #[cfg(feature = "text")]
    Text,
}

impl Protocol {
    pub(crate) fn is_text(self) -> bool {
        match self {
            Self::Binary | Self::Meta | Self::Auto => false,
            #[cfg(feature = "text")]
            Self::Text => true,
        }
    }

    /// Returns the name, as in `MEMCACHE_PROTOCOL`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Meta => "meta",
            Self::Auto => "auto",
            #[cfg(feature = "text")]
            Self::Text => "text",
        }
    }
}

/// A name that is not one of [`Protocol::name`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("“{0}” is not a protocol; use auto, binary, meta or text")]
pub struct UnknownProtocol(String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    /// Parses a name. `text` requires the feature `text`.
    fn from_str(name: &str) -> Result<Self, UnknownProtocol> {
        match name {
            "auto" => Ok(Self::Auto),
            "binary" => Ok(Self::Binary),
            "meta" => Ok(Self::Meta),
            #[cfg(feature = "text")]
            "text" => Ok(Self::Text),
            _ => Err(UnknownProtocol(name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_parsed_from_its_name() {
        for protocol in [Protocol::Auto, Protocol::Binary, Protocol::Meta] {
            assert_eq!(protocol.name().parse(), Ok(protocol));
        }
        let error = "ascii".parse::<Protocol>().unwrap_err().to_string();
        assert_eq!(error, "“ascii” is not a protocol; use auto, binary, meta or text");
    }
}
