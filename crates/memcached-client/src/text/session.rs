//! Opens a connection of the text protocol and logs in.

use std::io;

use super::checked_stream::{CheckedStream, ReplyLine, ReplyLog};
use crate::{
    address::ServerAddress,
    config::Config,
    health::Outage,
    stream::Stream,
    text_login,
    types::{WireItem, lifetime_in_text, next_connection},
};
use memcache_async::ascii::Protocol;

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
        match self.protocol.add(key, item.value, lifetime_in_text(item.expiration)).await {
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
        Some(credentials) => text_login::log_in(address, credentials, config).await?,
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
    Stream::connect(address, config).await.map_err(|error| outage_of(&error))
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
