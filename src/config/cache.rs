//! The settings of the cache.

use std::{fmt::Display, time::Duration};

use bytesize::ByteSize;
use everfresh::{NamedServers, servers_from_variables};
use memcached_client::{Config as ServersConfig, Failover};

use super::environment::{ConfigError, Environment, quoted};

/// The longest prefix, in bytes: keys must stay below memcached's 250 bytes.
const MAX_PREFIX: usize = 100;

/// The smallest useful in-process cache.
const MIN_MEMORY: ByteSize = ByteSize::mib(1);

/// The smallest useful limit of an item.
const MIN_ITEM: ByteSize = ByteSize::kib(1);

/// The size from which values are compressed, in bytes.
const COMPRESS_FROM: usize = 4096;

/// The default size of an in-process cache, in bytes.
const DEFAULT_MEMORY: usize = 64 << 20;

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Where and how entries are stored.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    pub backend: CacheBackend,
    /// `CACHE_LAYERS`: the levels that are read and filled, of `query`, `fragment` and `view`, or
    /// `none`. Default: all. A write invalidates all levels in any case.
    pub layers: Layers,
    /// `CACHE_DEFAULT_TIMEOUT`: the lifetime of entries, such as `5min`. Default: for ever.
    pub default_timeout: Option<Duration>,
    /// `CACHE_NEAR_BYTES`: how many bytes of fragments and lists each process keeps in addition. Default: 32 MiB.
    pub near_bytes: Option<usize>,
    /// `CACHE_KEY_PREFIX`: the prefix of every key; may be empty. Default: `tasklist:`.
    pub prefix: String,
}

/// `CACHE_BACKEND`: `memcached`, `memory` or `none`. Default: `memcached` if servers are named; else
/// `memory` in development, and `none` in production, where there may be several processes.
#[derive(Clone, Debug)]
pub enum CacheBackend {
    /// The servers of `MEMCACHE_SERVERS`, `MEMCACHE_USERNAME` and `MEMCACHE_PASSWORD`, or of
    /// `MEMCACHIER_SERVERS`, `MEMCACHIER_USERNAME` and `MEMCACHIER_PASSWORD`, with
    /// `MEMCACHE_CONNECT_TIMEOUT` (2 s), `MEMCACHE_TIMEOUT` (250 ms), `MEMCACHE_RETRY_TIMEOUT` (500 ms),
    /// `MEMCACHE_DEAD_TIMEOUT` (1.5 s), `MEMCACHE_MAX_ITEM_BYTES` (1 MiB), `MEMCACHE_MAX_IN_FLIGHT`
    /// (10,000), `MEMCACHE_COMPRESS_FROM` (4 KiB, or `none`), `MEMCACHE_TLS` and `MEMCACHE_CA_FILE`,
    /// `MEMCACHE_FAILOVER` (`miss` or `eject`) and `MEMCACHE_PROTOCOL` (`auto`, `binary`, `meta` or `text`).
    Memcached(Box<NamedServers>),
    /// This process, in at most `CACHE_MEMORY_BYTES` bytes (64 MiB).
    Memory(usize),
    /// No entries are stored.
    None,
}

/// The levels of the cache that are read and filled.
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
            near_bytes: size(env, "CACHE_NEAR_BYTES", ByteSize::b(0))?,
            prefix: prefix(env)?,
        })
    }

    /// Returns whether entries are stored at all.
    pub(crate) fn exists(&self) -> bool {
        !matches!(self.backend, CacheBackend::None)
    }
}

impl Display for CacheBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memcached(named) => {
                let NamedServers { config, variable } = &**named;
                let servers: Vec<_> = config.servers.iter().map(ToString::to_string).collect();
                write!(f, "memcached at {}, from {variable}", servers.join(", "))
            }
            Self::Memory(_) => f.write_str("in this process"),
            Self::None => f.write_str("none"),
        }
    }
}

