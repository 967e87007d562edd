//! `tasklist cache …` and `tasklist check`: whether what the settings name works, from a shell.
//!
//! Values go to standard output, remarks to standard error, so that scripts can use them.

use std::{
    borrow::Cow,
    fmt::Display,
    io::{Write, stderr, stdout},
};

use clap::Subcommand;
use memcached_client::{Client, Deletion, Error, ServerAddress};

use crate::{
    config::{CacheBackend, CacheConfig, Config},
    db::{Db, DbError},
};

/// What can be done to the cache servers. Keys get the app's prefix (`CACHE_KEY_PREFIX`).
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Ask every server for an answer
    Ping,
    /// Print the value of a key
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
    /// Empty every server, other programs' entries too
    Flush,
}

/// Carries out a command; the error is for the person who gave it.
pub(crate) async fn run(command: CacheCommand, config: &CacheConfig) -> Result<(), String> {
    let CacheBackend::Memcached(servers) = &config.backend else {
        return Err(format!(
            "there is no cache server to talk to (the cache is {}); name servers in \
             MEMCACHIER_SERVERS",
            config.backend
        ));
    };
    let client = Client::new(servers.clone());
    let full = |key: &str| format!("{}{key}", config.prefix);
    match command {
        CacheCommand::Ping => ping(&client).await,
        CacheCommand::Get { key } => get(&client, &full(&key)).await,
        CacheCommand::Set { key, value } => set(&client, &full(&key), &value).await,
        CacheCommand::Delete { key } => delete(&client, &full(&key)).await,
        CacheCommand::Stats => stats(&client).await,
        CacheCommand::Flush => on_all(client.flush().await, |()| "flushed".into()),
    }
}

async fn ping(client: &Client) -> Result<(), String> {
    // A server tells its version also to those who have not logged in, so that alone says nothing.
    let answers = client.noop().await.into_iter();
    let versions = client.version().await.into_iter();
    let both = answers
        .zip(versions)
        .map(|((address, answer), (_, version))| (address, answer.and(version)));
    on_all(both.collect(), |version| format!("ok, memcached {version}").into())
}

async fn get(client: &Client, key: &str) -> Result<(), String> {
    let server = owner(client, key)?;
    match client.get(key).await.map_err(|error| explained(&error))? {
        Some(value) => {
            let text = std::str::from_utf8(&value.data)
                .map_or_else(|_| Cow::Owned(value.data.escape_ascii().to_string()), Cow::Borrowed);
            out(text);
            note(format_args!("{key} is on {server}, {} bytes", value.data.len()));
            Ok(())
        }
        None => Err(format!("there is no {key}; it would be on {server}")),
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

async fn stats(client: &Client) -> Result<(), String> {
    on_all(client.stats().await, |stats| {
        let lines = stats.into_iter().map(|(name, value)| format!("{name} {value}"));
        lines.collect::<Vec<_>>().join("\n").into()
    })
}

fn owner(client: &Client, key: &str) -> Result<ServerAddress, String> {
    client.server_of(key).cloned().map_err(|error| error.to_string())
}

type Answers<T> = Vec<(ServerAddress, Result<T, Error>)>;

/// Prints what each server has answered, its address before each line; fails if one has not.
fn on_all<T>(answers: Answers<T>, shown: impl Fn(T) -> Cow<'static, str>) -> Result<(), String> {
    let problem = problem(&answers);
    for (address, answer) in answers {
        let Ok(answer) = answer else { continue };
        for line in shown(answer).lines() {
            out(format_args!("{address} {line}"));
        }
    }
    problem.map_or(Ok(()), Err)
}

fn problem<T>(answers: &Answers<T>) -> Option<String> {
    let failed = answers.iter().filter_map(|(address, answer)| {
        let error = answer.as_ref().err()?;
        Some(format!("{address}: {}", explained(error)))
    });
    let failed: Vec<_> = failed.collect();
    (!failed.is_empty()).then(|| failed.join("; "))
}

/// An error with its remedy.
fn explained(error: &Error) -> String {
    let remedy = match error {
        Error::Timeout { .. } => "the server is slow, or MEMCACHE_TIMEOUT too short",
        Error::Connection { .. } | Error::ServerDown(_) => {
            "check MEMCACHIER_SERVERS, MEMCACHIER_USERNAME and MEMCACHIER_PASSWORD; new \
             credentials may take some minutes to work"
        }
        Error::Unsupported(_) => "use MEMCACHE_PROTOCOL=binary",
        _ => return error.to_string(),
    };
    format!("{error} ({remedy})")
}

/// Says of database, migrations and cache whether they work, and what to do if not.
pub(crate) async fn check(config: &Config) -> Result<(), String> {
    let mut all_well = true;
    let mut tell = |what: &str, outcome: Result<String, String>| match outcome {
        Ok(state) => out(format_args!("{what}: {state}")),
        Err(problem) => {
            all_well = false;
            out(format_args!("{what}: PROBLEM: {problem}"));
        }
    };
    let db = Db::new(&config.database);
    tell("database", database(&db, config).await);
    tell("migrations", migrations(&db));
    tell("cache", cache(&config.cache).await);
    tell("sessions", Ok(config.session.store.to_string()));
    if all_well { Ok(()) } else { Err("not everything works".to_owned()) }
}

async fn database(db: &Db, config: &Config) -> Result<String, String> {
    let answer = db.ping().await;
    answer.map(|()| config.database.url.to_string()).map_err(|error| {
        format!("{error}; check DATABASE_URL, and that the database runs and lets this machine in")
    })
}

fn migrations(db: &Db) -> Result<String, String> {
    match db.pending_migrations() {
        Ok(0) => Ok("up to date".to_owned()),
        Ok(number) => Err(format!("{number} pending; run `tasklist migrate`")),
        Err(DbError::Unavailable(_)) => Err("cannot be read without the database".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn cache(config: &CacheConfig) -> Result<String, String> {
    let CacheBackend::Memcached(servers) = &config.backend else {
        return Ok(config.backend.to_string());
    };
    let answers = Client::new(servers.clone()).noop().await;
    problem(&answers).map_or_else(|| Ok(config.backend.to_string()), Err)
}

fn out(line: impl Display) {
    let _ = writeln!(stdout(), "{line}");
}

fn note(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}
