//! Opens a connection of the text protocol and logs in.

use std::io;

use memcache_async::ascii::Protocol;
use secrecy::ExposeSecret;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::checked_stream::{CheckedStream, ReplyLine, ReplyLog};
use crate::{
    config::{Config, Credentials, ServerAddress},
    health::Outage,
    stream::Stream,
    types::{EXPIRED, WireItem, next_connection},
};

/// The key of a log-in with `memcached -Y`, which ignores it.
const LOGIN_KEY: &str = "login";

/// An open connection.
pub(crate) struct Session {
    pub(super) number: u64,
    pub(super) protocol: Protocol<CheckedStream<Stream>>,
    pub(super) log: ReplyLog,
    /// [`Health::outages`](crate::health::Health::outages) when the session was opened.
    pub(super) outages_at_opening: u64,
}

impl Session {
    /// Adds an item, and requires the reply `STORED`. memcache-async alone treats every reply but
    /// `NOT_STORED` as success.
    pub(super) async fn add(&mut self, key: &str, item: &WireItem<'_>) -> io::Result<bool> {
        match self.protocol.add(key, item.value, item.expiration).await {
            Ok(()) if self.log.last() == Some(ReplyLine::Stored) => Ok(true),
            Ok(()) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns `entry` if the server sent it for `key`, which memcache-async does not check.
    pub(super) fn check_key<T>(&self, entry: Option<T>, key: &str) -> io::Result<Option<T>> {
        let keys = self.log.keys();
        if keys.iter().all(|received| received == key) && keys.len() == usize::from(entry.is_some())
        {
            Ok(entry)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "a value for another key"))
        }
    }
}

/// Connects, logs in, and waits for the reply to `version`.
pub(crate) async fn establish(address: &ServerAddress, config: &Config) -> Result<Session, Outage> {
    open(address, config).await.map_err(|outage| outage.shown(config))
}

async fn open(address: &ServerAddress, config: &Config) -> Result<Session, Outage> {
    let stream = match &config.credentials {
        None => connect(address, config).await?,
        Some(credentials) => log_in(address, credentials, config).await?,
    };
    let log = ReplyLog::default();
    log.begin();
    let protocol =
        Protocol::new(CheckedStream::new(stream, log.clone(), config.max_response_body()));
    let mut session = Session { number: next_connection(), protocol, log, outages_at_opening: 0 };
    match session.protocol.version().await {
        Ok(_) => Ok(session),
        Err(error) => Err(match session.log.last() {
            Some(ReplyLine::Error(message)) => Outage::Login(message),
            _ => outage_of(&error),
        }),
    }
}

async fn connect(address: &ServerAddress, config: &Config) -> Result<Stream, Outage> {
    Stream::connect(address, config.connect_timeout).await.map_err(|error| outage_of(&error))
}

/// Logs in with a `set`, in the format of memcached first, then in MemCachier's.
///
/// `memcached -Y` expects user and password as the value of any key; MemCachier expects the user as
/// the key. Each refuses the format of the other. A server without log-in would store the password,
/// so the first `set` stores an item that has expired already.
async fn log_in(
    address: &ServerAddress,
    credentials: &Credentials,
    config: &Config,
) -> Result<Stream, Outage> {
    let (user, password) = (&credentials.username, credentials.password.expose_secret());
    let is_unsafe = |text: &str| text.is_empty() || text.contains(|c: char| c.is_ascii_control());
    if is_unsafe(user) || is_unsafe(password) || user.contains(' ') {
        let reason =
            "user or password is empty or has characters that the text protocol cannot send";
        return Err(Outage::Login(reason.to_owned()));
    }
    let both = format!("{user} {password}");
    let for_memcached = format!("set {LOGIN_KEY} 0 {EXPIRED} {}\r\n{both}\r\n", both.len());
    let for_memcachier = format!("set {user} 0 0 {}\r\n{password}\r\n", password.len());
    match try_login(address, &for_memcached, config).await {
        // Only a server that refused the format gets the other one. A proxy for a server that is
        // down answers SERVER_ERROR, and might later store the second `set` with the password.
        Err(Outage::Login(line)) if line.starts_with("CLIENT_ERROR") || line == "ERROR" => {
            try_login(address, &for_memcachier, config).await
        }
        outcome => outcome,
    }
}

async fn try_login(
    address: &ServerAddress,
    request: &str,
    config: &Config,
) -> Result<Stream, Outage> {
    /// The longest line that is read as the reply, in bytes.
    const MAX_REPLY: u64 = 1024;
    let mut stream = connect(address, config).await?;
    stream.write_all(request.as_bytes()).await.map_err(|error| outage_of(&error))?;
    let mut line = Vec::new();
    // The reader must not read beyond the line, because its buffer is thrown away.
    let mut reader = BufReader::with_capacity(1, tokio::io::AsyncReadExt::take(stream, MAX_REPLY));
    reader.read_until(b'\n', &mut line).await.map_err(|error| outage_of(&error))?;
    if line == b"STORED\r\n" {
        Ok(reader.into_inner().into_inner())
    } else {
        Err(Outage::Login(String::from_utf8_lossy(&line).trim_end().to_owned()))
    }
}

/// Converts an error of memcache-async or the socket.
pub(super) fn outage_of(error: &io::Error) -> Outage {
    match error.kind() {
        io::ErrorKind::InvalidData => Outage::Protocol(error.to_string()),
        io::ErrorKind::UnexpectedEof => {
            Outage::Connection("the server closed the connection".to_owned())
        }
        _ => Outage::Connection(error.to_string()),
    }
}
