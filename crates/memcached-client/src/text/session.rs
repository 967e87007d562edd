//! One connection of the text protocol: opening it, and what memcache-async leaves to be checked.

use std::io;

use memcache_async::ascii::Protocol;
use secrecy::ExposeSecret;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::watched::{Answer, Watch, Watched};
use crate::{
    config::{Config, Credentials, ServerAddress},
    health::Outage,
    stream::Stream,
    types::{Checked, EXPIRED, next_connection},
};

/// The key of a log-in as memcached's `-Y` has it; any will do.
const LOGIN_KEY: &str = "login";

/// An open connection.
pub(crate) struct Session {
    pub(super) number: u64,
    pub(super) protocol: Protocol<Watched<Stream>>,
    pub(super) watch: Watch,
    /// How many outages there had been when it was opened.
    pub(super) open_since: u64,
}

impl Session {
    /// memcache-async takes whatever is not "not stored" for success.
    pub(super) async fn add(&mut self, key: &str, item: &Checked<'_>) -> io::Result<bool> {
        match self.protocol.add(key, item.value, item.expiration).await {
            Ok(()) if self.watch.last() == Some(Answer::Stored) => Ok(true),
            Ok(()) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What was found, if it is what was asked for: memcache-async does not look.
    pub(super) fn is_of<T>(&self, entry: Option<T>, key: &str) -> io::Result<Option<T>> {
        let keys = self.watch.keys();
        if keys.iter().all(|found| found == key) && keys.len() == usize::from(entry.is_some()) {
            Ok(entry)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "a value of another key"))
        }
    }
}

/// Connects, logs in, and waits for the server to answer.
pub(crate) async fn establish(address: &ServerAddress, config: &Config) -> Result<Session, Outage> {
    let stream = match &config.credentials {
        None => connect(address, config).await?,
        Some(credentials) => log_in(address, credentials, config).await?,
    };
    let watch = Watch::default();
    watch.begin();
    let protocol = Protocol::new(Watched::new(stream, watch.clone()));
    let mut session = Session { number: next_connection(), protocol, watch, open_since: 0 };
    match session.protocol.version().await {
        Ok(_) => Ok(session),
        Err(error) => Err(match session.watch.last() {
            Some(Answer::Error(words)) => Outage::Login(words),
            _ => outage_of(&error),
        }),
    }
}

async fn connect(address: &ServerAddress, config: &Config) -> Result<Stream, Outage> {
    Stream::connect(address, config.connect_timeout).await.map_err(|error| outage_of(&error))
}

/// The two log-ins there are look alike and each server refuses the other's: memcached's `-Y`
/// wants user and password as the value of any key, MemCachier the user as the key. A server
/// without log-in takes the first for a value; so it is one that has expired already.
async fn log_in(
    address: &ServerAddress,
    credentials: &Credentials,
    config: &Config,
) -> Result<Stream, Outage> {
    let (user, password) = (&credentials.username, credentials.password.expose_secret());
    let unfit = |text: &str| text.is_empty() || text.contains(|c: char| c.is_ascii_control());
    if unfit(user) || unfit(password) || user.contains(' ') {
        return Err(Outage::Login("user or password cannot be sent as text".to_owned()));
    }
    let both = format!("{user} {password}");
    let for_memcached = format!("set {LOGIN_KEY} 0 {EXPIRED} {}\r\n{both}\r\n", both.len());
    let for_memcachier = format!("set {user} 0 0 {}\r\n{password}\r\n", password.len());
    match try_login(address, &for_memcached, config).await {
        // Only from a server that has understood and refused: a proxy that could not reach its
        // server now would store the second one later.
        Err(Outage::Login(words)) if words.starts_with("CLIENT_ERROR") || words == "ERROR" => {
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
    /// No answer to a log-in is longer.
    const LONGEST: u64 = 1024;
    let mut stream = connect(address, config).await?;
    stream.write_all(request.as_bytes()).await.map_err(|error| outage_of(&error))?;
    let mut line = Vec::new();
    let mut reader = BufReader::with_capacity(1, tokio::io::AsyncReadExt::take(stream, LONGEST));
    reader.read_until(b'\n', &mut line).await.map_err(|error| outage_of(&error))?;
    if line == b"STORED\r\n" {
        Ok(reader.into_inner().into_inner())
    } else {
        Err(Outage::Login(String::from_utf8_lossy(&line).trim_end().to_owned()))
    }
}

pub(super) fn outage_of(error: &io::Error) -> Outage {
    match error.kind() {
        io::ErrorKind::InvalidData => Outage::Garbage(error.to_string()),
        io::ErrorKind::UnexpectedEof => Outage::Connection("it closed the connection".to_owned()),
        _ => Outage::Connection(error.to_string()),
    }
}
