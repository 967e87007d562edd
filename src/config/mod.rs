//! The settings: read from the environment, validated, typed. An invalid setting stops the start.
//!
//! Each field names its variable and its default. Secrets are never printed.

pub(crate) mod allowed_hosts;
pub(crate) mod cache;
pub(crate) mod database_url;
pub(crate) mod environment;
pub(crate) mod limits;
pub(crate) mod session;
pub(crate) mod trusted_proxies;

use std::{net::IpAddr, path::PathBuf};

use actix_web::http::Uri;
use secrecy::SecretString;

use self::environment::quoted;
pub use self::{
    allowed_hosts::AllowedHosts,
    cache::{CacheBackend, CacheConfig, Layers},
    database_url::{DatabaseKind, DatabaseUrl},
    environment::{ConfigError, Environment},
    limits::Limits,
    session::{SessionConfig, SessionStoreKind},
    trusted_proxies::TrustedProxies,
};

/// The largest number of workers that Actix starts.
const MAX_WORKERS: u32 = 512;

/// Open files besides those of visitors and of the database: the cache's connections, sockets that are
/// being closed, those of the runtime.
const OTHER_FILES: u64 = 64;

const DEFAULT_LOG: &str = "info,actix_server=warn,actix_http=off,actix_session=error";

/// The shortest `ADMIN_TOKEN` in production, in characters: clients can guess as often as they like.
const MIN_ADMIN_TOKEN_LENGTH: usize = 16;

/// All settings.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: ServerConfig,
    pub database: DatabaseConfig,
    pub cache: CacheConfig,
    pub session: SessionConfig,
    pub limits: Limits,
    /// `ADMIN_TOKEN`: the password of `/cache` and `/metrics`. Default: none; then both are open in
    /// development and hidden in production.
    pub admin_token: Option<SecretString>,
    /// `PUBLIC_ORIGIN`: origins, separated by commas, from which forms are accepted in addition to
    /// the request's own host. Default: none.
    pub public_origins: Vec<String>,
    /// `ALLOWED_HOSTS`: names and addresses, separated by commas, under which the app answers; a name
    /// that begins with a dot includes its subdomains, and `*` allows any. Default: in development
    /// loopback names and addresses; in production the hosts of `PUBLIC_ORIGIN`, or any host if that
    /// is not set.
    pub allowed_hosts: AllowedHosts,
    /// `TRUSTED_PROXIES`: addresses and networks, separated by commas, whose `X-Forwarded-For` and
    /// `X-Request-Id` are trusted; `unix` for clients of the unix socket. Default: none.
    pub trusted_proxies: TrustedProxies,
    /// `RUST_LOG`: a filter in the syntax of `env_logger`. Default: `info`, without the server's own
    /// start-up lines and without messages that clients can cause at will.
    pub log_filter: String,
}

/// Where and how the server listens.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// `HOST`. Default: `127.0.0.1`, or all addresses once PORT is set.
    pub host: String,
    /// `PORT`. Default: 8080. 0 picks a free port.
    pub port: u16,
    /// `--uds`: a unix socket instead of host and port.
    pub uds: Option<PathBuf>,
    /// `WEB_CONCURRENCY`: worker threads. Default: the number of cores.
    pub workers: usize,
    /// `APP_ENV`: `development` or `production`. Default: production when `DYNO` is set.
    pub production: bool,
}

/// The database and the number of connections to it.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// `DATABASE_URL`. Default: `sqlite://tasklist.sqlite3`.
    pub url: DatabaseUrl,
    /// `DATABASE_POOL_SIZE`: connections of this process. Default: 8.
    pub pool_size: u32,
}

impl Config {
    /// Reads and validates every setting.
    pub fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        let server = ServerConfig::from_environment(env)?;
        let cache = CacheConfig::from_environment(env, server.production)?;
        let public_origins = public_origins(env)?;
        Ok(Self {
            allowed_hosts: allowed_hosts(env, server.production, &public_origins)?,
            database: DatabaseConfig::from_environment(env)?,
            session: SessionConfig::from_environment(env, server.production, &cache)?,
            limits: Limits::from_environment(env)?,
            admin_token: admin_token(env, server.production)?,
            cache,
            public_origins,
            trusted_proxies: trusted_proxies(env)?,
            log_filter: log_filter(env)?,
            server,
        })
    }
}

impl Config {
    /// Reduces the number of connections to those for which the process may open files.
    pub(crate) fn fit_into_open_files(&mut self, files: u64) {
        // A connection to SQLite has three files.
        let others = OTHER_FILES + 3 * u64::from(self.database.pool_size);
        let left = usize::try_from(files.saturating_sub(others)).unwrap_or(usize::MAX).max(1);
        if self.limits.connections > left {
            log::warn!("at most {left} connections: the process may open only {files} files");
            self.limits.connections = left;
        }
    }

    /// Returns one line with the address, and with what is used for database, cache and sessions.
    pub(crate) fn summary(&self, address: &str) -> String {
        format!(
            "tasklist is running on {address} (database: {}; cache: {}; sessions: {})",
            self.database.url, self.cache.backend, self.session.store
        )
    }
}

impl ServerConfig {
    fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        let port = env.parse("PORT", "a port number from 0 to 65535")?;
        let all_or_local = if port.is_some() { "0.0.0.0" } else { "127.0.0.1" };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let max = MAX_WORKERS as usize;
        Ok(Self {
            host: host(env.get("HOST").unwrap_or(all_or_local))?,
            port: port.unwrap_or(8080),
            uds: None,
            workers: match env.number_between("WEB_CONCURRENCY", 1, MAX_WORKERS)? {
                Some(number) => number as usize,
                None => cores().min(max),
            },
            production: is_production(env)?,
        })
    }
}

