//! The addresses of servers.

use std::{fmt, net::Ipv6Addr, path::PathBuf, str::FromStr};

use thiserror::Error;

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
        /// [`TlsSettings::server_name`](crate::TlsSettings::server_name) is set.
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
}
