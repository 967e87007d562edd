//! The settings of a client: servers, credentials, deadlines and limits.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

#[cfg(feature = "compression")]
use crate::compression::Compression;
#[cfg(feature = "tls")]
use crate::stream::tls::TlsSettings;
use crate::{
    address::{AddressError, ServerAddress},
    error::Error,
    events::Observer,
    key::shown,
    protocol::Protocol,
};

impl Config {
    /// Parses a list of servers like [`ServerAddress::parse_list`], in which `host:port` may be followed by
    /// `:weight`. If one is, the distribution is [`Distribution::KetamaWeighted`], in which the others have
    /// the weight 1.
    ///
    /// # Errors
    /// As [`ServerAddress::parse_list`].
    pub fn parse(list: &str) -> Result<Self, AddressError> {
        let parts = list.split([',', ';']).flat_map(str::split_whitespace);
        let parsed = parts.map(|part| match part.parse() {
            Ok(server) => Ok((server, None)),
            Err::<ServerAddress, AddressError>(error) => {
                let (server, weight) = part.rsplit_once(':').ok_or_else(|| error.clone())?;
                let weight = weight.parse().ok().filter(|weight| *weight > 0);
                match (server.parse(), weight) {
                    // A weight follows a port, so that it is not mistaken for one.
                    (Ok(address), Some(_)) if server.contains(':') => Ok((address, weight)),
                    _ => Err(error),
                }
            }
        });
        let (servers, weights): (Vec<_>, Vec<_>) =
            parsed.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        if servers.is_empty() {
            return Err(AddressError::Empty);
        }
        let mut config = Self::new(servers);
        if weights.iter().any(Option::is_some) {
            let weights = weights.into_iter().map(|weight| weight.unwrap_or(1)).collect();
            config.distribution = Distribution::KetamaWeighted(weights);
        }
        Ok(config)
    }
}

/// A user name and password. The `Debug` output leaves out the password.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: SecretString,
}

/// How keys are distributed to servers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Distribution {
    /// As pylibmc with `ketama: True`: each server gets about the same number of keys.
    #[default]
    Ketama,
    /// As pylibmc with `ketama_weighted: True`: servers get keys in proportion to their weights, of which
    /// there is one per server. With equal weights, too, the servers of keys are others than with `Ketama`.
    KetamaWeighted(Vec<u32>),
}

/// The treatment of keys on a server that is down.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Failover {
    /// Operations fail at once with [`Error::ServerDown`], which a cache
    /// treats as a miss. A key never lives on two servers.
    #[default]
    Miss,
    /// Operations go to the next server on the ring that is up, as with libmemcached's
    /// `remove_failed`. Values expire there after [`STAND_IN_LIFETIME`](crate::STAND_IN_LIFETIME) at most.
    Eject,
}

/// The settings of a [`Client`](crate::Client). Start from [`Config::new`] and change fields.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The servers. All clients of a cache must list them in the same order.
    pub servers: Vec<ServerAddress>,
    /// The user name and password. Default: `None`, no log-in.
    pub credentials: Option<Credentials>,
    /// The protocol. Default: [`Protocol::Binary`].
    pub protocol: Protocol,
    /// Deadline for opening a connection: name resolution, connect and log-in together.
    /// Default: 2 s.
    pub connect_timeout: Duration,
    /// Deadline of an operation, from the call to the reply. Default: 250 ms.
    pub timeout: Duration,
    /// Pause between the first two probes of a server that is down; it doubles with each further
    /// probe. Default: 500 ms.
    pub retry_timeout: Duration,
    /// Longest pause between two probes. Default: 1.5 s, because a probe costs one connection and
    /// no request waits for it.
    pub dead_timeout: Duration,
    /// Longest pause between two probes while the server refuses the log-in. Default: 30 s.
    pub login_retry_timeout: Duration,
    /// The treatment of keys on a server that is down. Default: [`Failover::Miss`].
    pub failover: Failover,
    /// Most operations in flight to one server on one runtime; a batch counts as one.
    /// Default: 10,000.
    pub max_in_flight: usize,
    /// Longest item, in bytes of key and value together. Default: 1 MiB, the limit of memcached and
    /// MemCachier. A server that sends a longer value counts as down, so raise this together with the
    /// option `-I` of memcached.
    pub max_item_bytes: usize,
    /// Which values are compressed. Default: none. The text protocol compresses none, because it has no
    /// flags.
    #[cfg(feature = "compression")]
    pub compression: Compression,
    /// How keys are distributed to servers. Default: [`Distribution::Ketama`].
    pub distribution: Distribution,
    /// Receives an event for each operation. Default: none.
    pub observer: Option<Observer>,
    /// The settings of TLS. Default: the authorities that the platform trusts.
    #[cfg(feature = "tls")]
    pub tls: TlsSettings,
}

