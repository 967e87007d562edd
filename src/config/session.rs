//! The settings of sessions.

use std::{fmt, time::Duration};

use secrecy::SecretString;

use super::{
    cache::CacheConfig,
    environment::{ConfigError, Environment, quoted},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest `SECRET_KEY`, in characters: no key can be derived from fewer bytes.
const MIN_SECRET_KEY_LENGTH: usize = 32;

/// `SESSION_STORE`: where sessions are stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SessionStoreKind {
    /// `cache`: the cache alone; a session that is evicted is lost.
    Cache,
    /// `cached_db`: the database, and the cache for reading.
    CachedDb,
    /// `cookie`: the visitor's cookie, encrypted.
    Cookie,
}

impl fmt::Display for SessionStoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cache => "cache",
            Self::CachedDb => "database and cache",
            Self::Cookie => "cookie",
        })
    }
}

/// Where sessions are stored, for how long, and the key that protects their cookie.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// `SESSION_STORE`: `cache`, `cached_db` or `cookie`. Default: cache, or cookie if there is no
    /// cache.
    pub store: SessionStoreKind,
    /// `SECRET_KEY`: at least 32 characters. Default: random at each start; required in
    /// production.
    pub secret_key: Option<SecretString>,
    /// `SECRET_KEY_PREVIOUS`: the key before a rotation, whose sessions are still accepted. Default:
    /// none.
    pub secret_key_previous: Option<SecretString>,
    /// `SESSION_LIFETIME`: such as `14 days` or `12h`. Default: 14 days.
    pub lifetime: Duration,
}

impl SessionConfig {
    pub(crate) fn from_environment(
        env: &Environment,
        production: bool,
        cache: &CacheConfig,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            store: session_store(env, cache)?,
            secret_key: secret_key(env, production)?,
            secret_key_previous: key(env, "SECRET_KEY_PREVIOUS")?,
            lifetime: session_lifetime(env)?,
        })
    }
}

fn session_store(env: &Environment, cache: &CacheConfig) -> Result<SessionStoreKind, ConfigError> {
    match env.get("SESSION_STORE") {
        None | Some("cache") if cache.exists() => Ok(SessionStoreKind::Cache),
        Some("cache") => Err(ConfigError::new(
            "SESSION_STORE",
            "cache needs a cache; use cookie or cached_db, or name servers in MEMCACHE_SERVERS",
        )),
        Some("cached_db") => Ok(SessionStoreKind::CachedDb),
        None | Some("cookie") => Ok(SessionStoreKind::Cookie),
        Some(other) => Err(ConfigError::new(
            "SESSION_STORE",
            format!("{} is not a session store; use cache, cached_db or cookie", quoted(other)),
        )),
    }
}

fn secret_key(env: &Environment, production: bool) -> Result<Option<SecretString>, ConfigError> {
    match key(env, "SECRET_KEY")? {
        None if production => {
            Err(ConfigError::new("SECRET_KEY", format!("is required in production; {HINT}")))
        }
        key => Ok(key),
    }
}

const HINT: &str = "use at least 32 random characters, such as those of `openssl rand -hex 32`";

fn key(env: &Environment, variable: &str) -> Result<Option<SecretString>, ConfigError> {
    match env.get(variable) {
        Some(key) if key.chars().count() < MIN_SECRET_KEY_LENGTH => Err(ConfigError::new(
            variable,
            format!("is {} characters long, which is too short; {HINT}", key.chars().count()),
        )),
        key => Ok(key.map(Into::into)),
    }
}

fn session_lifetime(env: &Environment) -> Result<Duration, ConfigError> {
    // Browsers limit the lifetime of cookies to 400 days (RFC 6265bis, section 5.5).
    let lifetime = env.duration_between("SESSION_LIFETIME", Duration::from_secs(1), 400 * DAY)?;
    Ok(lifetime.unwrap_or(14 * DAY))
}
