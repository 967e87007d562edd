//! The settings: read from the environment, checked, typed. A wrong one stops the start.
//!
//! Each field names its variable and its default. Secrets never print.

pub(crate) mod cache;
pub(crate) mod database_url;
pub(crate) mod session;

use std::{
    collections::HashMap,
    fmt, io,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use actix_web::http::Uri;
use secrecy::SecretString;
use thiserror::Error;

pub use crate::{
    config::cache::{CacheBackend, CacheConfig, Layers},
    config::database_url::{DatabaseKind, DatabaseUrl},
    config::session::{SessionConfig, SessionStoreKind},
    http::trusted_proxies::TrustedProxies,
};

/// The most that Actix starts.
const MOST_WORKERS: u32 = 512;

const DEFAULT_LOG: &str = "info,actix_server=warn,actix_http=off,actix_session=error";

/// Variables of which an empty value means something.
const MAY_BE_EMPTY: [&str; 1] = ["CACHE_KEY_PREFIX"];

/// The shortest `ADMIN_TOKEN` in production: anybody may guess.
const ADMIN_TOKEN_LENGTH: usize = 16;

/// All settings.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: ServerConfig,
    pub database: DatabaseConfig,
    pub cache: CacheConfig,
    pub session: SessionConfig,
    /// `ADMIN_TOKEN`: the password of `/cache`. Default: none, which opens it in development and
    /// hides it in production.
    pub admin_token: Option<SecretString>,
    /// `PUBLIC_ORIGIN`: origins from which forms are accepted, beside the request's own host;
    /// separated by commas. Default: none.
    pub public_origins: Vec<String>,
    /// `TRUSTED_PROXIES`: addresses and networks whose `X-Forwarded-For` and `X-Request-Id` count,
    /// and `unix` for those who connect to the unix socket; separated by commas. Default: none.
    pub trusted_proxies: TrustedProxies,
    /// `RUST_LOG`: what is logged, in the syntax of `env_logger`. Default: `info`, without the
    /// server's own start-up lines and without what any client can cause at will.
    pub log_filter: String,
}

/// Where and how the server listens.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// `HOST`. Default: `127.0.0.1`, or all addresses once PORT is set.
    pub host: String,
    /// `PORT`. Default: 8080. 0 takes a free one.
    pub port: u16,
    /// `--uds`: a unix socket instead of host and port.
    pub uds: Option<PathBuf>,
    /// `WEB_CONCURRENCY`: worker threads. Default: the number of cores.
    pub workers: usize,
    /// `APP_ENV`: `development` or `production`. Default: production when `DYNO` is set.
    pub production: bool,
}

/// Which database, and how many connections to it.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// `DATABASE_URL`. Default: `sqlite://tasklist.sqlite3`.
    pub url: DatabaseUrl,
    /// `DATABASE_POOL_SIZE`: connections of this process. Default: 8.
    pub pool_size: u32,
}

/// A setting that is wrong: which, why, and what would be right.
#[derive(Debug, Error)]
#[error("{variable}: {problem}")]
pub struct ConfigError {
    variable: String,
    problem: String,
}

impl ConfigError {
    pub(crate) fn new(variable: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { variable: variable.into(), problem: problem.into() }
    }
}

/// A wrong value, on one line.
pub(crate) fn quoted(value: &str) -> String {
    format!("“{}”", value.escape_debug())
}

/// The variables that settings are read from. An empty one counts as not set.
#[derive(Default)]
pub struct Environment(HashMap<String, String>);

impl Environment {
    /// The process's environment, completed by the `.env` file at `dotenv` if there is one.
    /// On a dyno (`DYNO` is set) the file is not read.
    pub fn load(dotenv: &Path) -> Result<Self, ConfigError> {
        let mut variables = HashMap::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str() else { continue };
            variables.insert(name.to_owned(), value.to_string_lossy().into_owned());
        }
        if !variables.contains_key("DYNO") {
            for (name, value) in read_dotenv(dotenv)? {
                // What is set but empty mostly counts as not set.
                let means_nothing =
                    |set: &String| set.is_empty() && !MAY_BE_EMPTY.contains(&name.as_str());
                if variables.get(&name).is_none_or(means_nothing) {
                    variables.insert(name, value);
                }
            }
        }
        Ok(Self(variables))
    }

    pub(crate) fn get(&self, variable: &str) -> Option<&str> {
        self.get_or_empty(variable).filter(|value| !value.is_empty())
    }

    /// Likewise, where an empty value means something.
    pub(crate) fn get_or_empty(&self, variable: &str) -> Option<&str> {
        self.0.get(variable).map(String::as_str)
    }

    /// A time with its unit.
    pub(crate) fn duration_between(
        &self,
        variable: &str,
        least: Duration,
        most: Duration,
    ) -> Result<Option<Duration>, ConfigError> {
        let Some(value) = self.get(variable) else { return Ok(None) };
        match humantime::parse_duration(value.trim()) {
            Ok(duration) if (least..=most).contains(&duration) => Ok(Some(duration)),
            _ => Err(ConfigError::new(
                variable,
                format!(
                    "{} is not a time from {} to {}, such as 250ms, 2s or 5min",
                    quoted(value),
                    humantime::format_duration(least),
                    humantime::format_duration(most),
                ),
            )),
        }
    }

    /// Parses a variable's value, if it is set; `expected` says what would be right.
    fn parse<T: FromStr>(&self, variable: &str, expected: &str) -> Result<Option<T>, ConfigError> {
        self.get(variable)
            .map(|value| {
                value.trim().parse().map_err(|_| {
                    ConfigError::new(variable, format!("{} is not {expected}", quoted(value)))
                })
            })
            .transpose()
    }

    fn number_between(
        &self,
        variable: &str,
        least: u32,
        most: u32,
    ) -> Result<Option<u32>, ConfigError> {
        let expected = format!("a number from {least} to {most}");
        match self.parse(variable, &expected)? {
            Some(n) if !(least..=most).contains(&n) => Err(ConfigError::new(
                variable,
                format!("{} is not {expected}", quoted(&n.to_string())),
            )),
            number => Ok(number),
        }
    }

    fn flag(&self, variable: &str) -> Result<bool, ConfigError> {
        match self.get(variable).map(str::to_ascii_lowercase).as_deref() {
            None | Some("no" | "false" | "0") => Ok(false),
            Some("yes" | "true" | "1") => Ok(true),
            Some(other) => {
                Err(ConfigError::new(variable, format!("{} is not yes or no", quoted(other))))
            }
        }
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Environment {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment(…)")
    }
}