impl Config {
    /// Returns the default settings for `servers`.
    #[must_use]
    pub fn new(servers: Vec<ServerAddress>) -> Self {
        Self {
            servers,
            credentials: None,
            protocol: Protocol::default(),
            connect_timeout: Duration::from_secs(2),
            timeout: Duration::from_millis(250),
            retry_timeout: Duration::from_millis(500),
            dead_timeout: Duration::from_millis(1500),
            login_retry_timeout: Duration::from_secs(30),
            failover: Failover::default(),
            max_in_flight: 10_000,
            max_item_bytes: 1024 * 1024,
            #[cfg(feature = "compression")]
            compression: Compression::default(),
            distribution: Distribution::default(),
            observer: None,
            #[cfg(feature = "tls")]
            tls: TlsSettings::default(),
        }
    }
}

/// The longest text of a server that is shown, in characters.
const MAX_SERVER_TEXT: usize = 1000;

impl Config {
    /// Returns a text that a server sent, fit for a log or a terminal: the password is masked, control
    /// characters are escaped, and a long text is cut.
    pub(crate) fn server_text(&self, text: &[u8]) -> String {
        let text = String::from_utf8_lossy(text);
        let text = match &self.credentials {
            Some(login) if !login.password.expose_secret().is_empty() => {
                text.replace(login.password.expose_secret(), "***")
            }
            _ => text.into_owned(),
        };
        let mut shown = String::with_capacity(text.len());
        for c in text.chars().take(MAX_SERVER_TEXT) {
            if is_unprintable(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
        }
        shown
    }

    /// Fails if an item is longer than [`Config::max_item_bytes`]. `length` is that of its value.
    pub(crate) fn check_size(&self, key: &[u8], length: usize) -> Result<(), Error> {
        let (bytes, limit) = (key.len() + length, self.max_item_bytes);
        if bytes > limit {
            return Err(Error::TooLarge { key: shown(key), bytes, limit, is_servers: false });
        }
        Ok(())
    }

    /// The longest body of a response, in bytes: that of the largest item, with its flags.
    pub(crate) fn max_response_body(&self) -> usize {
        self.max_item_bytes.saturating_add(64)
    }
}

/// Control characters, and those that reorder the text around them (Unicode's bidirectional controls).
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_follow_the_port() {
        let weighted = |list: &str| {
            let config = Config::parse(list)?;
            let servers: Vec<_> = config.servers.iter().map(ToString::to_string).collect();
            Ok::<_, AddressError>((servers.join(" "), config.distribution))
        };
        let (servers, distribution) = weighted("a:1:3, b:2, tls://[::1]:3:4").unwrap();
        assert_eq!(servers, "a:1 b:2 tls://[::1]:3");
        assert_eq!(distribution, Distribution::KetamaWeighted(vec![3, 1, 4]));
        let plain = ("a:1 b:11211".to_owned(), Distribution::Ketama);
        assert_eq!(weighted("a:1 b"), Ok(plain));
        for wrong in ["a:1:0", "a:1:x", "a:1:2:3"] {
            let error = AddressError::Invalid(wrong.to_owned());
            assert_eq!(weighted(wrong), Err(error), "{wrong}");
        }
        assert_eq!(weighted(","), Err(AddressError::Empty));
    }

    #[test]
    fn debug_output_leaves_out_the_password() {
        let mut config = Config::new(vec![]);
        let password = "hunter2".into();
        config.credentials = Some(Credentials { username: "user".to_owned(), password });
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_text_of_a_server_is_shown_without_password_and_control_characters() {
        let mut config = Config::new(vec![]);
        let password = "hunter2".into();
        config.credentials = Some(Credentials { username: "user".to_owned(), password });
        let shown = config.server_text(b"no 'user hunter2'\x1b[31m\xff\xe2\x80\xae");
        assert_eq!(shown, "no 'user ***'\\u{1b}[31m\u{fffd}\\u{202e}");
        assert_eq!(config.server_text(&[b'x'; 5000]).len(), MAX_SERVER_TEXT);
    }
}
