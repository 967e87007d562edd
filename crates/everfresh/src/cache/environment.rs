//! Builds a cache from the environment variables that platforms set.

use memcached_client::{Client, Config, Credentials, Protocol, ServerAddress, UnknownProtocol};
use thiserror::Error;

use super::{Cache, builder::CacheBuilder};
use crate::freshness::replay::Ledger;

/// The size of the in-process cache if no server is configured.
const MEMORY_BYTES: usize = 64 * 1024 * 1024;

/// An invalid environment variable. Never holds the password.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{variable}: {problem}")]
pub struct EnvironmentError {
    /// The name of the variable.
    pub variable: &'static str,
    /// The problem and its remedy.
    pub problem: String,
}

impl Cache {
    /// Builds a cache from `MEMCACHE_SERVERS`, `MEMCACHE_USERNAME` and `MEMCACHE_PASSWORD`, or from
    /// `MEMCACHIER_SERVERS`, `MEMCACHIER_USERNAME` and `MEMCACHIER_PASSWORD`, which MemCachier's add-on
    /// sets. If neither names a server, entries are stored in this process, in 64 MiB.
    ///
    /// `MEMCACHE_SERVERS` wins, because the add-on's variables cannot be changed: a proxy to MemCachier
    /// that runs beside the app is named there, and then gets the log-in of the add-on, unless
    /// `MEMCACHE_USERNAME` is set too. The protocol is found out ([`Protocol::Auto`]),
    /// unless `MEMCACHE_PROTOCOL` names one.
    ///
    /// `MEMCACHE_TLS=yes` makes all connections by TCP use TLS, as `tls://` does before the name of one
    /// server; `MEMCACHE_CA_FILE` names the authorities that are trusted (default: those of the platform).
    /// Both require the feature `tls`.
    pub fn from_env() -> Result<CacheBuilder, EnvironmentError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Like [`Cache::from_env`], for entries in memcached that a [`Ledger`] keeps fresh
    /// ([`Cache::memcached_with_ledger`]). Without servers, the ledger is not used.
    pub fn from_env_with_ledger(
        ledger: impl Ledger + 'static,
    ) -> Result<CacheBuilder, EnvironmentError> {
        Ok(match servers_from_variables(|name| std::env::var(name).ok())? {
            Some(servers) => Self::memcached_with_ledger(servers.config, ledger),
            None => Self::memory(MEMORY_BYTES),
        })
    }

    /// Like [`Cache::from_env`], with variables read by `variable`. An empty variable counts as not
    /// set.
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<CacheBuilder, EnvironmentError> {
        Ok(match servers_from_variables(variable)? {
            Some(servers) => Self::memcached(Client::new(servers.config)),
            None => Self::memory(MEMORY_BYTES),
        })
    }
}

/// The servers that environment variables name.
#[derive(Clone, Debug)]
pub struct NamedServers {
    /// The servers, credentials, protocol and settings of TLS, with defaults for the rest.
    pub config: Config,
    /// The variable that names the servers.
    pub variable: &'static str,
}

