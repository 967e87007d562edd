//! Log-in by the first command of a connection, for the text and the meta protocol.

use std::io;

use secrecy::ExposeSecret;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::{
    address::ServerAddress,
    config::{Config, Credentials},
    health::Outage,
    stream::Stream,
    types::EXPIRED,
};

/// The key of a log-in with `memcached -Y`, which ignores it.
const LOGIN_KEY: &str = "login";

/// Logs in with a `set`, in the format of memcached first, then in MemCachier's.
///
/// `memcached -Y` expects user and password as the value of any key; MemCachier expects the user as
/// the key. Each refuses the format of the other. A server without log-in would store the password,
/// so the first `set` stores an item that has expired already.
pub(crate) async fn log_in(
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
    let mut stream = Stream::connect(address, config).await.map_err(failed)?;
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut line = Vec::new();
    // The reader must not read beyond the line, because its buffer is thrown away.
    let mut reader = BufReader::with_capacity(1, tokio::io::AsyncReadExt::take(stream, MAX_REPLY));
    reader.read_until(b'\n', &mut line).await.map_err(failed)?;
    if line == b"STORED\r\n" {
        Ok(reader.into_inner().into_inner())
    } else {
        Err(Outage::Login(String::from_utf8_lossy(&line).trim_end().to_owned()))
    }
}

fn failed(error: io::Error) -> Outage {
    Outage::Connection(error.to_string())
}
