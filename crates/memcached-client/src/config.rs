//! What the client is told: servers, log-in, deadlines, limits.

use std::{fmt, net::Ipv6Addr, path::PathBuf, str::FromStr, time::Duration};

use secrecy::SecretString;
use thiserror::Error;

/// memcached's own port, taken where none is named.
pub const DEFAULT_PORT: u16 = 11211;

/// One memcached server.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ServerAddress {
    /// By TCP. The host is resolved anew at each connect.
    Tcp {
        /// A name or an address, IPv6 without brackets.
        host: String,
        /// [`DEFAULT_PORT`] if it was not named.
        port: u16,
    },
    /// By a unix socket.
    Unix(PathBuf),
}

/// Why a list of servers cannot be read.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no server in it.
    #[error("the list names no server; write host:port, several separated by commas")]
    Empty,
    /// One of them is no address.
    #[error("“{0}” is not a server; write host:port, [IPv6]:port or /path/of/socket")]
    Invalid(String),
}

impl ServerAddress {
    /// The name on the ring: libmemcached leaves out the default port.
    pub(crate) fn ring_name(&self) -> String {
        match self {
            Self::Tcp { host, port: DEFAULT_PORT } => host.clone(),
            Self::Tcp { host, port } => format!("{host}:{port}"),
            Self::Unix(path) => format!("{}:0", path.display()),
        }
    }

    /// Reads a list as in `MEMCACHIER_SERVERS`: separated by commas, semicolons or white space,
    /// the port left out where it is 11211; `[IPv6]:port`; `/path` or `unix:/path` of a socket.
    pub fn parse_list(list: &str) -> Result<Vec<Self>, AddressError> {
        let parts = list.split([',', ';']).flat_map(str::split_whitespace);
        let servers = parts.map(str::parse).collect::<Result<Vec<_>, _>>()?;
        if servers.is_empty() { Err(AddressError::Empty) } else { Ok(servers) }
    }
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
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
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How to log in. The password never prints.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: SecretString,
}

/// The protocol that is spoken to the servers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Protocol {
    /// The binary protocol, on one multiplexed connection per server and runtime; log-in by SASL.
    #[default]
    Binary,
    /// The text protocol through the crate memcache-async (feature `text`), one operation at a time
    /// per server and runtime; log-in by a first `set`, as MemCachier and memcached's `-Y` expect.
    #[cfg(feature = "text")]
    Text,
}

impl Protocol {
    pub(crate) fn is_text(self) -> bool {
        match self {
            Self::Binary => false,
            #[cfg(feature = "text")]
            Self::Text => true,
        }
    }
}

/// What becomes of the keys of a server that is out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Failover {
    /// They fail at once with [`Error::ServerOut`](crate::Error::ServerOut), which a cache takes
    /// for a miss: no key ever lives in two places.
    #[default]
    Miss,
    /// They move to the next server on the ring that is well, as with libmemcached's
    /// `remove_failed`, and live there for [`STAND_IN_LIFETIME`] at most.
    Eject,
}

/// How long a value lives on a server that stands in for another.
pub const STAND_IN_LIFETIME: Duration = Duration::from_secs(10);

/// Everything that can be set. Start from [`Config::new`] and change fields.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The servers, in the order in which every client names them.
    pub servers: Vec<ServerAddress>,
    /// How to log in. Default: not at all.
    pub credentials: Option<Credentials>,
    /// Default: [`Protocol::Binary`].
    pub protocol: Protocol,
    /// Deadline over name resolution, connect and log-in together. Default: 2 s.
    pub connect_timeout: Duration,
    /// Deadline of an operation, from the call to the answer. Default: 250 ms.
    pub timeout: Duration,
    /// How soon after a failed probe a server that is out is probed again. Default: 500 ms.
    pub retry_timeout: Duration,
    /// The most that this grows to while probes go on failing. Default: 1.5 s: a probe is one
    /// connect, and no request waits for it.
    pub dead_timeout: Duration,
    /// The most that it grows to while the server refuses the log-in. Default: 30 s.
    pub login_retry_timeout: Duration,
    /// Default: [`Failover::Miss`].
    pub failover: Failover,
    /// Operations that wait for one server on one runtime; a batch counts as one. Default: 10,000.
    pub max_in_flight: usize,
    /// Key and value together; more is not sent. Default: 1 MiB, as memcached and MemCachier.
    pub max_item_bytes: usize,
}

impl Config {
    /// The defaults for these servers.
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        let servers = ServerAddress::parse_list(text).unwrap();
        servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_forms_of_a_server_list_are_understood() {
        assert_eq!(list("mc1.example.com:11311"), ["mc1.example.com:11311"]);
        assert_eq!(list(" a:1 , b:2;c:3\td:4 ,"), ["a:1", "b:2", "c:3", "d:4"]);
        assert_eq!(list("a"), ["a:11211"]);
        assert_eq!(list("[::1]:11311,[::1],::1"), ["[::1]:11311", "[::1]:11211", "[::1]:11211"]);
        assert_eq!(list("/run/m.sock;unix:/run/n.sock"), ["/run/m.sock", "/run/n.sock"]);
    }

    #[test]
    fn what_is_no_server_is_named() {
        assert_eq!(ServerAddress::parse_list(" , ;"), Err(AddressError::Empty));
        for text in ["a:", "a:b", "a:0", "a:65536", ":1", "[::1", "[a]:1", "a:1:2", "a/b", "ä"] {
            let error = AddressError::Invalid(text.to_owned());
            assert_eq!(ServerAddress::parse_list(text), Err(error), "{text}");
        }
    }

    #[test]
    fn the_ring_name_leaves_out_the_default_port() {
        let names: Vec<_> = ["a", "a:11211", "a:11311", "/run/m.sock"]
            .iter()
            .map(|text| text.parse::<ServerAddress>().unwrap().ring_name())
            .collect();
        assert_eq!(names, ["a", "a", "a:11311", "/run/m.sock:0"]);
    }

    #[test]
    fn a_password_never_prints() {
        let mut config = Config::new(vec![]);
        let password = "hunter2".into();
        config.credentials = Some(Credentials { username: "user".to_owned(), password });
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