/// Reads the variables of [`Cache::from_env`]. Returns `None` if they name no server.
pub fn servers_from_variables(
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<NamedServers>, EnvironmentError> {
    let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    // A platform sets the second one, and a person the first one, for example for a proxy.
    let names = ["MEMCACHE_SERVERS", "MEMCACHIER_SERVERS"];
    let Some((name, servers)) = names.iter().find_map(|name| Some((*name, set(name)?))) else {
        return Ok(None);
    };
    let error = |variable, problem| EnvironmentError { variable, problem };
    if servers.contains('@') {
        // The text before the @ may hold a password, so it is not quoted.
        let problem = "contains a user; set user and password in variables of their own";
        return Err(error(name, problem.to_owned()));
    }
    let config = Config::parse(&servers);
    let mut config = config.map_err(|wrong| error(name, wrong.to_string()))?;
    config.protocol = match set("MEMCACHE_PROTOCOL") {
        None => Protocol::Auto,
        Some(name) => name
            .parse()
            .map_err(|unknown: UnknownProtocol| error("MEMCACHE_PROTOCOL", unknown.to_string()))?,
    };
    set_tls(&mut config, set("MEMCACHE_TLS"), set("MEMCACHE_CA_FILE"))?;
    let logins = [
        ("MEMCACHE_USERNAME", "MEMCACHE_PASSWORD"),
        ("MEMCACHIER_USERNAME", "MEMCACHIER_PASSWORD"),
    ];
    let is_platforms = name == "MEMCACHIER_SERVERS";
    for (user_name, password_name) in &logins[usize::from(is_platforms)..] {
        config.credentials = match (set(user_name), set(password_name)) {
            (Some(username), Some(password)) => {
                Some(Credentials { username, password: password.into() })
            }
            (None, None) => continue,
            _ => {
                let problem = "set both user and password, or neither".to_owned();
                return Err(error(user_name, problem));
            }
        };
        break;
    }
    Ok(Some(NamedServers { config, variable: name }))
}

/// Makes all connections by TCP use TLS if `wanted` says so.
fn set_tls(
    config: &mut Config,
    wanted: Option<String>,
    ca_file: Option<String>,
) -> Result<(), EnvironmentError> {
    match wanted.as_deref() {
        None | Some("no" | "false" | "0") => {}
        Some("yes" | "true" | "1") => {
            for server in &mut config.servers {
                if let ServerAddress::Tcp { host, port } = server {
                    *server = ServerAddress::Tls { host: std::mem::take(host), port: *port };
                }
            }
        }
        Some(other) => {
            let problem = format!("“{other}” is not yes or no");
            return Err(EnvironmentError { variable: "MEMCACHE_TLS", problem });
        }
    }
    let uses_tls = config.servers.iter().any(|server| matches!(server, ServerAddress::Tls { .. }));
    if uses_tls && cfg!(not(feature = "tls")) {
        let problem = "TLS requires the Cargo feature `tls` of everfresh".to_owned();
        return Err(EnvironmentError { variable: "MEMCACHE_TLS", problem });
    }
    #[cfg(feature = "tls")]
    {
        config.tls.ca_file = ca_file.map(Into::into);
    }
    #[cfg(not(feature = "tls"))]
    drop(ca_file);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<&'static str, String> {
        let found = |name: &str| {
            let variable = variables.iter().find(|(variable, _)| *variable == name);
            variable.map(|(_, value)| (*value).to_owned())
        };
        match Cache::from_variables(found) {
            Ok(builder) => Ok(builder.build().backend_name()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn without_servers_entries_are_in_this_process() {
        assert_eq!(from(&[]), Ok("memory"));
        assert_eq!(from(&[("MEMCACHIER_SERVERS", " "), ("MEMCACHE_SERVERS", "")]), Ok("memory"));
    }

    #[test]
    fn both_names_of_the_variables_work() {
        let user = ("MEMCACHIER_USERNAME", "user");
        let password = ("MEMCACHIER_PASSWORD", "hunter2");
        assert_eq!(from(&[("MEMCACHIER_SERVERS", "a:1,b"), user, password]), Ok("memcached"));
        assert_eq!(from(&[("MEMCACHE_SERVERS", "a")]), Ok("memcached"));
    }

    /// The servers, the variable that names them, and the user.
    fn named(variables: &[(&str, &str)]) -> (String, &'static str, Option<String>) {
        let found = |name: &str| {
            let variable = variables.iter().find(|(variable, _)| *variable == name);
            variable.map(|(_, value)| (*value).to_owned())
        };
        let NamedServers { config, variable } = servers_from_variables(found).unwrap().unwrap();
        let user = config.credentials.map(|login| login.username);
        (config.servers[0].to_string(), variable, user)
    }

    #[test]
    fn the_servers_that_a_person_names_win_over_those_of_the_add_on() {
        let add_on = [
            ("MEMCACHIER_SERVERS", "far:1"),
            ("MEMCACHIER_USERNAME", "add-on"),
            ("MEMCACHIER_PASSWORD", "hunter2"),
        ];
        assert_eq!(
            named(&add_on),
            ("far:1".into(), "MEMCACHIER_SERVERS", Some("add-on".to_owned()))
        );
        let proxy = [&add_on[..], &[("MEMCACHE_SERVERS", "127.0.0.1:2")]].concat();
        let of_proxy = |user: &str| ("127.0.0.1:2".into(), "MEMCACHE_SERVERS", Some(user.into()));
        assert_eq!(named(&proxy), of_proxy("add-on"), "a proxy passes the log-in on");
        let own = [("MEMCACHE_USERNAME", "own"), ("MEMCACHE_PASSWORD", "hunter3")];
        assert_eq!(named(&[&proxy[..], &own].concat()), of_proxy("own"));
        let others = [("MEMCACHIER_SERVERS", "far:1"), own[0], own[1]];
        assert_eq!(named(&others), ("far:1".into(), "MEMCACHIER_SERVERS", None));
    }

    #[cfg(feature = "tls")]
    #[test]
    fn tls_is_used_for_all_servers_or_for_some() {
        let servers = ("MEMCACHE_SERVERS", "a:1 b /run/m.sock");
        let found = |variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                let variable = variables.iter().find(|(variable, _)| *variable == name);
                variable.map(|(_, value)| (*value).to_owned())
            };
            let config = servers_from_variables(variable).unwrap().unwrap().config;
            let servers: Vec<_> = config.servers.iter().map(ToString::to_string).collect();
            (servers.join(" "), config.tls.ca_file)
        };
        let ca_file = ("MEMCACHE_CA_FILE", "/ca.pem");
        let (listed, ca) = found(&[servers, ("MEMCACHE_TLS", "yes"), ca_file]);
        assert_eq!(listed, "tls://a:1 tls://b:11211 /run/m.sock");
        assert_eq!(ca, Some("/ca.pem".into()));
        assert_eq!(found(&[servers]).0, "a:1 b:11211 /run/m.sock");
        let some = found(&[("MEMCACHE_SERVERS", "a,tls://b")]).0;
        assert_eq!(some, "a:11211 tls://b:11211");
        let error = from(&[servers, ("MEMCACHE_TLS", "please")]).unwrap_err();
        assert!(error.contains("MEMCACHE_TLS: “please” is not yes or no"), "{error}");
    }

    #[test]
    fn an_error_names_the_variable_and_no_password() {
        let error = from(&[("MEMCACHIER_SERVERS", "a:b")]).unwrap_err();
        assert!(error.starts_with("MEMCACHIER_SERVERS: “a:b” is not a server"), "{error}");
        let error = from(&[("MEMCACHE_SERVERS", "me:hunter2@a:1")]).unwrap_err();
        assert!(error.starts_with("MEMCACHE_SERVERS: ") && !error.contains("hunter2"), "{error}");
        let password = ("MEMCACHIER_PASSWORD", "hunter2");
        let error = from(&[("MEMCACHIER_SERVERS", "a"), password]).unwrap_err();
        assert!(error.contains("both") && !error.contains("hunter2"), "{error}");
    }
}
