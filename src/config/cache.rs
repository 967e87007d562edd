//! The settings of the cache: where entries are kept, for how long, and which layers there are.

use std::{fmt::Display, time::Duration};

use everfresh::servers_from_variables;
use memcached_client::{Config as ServersConfig, Failover, Protocol};

use crate::config::{ConfigError, Environment, quoted};

/// The longest prefix: keys must stay below memcached's 250 bytes.
const LONGEST_PREFIX: usize = 100;

/// The least memory with which a cache is of use.
const LEAST_MEMORY: u64 = 1 << 20;

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Where entries are kept, and how.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    pub backend: CacheBackend,
    /// `CACHE_LAYERS`: which levels are read and filled, of `query`, `fragment` and `view`, or
    /// `none`. Default: all. Writes clear all of them always.
    pub layers: Layers,
    /// `CACHE_DEFAULT_TIMEOUT`: the lifetime of entries, as in `5min`. Default: for ever.
    pub default_timeout: Option<Duration>,
    /// `CACHE_KEY_PREFIX`: put before every key. May be empty. Default: `tasklist:`.
    pub prefix: String,
}

/// `CACHE_BACKEND`: `memcached`, `memory` or `none`. Default: memcached if there are servers; else
/// memory in development, and none in production, where there may be several processes.
#[derive(Clone, Debug)]
pub enum CacheBackend {
    /// `MEMCACHIER_SERVERS`, `MEMCACHIER_USERNAME`, `MEMCACHIER_PASSWORD`, or `MEMCACHE_SERVERS`
    /// and so on. `MEMCACHE_CONNECT_TIMEOUT` (2 s), `MEMCACHE_TIMEOUT` (250 ms),
    /// `MEMCACHE_FAILOVER` (`miss` or `eject`), `MEMCACHE_PROTOCOL` (`binary` or `text`).
    Memcached(ServersConfig),
    /// In this process, in so many bytes: `CACHE_MEMORY_BYTES`, 64 MiB by default.
    Memory(usize),
    None,
}

/// The levels of the cache that are in use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layers {
    pub query: bool,
    pub fragment: bool,
    pub view: bool,
}

impl CacheConfig {
    pub(crate) fn from_environment(
        env: &Environment,
        production: bool,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            backend: backend(env, production)?,
            layers: layers(env)?,
            default_timeout: default_timeout(env)?,
            prefix: prefix(env)?,
        })
    }

    /// Whether there is a cache at all.
    pub(crate) fn exists(&self) -> bool {
        !matches!(self.backend, CacheBackend::None)
    }
}

impl Display for CacheBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memcached(config) => {
                let servers: Vec<_> = config.servers.iter().map(ToString::to_string).collect();
                write!(f, "memcached at {}", servers.join(", "))
            }
            Self::Memory(_) => f.write_str("in this process"),
            Self::None => f.write_str("none"),
        }
    }
}

fn backend(env: &Environment, production: bool) -> Result<CacheBackend, ConfigError> {
    let servers = servers_from_variables(|name| env.get(name).map(str::to_owned));
    let servers = servers.map_err(|error| ConfigError::new(error.variable, error.problem))?;
    let servers = servers.map(|config| with_settings(config, env)).transpose()?;
    let memory = CacheBackend::Memory(memory_bytes(env)?);
    Ok(match (env.get("CACHE_BACKEND"), servers) {
        (None | Some("memcached"), Some(config)) => CacheBackend::Memcached(config),
        (Some("memcached"), None) => {
            let problem = "memcached needs servers; name them in MEMCACHIER_SERVERS";
            return Err(ConfigError::new("CACHE_BACKEND", problem));
        }
        (None, None) if production => CacheBackend::None,
        (None, None) | (Some("memory"), _) => memory,
        (Some("none"), _) => CacheBackend::None,
        (Some(other), _) => {
            let problem = format!("{} is none of memcached, memory and none", quoted(other));
            return Err(ConfigError::new("CACHE_BACKEND", problem));
        }
    })
}

fn with_settings(
    mut config: ServersConfig,
    env: &Environment,
) -> Result<ServersConfig, ConfigError> {
    if let Some(timeout) = env.duration_between("MEMCACHE_CONNECT_TIMEOUT", MILLISECOND, MINUTE)? {
        config.connect_timeout = timeout;
    }
    if let Some(timeout) = env.duration_between("MEMCACHE_TIMEOUT", MILLISECOND, MINUTE)? {
        config.timeout = timeout;
    }
    config.failover = match env.get("MEMCACHE_FAILOVER") {
        None | Some("miss") => Failover::Miss,
        Some("eject") => Failover::Eject,
        Some(other) => {
            let problem = format!("{} is neither miss nor eject", quoted(other));
            return Err(ConfigError::new("MEMCACHE_FAILOVER", problem));
        }
    };
    config.protocol = match env.get("MEMCACHE_PROTOCOL") {
        None | Some("binary") => Protocol::Binary,
        Some("text") => Protocol::Text,
        Some(other) => {
            let problem = format!("{} is neither binary nor text", quoted(other));
            return Err(ConfigError::new("MEMCACHE_PROTOCOL", problem));
        }
    };
    Ok(config)
}

fn layers(env: &Environment) -> Result<Layers, ConfigError> {
    let mut layers = Layers { query: false, fragment: false, view: false };
    let listed = env.get("CACHE_LAYERS").unwrap_or("query,fragment,view");
    if listed.trim() == "none" {
        return Ok(layers);
    }
    for name in listed.split(',').map(str::trim) {
        match name {
            "query" => layers.query = true,
            "fragment" => layers.fragment = true,
            "view" => layers.view = true,
            other => {
                let problem = format!(
                    "{} is none of query, fragment and view; separate several by commas, or \
                     write none",
                    quoted(other)
                );
                return Err(ConfigError::new("CACHE_LAYERS", problem));
            }
        }
    }
    Ok(layers)
}

fn default_timeout(env: &Environment) -> Result<Option<Duration>, ConfigError> {
    match env.get("CACHE_DEFAULT_TIMEOUT") {
        Some("none") => Ok(None),
        // memcached counts seconds.
        _ => env.duration_between("CACHE_DEFAULT_TIMEOUT", Duration::from_secs(1), YEAR),
    }
}

fn prefix(env: &Environment) -> Result<String, ConfigError> {
    let prefix = env.get_or_empty("CACHE_KEY_PREFIX").unwrap_or("tasklist:");
    if prefix.len() <= LONGEST_PREFIX && prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(prefix.to_owned());
    }
    let problem = format!(
        "{} is not at most {LONGEST_PREFIX} ASCII characters without blanks",
        quoted(prefix)
    );
    Err(ConfigError::new("CACHE_KEY_PREFIX", problem))
}

fn memory_bytes(env: &Environment) -> Result<usize, ConfigError> {
    let Some(text) = env.get("CACHE_MEMORY_BYTES") else { return Ok(64 << 20) };
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("", 0)];
    let parsed = units.iter().find_map(|(unit, shift)| {
        let number: u64 = text.trim().strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(1 << shift).filter(|bytes| *bytes >= LEAST_MEMORY)
    });
    parsed.and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(|| {
        let problem =
            format!("{} is not a size of at least 1 MiB, such as 64MiB or 67108864", quoted(text));
        ConfigError::new("CACHE_MEMORY_BYTES", problem)
    })
}