/// Returns a name or an address, without the brackets that an IPv6 address has in a URL.
fn host(text: &str) -> Result<String, ConfigError> {
    let text = text.trim();
    let host = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let is_name = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        && host.contains(|c: char| c.is_ascii_alphabetic());
    if is_name || host.parse::<IpAddr>().is_ok() {
        return Ok(host.to_owned());
    }
    let problem = format!("{} is not an address or name, such as 127.0.0.1", quoted(text));
    Err(ConfigError::new("HOST", problem))
}

fn is_production(env: &Environment) -> Result<bool, ConfigError> {
    match env.get("APP_ENV") {
        None => Ok(env.get("DYNO").is_some()),
        Some("production") => Ok(true),
        Some("development") => Ok(false),
        Some(other) => Err(ConfigError::new(
            "APP_ENV",
            format!("{} is not an environment; use development or production", quoted(other)),
        )),
    }
}

impl DatabaseConfig {
    fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        let url = env.get("DATABASE_URL").unwrap_or("sqlite://tasklist.sqlite3").parse();
        let url: DatabaseUrl = url.map_err(|e: String| ConfigError::new("DATABASE_URL", e))?;
        let ephemeral_allowed = env.flag("ALLOW_EPHEMERAL_SQLITE")?;
        if url.is_sqlite() && env.get("DYNO").is_some() && !ephemeral_allowed {
            return Err(ConfigError::new("DATABASE_URL", EPHEMERAL));
        }
        Ok(Self { url, pool_size: env.number_between("DATABASE_POOL_SIZE", 1, 1000)?.unwrap_or(8) })
    }
}

const EPHEMERAL: &str = "a dyno's disk, and SQLite with it, is lost at each restart; attach a \
     PostgreSQL database, or set ALLOW_EPHEMERAL_SQLITE=yes";

fn admin_token(env: &Environment, production: bool) -> Result<Option<SecretString>, ConfigError> {
    match env.get("ADMIN_TOKEN") {
        Some(token) if production && token.trim().chars().count() < MIN_ADMIN_TOKEN_LENGTH => {
            let problem = format!(
                "is too short: in production use at least {MIN_ADMIN_TOKEN_LENGTH} characters"
            );
            Err(ConfigError::new("ADMIN_TOKEN", problem))
        }
        token => Ok(token.map(Into::into)),
    }
}

fn public_origins(env: &Environment) -> Result<Vec<String>, ConfigError> {
    let listed = env.get("PUBLIC_ORIGIN").unwrap_or_default();
    listed.split(',').map(str::trim).filter(|origin| !origin.is_empty()).map(origin).collect()
}

fn allowed_hosts(
    env: &Environment,
    production: bool,
    public_origins: &[String],
) -> Result<AllowedHosts, ConfigError> {
    let Some(listed) = env.get("ALLOWED_HOSTS") else {
        let hosts = public_origins.iter().filter_map(|origin| origin.parse::<Uri>().ok());
        let hosts: Vec<_> = hosts.filter_map(|uri| uri.host().map(str::to_owned)).collect();
        return Ok(match production {
            false => AllowedHosts::Local,
            true if hosts.is_empty() => AllowedHosts::Any,
            true => AllowedHosts::Listed(hosts),
        });
    };
    let mut hosts = Vec::new();
    for entry in listed.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        if entry == "*" {
            return Ok(AllowedHosts::Any);
        }
        let name = entry.strip_prefix('.').unwrap_or(entry);
        let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_valid = name.parse::<IpAddr>().is_ok() || name.chars().all(is_name);
        if name.is_empty() || !is_valid {
            let problem = format!(
                "{} is not a host without port, such as tasks.example.com, or *",
                quoted(entry)
            );
            return Err(ConfigError::new("ALLOWED_HOSTS", problem));
        }
        let dot = if entry.starts_with('.') { "." } else { "" };
        hosts.push(format!("{dot}{}", name.to_ascii_lowercase()));
    }
    Ok(AllowedHosts::Listed(hosts))
}

fn trusted_proxies(env: &Environment) -> Result<TrustedProxies, ConfigError> {
    let listed = env.get("TRUSTED_PROXIES").unwrap_or_default();
    listed.parse().map_err(|entry: String| {
        let problem =
            format!("{} is not an address, a network such as 10.0.0.0/8, or unix", quoted(&entry));
        ConfigError::new("TRUSTED_PROXIES", problem)
    })
}

fn origin(text: &str) -> Result<String, ConfigError> {
    let origin = text.trim_end_matches('/').to_ascii_lowercase();
    let is_origin = origin.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|a| !a.as_str().contains('@'))
            && uri.path() == "/"
            && uri.query().is_none()
    });
    if is_origin {
        let default_port = if origin.starts_with("https:") { ":443" } else { ":80" };
        Ok(origin.strip_suffix(default_port).map(str::to_owned).unwrap_or(origin))
    } else {
        Err(ConfigError::new(
            "PUBLIC_ORIGIN",
            "is not a list of origins, such as https://tasks.example.com",
        ))
    }
}

fn log_filter(env: &Environment) -> Result<String, ConfigError> {
    let filter = env.get("RUST_LOG").unwrap_or(DEFAULT_LOG);
    // env_filter accepts a directive such as "=" or "=debug", which names no module.
    let mut directives = filter.split('/').next().unwrap_or_default().split(',');
    let names_none = directives.any(|directive| directive.trim_start().starts_with('='));
    match env_filter::Builder::new().try_parse(filter) {
        Ok(_) if !names_none => Ok(filter.to_owned()),
        _ => Err(ConfigError::new(
            "RUST_LOG",
            format!("{} is not a log filter, such as info or tasklist=debug,warn", quoted(filter)),
        )),
    }
}