fn backend(env: &Environment, production: bool) -> Result<CacheBackend, ConfigError> {
    let servers = servers_from_variables(|name| env.get(name).map(str::to_owned));
    let servers = servers.map_err(|error| ConfigError::new(error.variable, error.problem))?;
    let servers = servers
        .map(|NamedServers { config, variable }| {
            Ok(NamedServers { config: with_settings(config, env)?, variable })
        })
        .transpose()?;
    let memory = CacheBackend::Memory(memory_bytes(env)?);
    Ok(match (env.get("CACHE_BACKEND"), servers) {
        (None | Some("memcached"), Some(servers)) => CacheBackend::Memcached(Box::new(servers)),
        (Some("memcached"), None) => {
            let problem = "memcached needs servers; name them in MEMCACHE_SERVERS";
            return Err(ConfigError::new("CACHE_BACKEND", problem));
        }
        (None, None) if production => CacheBackend::None,
        (None, None) | (Some("memory"), _) => memory,
        (Some("none"), _) => CacheBackend::None,
        (Some(other), _) => {
            let problem =
                format!("{} is not a cache backend; use memcached, memory or none", quoted(other));
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
    if let Some(pause) = env.duration_between("MEMCACHE_RETRY_TIMEOUT", MILLISECOND, MINUTE)? {
        config.retry_timeout = pause;
    }
    if let Some(pause) = env.duration_between("MEMCACHE_DEAD_TIMEOUT", MILLISECOND, MINUTE)? {
        config.dead_timeout = pause;
    }
    config.compression.from = match env.get("MEMCACHE_COMPRESS_FROM") {
        None => Some(COMPRESS_FROM),
        Some("none") => None,
        Some(_) => size(env, "MEMCACHE_COMPRESS_FROM", ByteSize::b(1))?,
    };
    if let Some(number) = env.number_between("MEMCACHE_MAX_IN_FLIGHT", 1, 1_000_000)? {
        config.max_in_flight = usize::try_from(number).unwrap_or(usize::MAX);
    }
    if env.get("MEMCACHE_MAX_ITEM_BYTES").is_some() {
        config.max_item_bytes = size(env, "MEMCACHE_MAX_ITEM_BYTES", MIN_ITEM)?.unwrap_or_default();
    }
    config.failover = match env.get("MEMCACHE_FAILOVER") {
        None | Some("miss") => Failover::Miss,
        Some("eject") => Failover::Eject,
        Some(other) => {
            let problem = format!("{} is not a failover mode; use miss or eject", quoted(other));
            return Err(ConfigError::new("MEMCACHE_FAILOVER", problem));
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
                    "{} is not a layer; use query, fragment and view, separated by commas, or none",
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
        // memcached counts in seconds.
        _ => env.duration_between("CACHE_DEFAULT_TIMEOUT", Duration::from_secs(1), YEAR),
    }
}

fn prefix(env: &Environment) -> Result<String, ConfigError> {
    let prefix = env.get_or_empty("CACHE_KEY_PREFIX").unwrap_or("tasklist:");
    if prefix.len() <= MAX_PREFIX && prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(prefix.to_owned());
    }
    let problem = format!(
        "{} is not a prefix; use at most {MAX_PREFIX} ASCII characters without blanks",
        quoted(prefix)
    );
    Err(ConfigError::new("CACHE_KEY_PREFIX", problem))
}

fn memory_bytes(env: &Environment) -> Result<usize, ConfigError> {
    Ok(size(env, "CACHE_MEMORY_BYTES", MIN_MEMORY)?.unwrap_or(DEFAULT_MEMORY))
}

/// Parses a size of at least `least`.
fn size(
    env: &Environment,
    variable: &'static str,
    least: ByteSize,
) -> Result<Option<usize>, ConfigError> {
    let Some(text) = env.get(variable) else { return Ok(None) };
    // A number that is too large parses as the largest size.
    let size = text.trim().parse().ok().filter(|size| (least..ByteSize(u64::MAX)).contains(size));
    let size = size.and_then(|size| usize::try_from(size.as_u64()).ok());
    size.map(Some).ok_or_else(|| {
        let problem = format!(
            "{} is not a size of at least {}, such as 64MiB or 67108864",
            quoted(text),
            least.display().iec()
        );
        ConfigError::new(variable, problem)
    })
}
