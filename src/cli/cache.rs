//! `tasklist cache …`: the cache servers from a shell.
//!
//! Values go to standard output and notes to standard error, so that scripts can use the values.

use std::{
    borrow::Cow,
    io::{IsTerminal, stdout},
};

use bytes::Bytes;
use clap::Subcommand;
use everfresh::{
    Cache,
    backend::{Inspected, inspect, named_key},
};
use memcached_client::{Client, Deletion, Error, ServerAddress};

use super::output::{note, print_line};
use crate::config::{CacheBackend, CacheConfig};

/// Commands for the cache servers. Keys get the app's prefix (`CACHE_KEY_PREFIX`).
#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Check that every server answers
    Ping,
    /// Print the value of a key; that of an entry of the app decoded, with its stamp
    Get { key: String },
    /// Store a value
    Set {
        #[arg(allow_hyphen_values = true)]
        key: String,
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Delete a key
    Delete { key: String },
    /// Print every server's own statistics
    Stats,
    /// Clear the app's cache, sessions included; running processes follow within a few seconds
    Flush {
        /// Delete all entries of every server, of other programs too
        #[arg(long)]
        all: bool,
    },
}

/// Runs a command. The error is for the user.
pub(super) async fn run(command: CacheCommand, config: &CacheConfig) -> Result<(), String> {
    let CacheBackend::Memcached(servers) = &config.backend else {
        return Err(format!(
            "there is no cache server to talk to (the cache is {}); name servers in \
             MEMCACHE_SERVERS",
            config.backend
        ));
    };
    let client = Client::new(servers.config.clone());
    let full = |key: &str| format!("{}{key}", config.prefix);
    match command {
        CacheCommand::Ping => ping(&client).await,
        CacheCommand::Get { key } => get(&client, &config.prefix, &full(&key)).await,
        CacheCommand::Set { key, value } => set(&client, &full(&key), &value).await,
        CacheCommand::Delete { key } => delete(&client, &full(&key)).await,
        CacheCommand::Stats => stats(&client).await,
        CacheCommand::Flush { all: true } => on_all(client.flush().await, |()| "flushed".into()),
        CacheCommand::Flush { all: false } => clear(client, &config.prefix).await,
    }
}

async fn ping(client: &Client) -> Result<(), String> {
    // A server answers VERSION even without a log-in, so that alone proves nothing.
    let answers = client.noop().await.into_iter();
    let versions = client.version().await.into_iter();
    let both = answers
        .zip(versions)
        .map(|((address, answer), (_, version))| (address, answer.and(version)));
    on_all(both.collect(), |version| format!("ok, memcached {version}").into())
}

/// Prints a value: that of an entry decoded, with its stamp as a note, and other bytes as they are.
async fn get(client: &Client, prefix: &str, key: &str) -> Result<(), String> {
    let server = owner(client, key)?;
    let found = client.get(key).await.map_err(|error| explained(&error))?;
    let Some(value) = found else {
        return Err(format!("there is no {key}; it would be on {server}"));
    };
    let is_terminal = stdout().is_terminal();
    match inspect(&value.data) {
        Some(Inspected::Entry { schema, fingerprint, fresh_until, body }) => {
            let named = named_value(client, prefix, &body).await;
            print_line(shown(decoded(&named.unwrap_or(body)).as_bytes(), is_terminal));
            note(format_args!("{key} is on {server}, {} bytes", value.data.len()));
            note(format_args!("stamp: schema {schema:016x}, fingerprint {fingerprint:032x}"));
            if let Some(end) = fresh_until {
                note(format_args!("fresh until {}", humantime::format_rfc3339_seconds(end)));
            }
        }
        Some(Inspected::Lease { ends_at }) => {
            let end = humantime::format_rfc3339_seconds(ends_at);
            return Err(format!("{key} is reserved on {server} for a computation, until {end}"));
        }
        _ => {
            print_line(shown(&value.data, is_terminal));
            note(format_args!("{key} is on {server}, {} bytes", value.data.len()));
        }
    }
    Ok(())
}

/// Returns the value that an entry names by its digest.
async fn named_value(client: &Client, prefix: &str, body: &[u8]) -> Option<Bytes> {
    let key = format!("{prefix}{}", named_key(body)?);
    Some(client.get(key).await.ok()??.data)
}