fn read_dotenv(path: &Path) -> Result<Vec<(String, String)>, ConfigError> {
    let problem = |error| {
        let what = match error {
            dotenvy::Error::LineParse(_, _) => "a line is not of the form NAME=value; quote \
                values with blanks or a $ in 'single quotes'"
                .to_owned(),
            other => format!("cannot be read: {other}"),
        };
        ConfigError::new(path.display().to_string(), what)
    };
    match dotenvy::from_path_iter(path) {
        Ok(lines) => lines.collect::<Result<_, _>>().map_err(problem),
        Err(dotenvy::Error::Io(e)) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(problem(error)),
    }
}

impl Config {
    /// Reads and checks every setting.
    pub fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        let server = ServerConfig::from_environment(env)?;
        let cache = CacheConfig::from_environment(env, server.production)?;
        Ok(Self {
            database: DatabaseConfig::from_environment(env)?,
            session: SessionConfig::from_environment(env, server.production, &cache)?,
            admin_token: admin_token(env, server.production)?,
            cache,
            public_origins: public_origins(env)?,
            trusted_proxies: trusted_proxies(env)?,
            log_filter: log_filter(env)?,
            server,
        })
    }
}

impl ServerConfig {
    fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        let port = env.parse("PORT", "a port number from 0 to 65535")?;
        let all_or_local = if port.is_some() { "0.0.0.0" } else { "127.0.0.1" };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let most = MOST_WORKERS as usize;
        Ok(Self {
            host: host(env.get("HOST").unwrap_or(all_or_local))?,
            port: port.unwrap_or(8080),
            uds: None,
            workers: match env.number_between("WEB_CONCURRENCY", 1, MOST_WORKERS)? {
                Some(number) => number as usize,
                None => cores().min(most),
            },
            production: is_production(env)?,
        })
    }
}

/// A name or an address, without the brackets that an IPv6 address has in a URL.
fn host(text: &str) -> Result<String, ConfigError> {
    let text = text.trim();
    let host = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let is_name = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        && host.contains(|c: char| c.is_ascii_alphabetic());
    if is_name || host.parse::<IpAddr>().is_ok() {
        return Ok(host.to_owned());
    }
    let problem = format!("{} is no address or name, such as 127.0.0.1", quoted(text));
    Err(ConfigError::new("HOST", problem))
}

fn is_production(env: &Environment) -> Result<bool, ConfigError> {
    match env.get("APP_ENV") {
        None => Ok(env.get("DYNO").is_some()),
        Some("production") => Ok(true),
        Some("development") => Ok(false),
        Some(other) => Err(ConfigError::new(
            "APP_ENV",
            format!("{} is neither development nor production", quoted(other)),
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
        Some(token) if production && token.trim().chars().count() < ADMIN_TOKEN_LENGTH => {
            let problem =
                format!("is too short: in production use at least {ADMIN_TOKEN_LENGTH} characters");
            Err(ConfigError::new("ADMIN_TOKEN", problem))
        }
        token => Ok(token.map(Into::into)),
    }
}

fn public_origins(env: &Environment) -> Result<Vec<String>, ConfigError> {
    let listed = env.get("PUBLIC_ORIGIN").unwrap_or_default();
    listed.split(',').map(str::trim).filter(|origin| !origin.is_empty()).map(origin).collect()
}

fn trusted_proxies(env: &Environment) -> Result<TrustedProxies, ConfigError> {
    let listed = env.get("TRUSTED_PROXIES").unwrap_or_default();
    listed.parse().map_err(|entry: String| {
        let problem =
            format!("{} is no address or network, such as 10.0.0.0/8, nor unix", quoted(&entry));
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
    match env_filter::Builder::new().try_parse(filter) {
        Ok(_) => Ok(filter.to_owned()),
        Err(_) => Err(ConfigError::new(
            "RUST_LOG",
            format!("{} is not a log filter, such as info or tasklist=debug,warn", quoted(filter)),
        )),
    }
}
