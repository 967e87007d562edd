//! The settings of a client: servers, credentials, deadlines and limits.

use std::{fmt, net::Ipv6Addr, path::PathBuf, str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

#[cfg(feature = "tls")]
use crate::tls::TlsSettings;

/// The port of a server if its address names no port.
pub const DEFAULT_PORT: u16 = 11211;

/// The address of one memcached server.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ServerAddress {
    /// A host and a TCP port. The host name is resolved each time that a connection is opened.
    Tcp {
        /// A host name or an IP address; IPv6 addresses are written without brackets.
        host: String,
        /// The port, [`DEFAULT_PORT`] by default.
        port: u16,
    },
    /// Like `Tcp`, with TLS. Requires the Cargo feature `tls`.
    Tls {
        /// As for `Tcp`. The certificate of the server must be for this name or address, unless
        /// [`TlsSettings::server_name`] is set.
        host: String,
        /// As for `Tcp`.
        port: u16,
    },
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// The reason why a list of servers cannot be parsed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AddressError {
    /// The list is empty.
    #[error("the list of servers is empty; write host:port, several separated by commas")]
    Empty,
    /// An element of the list is not an address.
    #[error(
        "“{0}” is not a server; write host:port, [IPv6]:port, tls://host:port or /path/of/socket"
    )]
    Invalid(String),
}

impl ServerAddress {
    /// Returns the name that libmemcached hashes to place the server on its ring. It leaves out the
    /// default port.
    pub(crate) fn ring_name(&self) -> String {
        match self {
            Self::Tcp { host, port: DEFAULT_PORT } | Self::Tls { host, port: DEFAULT_PORT } => {
                host.clone()
            }
            Self::Tcp { host, port } | Self::Tls { host, port } => format!("{host}:{port}"),
            Self::Unix(path) => format!("{}:0", path.display()),
        }
    }

    /// Parses a list of servers in the format of the variable `MEMCACHIER_SERVERS`.
    ///
    /// Servers are separated by commas, semicolons or white space. Each is `host`, `host:port`,
    /// `[IPv6]:port`, one of these after `tls://`, or the `/path` or `unix:/path` of a socket. The port is
    /// [`DEFAULT_PORT`] if it is left out.
    ///
    /// # Errors
    /// [`AddressError::Empty`] if the list names no server, [`AddressError::Invalid`] for the first
    /// element that is not an address.
    pub fn parse_list(list: &str) -> Result<Vec<Self>, AddressError> {
        let parts = list.split([',', ';']).flat_map(str::split_whitespace);
        let servers = parts.map(str::parse).collect::<Result<Vec<_>, _>>()?;
        if servers.is_empty() { Err(AddressError::Empty) } else { Ok(servers) }
    }
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(rest) = text.strip_prefix("tls://") {
            return match rest.parse() {
                Ok(Self::Tcp { host, port }) => Ok(Self::Tls { host, port }),
                _ => Err(AddressError::Invalid(text.to_owned())),
            };
        }
        let invalid = || AddressError::Invalid(text.to_owned());
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(Self::Unix(path.into()));
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Ok(Self::Tcp { host: text.to_owned(), port: DEFAULT_PORT });
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(invalid)?;
                host.parse::<Ipv6Addr>().map_err(|_| invalid())?;
                (host, port)
            }
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(is_name) {
            return Err(invalid());
        }
        let port = match port {
            "" => DEFAULT_PORT,
            port => port
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .filter(|port| *port != 0)
                .ok_or_else(invalid)?,
        };
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Tls { host, port } if host.contains(':') => write!(f, "tls://[{host}]:{port}"),
            Self::Tls { host, port } => write!(f, "tls://{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
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
    /// [`ServerStatus::protocol`](crate::ServerStatus::protocol) tells what was found. With credentials,
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

/// The treatment of keys on a server that is down.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Failover {
    /// Operations fail at once with [`Error::ServerDown`](crate::Error::ServerDown), which a cache
    /// treats as a miss. A key never lives on two servers.
    #[default]
    Miss,
    /// Operations go to the next server on the ring that is up, as with libmemcached's
    /// `remove_failed`. Values expire there after [`STAND_IN_LIFETIME`] at most.
    Eject,
}

/// The longest lifetime of a value on a server that stands in for another: 10 s.
pub const STAND_IN_LIFETIME: Duration = Duration::from_secs(10);

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

    fn list(text: &str) -> Vec<String> {
        let servers = ServerAddress::parse_list(text).unwrap();
        servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_forms_of_a_server_list_are_parsed() {
        assert_eq!(list("mc1.example.com:11311"), ["mc1.example.com:11311"]);
        assert_eq!(list(" a:1 , b:2;c:3\td:4 ,"), ["a:1", "b:2", "c:3", "d:4"]);
        assert_eq!(list("a"), ["a:11211"]);
        assert_eq!(list("[::1]:11311,[::1],::1"), ["[::1]:11311", "[::1]:11211", "[::1]:11211"]);
        assert_eq!(list("/run/m.sock;unix:/run/n.sock"), ["/run/m.sock", "/run/n.sock"]);
        assert_eq!(list("tls://a,tls://[::1]:2"), ["tls://a:11211", "tls://[::1]:2"]);
    }

    #[test]
    fn an_invalid_server_is_named_in_the_error() {
        assert_eq!(ServerAddress::parse_list(" , ;"), Err(AddressError::Empty));
        for text in [
            "a:",
            "a:b",
            "a:0",
            "a:65536",
            ":1",
            "[::1",
            "[a]:1",
            "a:1:2",
            "a/b",
            "ä",
            "tls:///run/m.sock",
            "tls://tls://a",
            "tls://",
        ] {
            let error = AddressError::Invalid(text.to_owned());
            assert_eq!(ServerAddress::parse_list(text), Err(error), "{text}");
        }
    }

    #[test]
    fn the_ring_name_leaves_out_the_default_port() {
        let names: Vec<_> = ["a", "a:11211", "a:11311", "/run/m.sock", "tls://a:11311"]
            .iter()
            .map(|text| text.parse::<ServerAddress>().unwrap().ring_name())
            .collect();
        assert_eq!(names, ["a", "a", "a:11311", "/run/m.sock:0", "a:11311"]);
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