/// Returns a value as text: `MessagePack` as JSON.
fn decoded(body: &Bytes) -> String {
    match rmp_serde::from_slice::<serde_json::Value>(body) {
        // A text begins like a number of MessagePack, of one byte.
        Ok(value) if !value.is_number() || body.len() == 1 => value.to_string(),
        _ => shown(body, false).into_owned(),
    }
}

/// Returns a value as text. Control characters are escaped for a terminal, which would obey them, and kept
/// for a script.
fn shown(value: &[u8], is_terminal: bool) -> Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(text) if is_terminal && text.contains(char::is_control) => {
            let escaped = |c: char| -> String {
                if c.is_control() { c.escape_default().collect() } else { c.into() }
            };
            text.chars().map(escaped).collect::<String>().into()
        }
        Ok(text) => text.into(),
        Err(_) => value.escape_ascii().to_string().into(),
    }
}

async fn set(client: &Client, key: &str, value: &str) -> Result<(), String> {
    let server = owner(client, key)?;
    client.set(key, value.as_bytes()).await.map_err(|error| explained(&error))?;
    note(format_args!("stored {key} on {server}"));
    Ok(())
}

async fn delete(client: &Client, key: &str) -> Result<(), String> {
    let server = owner(client, key)?;
    match client.delete(key).await.map_err(|error| explained(&error))? {
        Deletion::Deleted => {
            note(format_args!("deleted {key} on {server}"));
            Ok(())
        }
        _ => Err(format!("there is no {key}; it would be on {server}")),
    }
}

async fn clear(client: Client, prefix: &str) -> Result<(), String> {
    let cache = Cache::memcached(client.clone()).prefix(prefix).build();
    if cache.clear().await {
        note(format_args!("cleared the entries that begin with {prefix}"));
        return Ok(());
    }
    let reached = problem(&client.noop().await);
    Err(reached.unwrap_or_else(|| "the servers refused; try again".to_owned()))
}

async fn stats(client: &Client) -> Result<(), String> {
    let mut answers = client.stats().await;
    for ((_, answer), status) in answers.iter_mut().zip(client.status()) {
        if let (Ok(stats), Some(protocol)) = (answer, status.protocol) {
            stats.insert(0, ("protocol".to_owned(), protocol.name().to_owned()));
        }
    }
    on_all(answers, |stats| {
        let lines = stats.into_iter().map(|(name, value)| format!("{name} {value}"));
        lines.collect::<Vec<_>>().join("\n").into()
    })
}

fn owner(client: &Client, key: &str) -> Result<ServerAddress, String> {
    client.server_of(key).cloned().map_err(|error| error.to_string())
}

pub(super) type Answers<T> = Vec<(ServerAddress, Result<T, Error>)>;

/// Prints the answer of each server, with its address before each line. Fails if a server failed.
fn on_all<T>(answers: Answers<T>, format: impl Fn(T) -> Cow<'static, str>) -> Result<(), String> {
    let problem = problem(&answers);
    for (address, answer) in answers {
        let Ok(answer) = answer else { continue };
        for line in format(answer).lines() {
            print_line(format_args!("{address} {line}"));
        }
    }
    problem.map_or(Ok(()), Err)
}

pub(super) fn problem<T>(answers: &Answers<T>) -> Option<String> {
    let mut failed = Vec::new();
    for (address, answer) in answers {
        if let Err(error) = answer {
            failed.push(format!("{address}: {}", explained(error)));
        }
    }
    (!failed.is_empty()).then(|| failed.join("; "))
}

/// Returns an error with its remedy.
fn explained(error: &Error) -> String {
    let remedy = match error {
        Error::Timeout { .. } => "the server is slow, or MEMCACHE_TIMEOUT is too short",
        Error::Connection { .. } | Error::ServerDown(_) => {
            "check MEMCACHE_SERVERS, _USERNAME and _PASSWORD, or the add-on's MEMCACHIER_…; new \
             credentials may take some minutes to work"
        }
        Error::Unsupported(_) => "use MEMCACHE_PROTOCOL=auto",
        _ => return error.to_string(),
    };
    format!("{error} ({remedy})")
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn a_terminal_is_shown_no_control_characters_of_a_value() {
        assert_eq!(shown("é\u{1b}[31m\n".as_bytes(), true), "é\\u{1b}[31m\\n");
        assert_eq!(shown("é\u{1b}[31m\n".as_bytes(), false), "é\u{1b}[31m\n");
        assert_eq!(shown(b"\xff\x1b", false), "\\xff\\x1b");
    }
}
