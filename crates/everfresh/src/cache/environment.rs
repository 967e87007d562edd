//! Builds a cache from the environment variables that platforms set.

use memcached_client::{Client, Config, Credentials, ServerAddress};
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
    /// Builds a cache from `MEMCACHIER_SERVERS`, `MEMCACHIER_USERNAME` and `MEMCACHIER_PASSWORD`, or
    /// from `MEMCACHE_SERVERS`, `MEMCACHE_USERNAME` and `MEMCACHE_PASSWORD`. If neither names a
    /// server, entries are stored in this process, in 64 MiB.
    pub fn from_env() -> Result<CacheBuilder, EnvironmentError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Like [`Cache::from_env`], for entries in memcached that a [`Ledger`] keeps fresh
    /// ([`Cache::memcached_with_ledger`]). Without servers, the ledger is not used.
    pub fn from_env_with_ledger(
        ledger: impl Ledger + 'static,
    ) -> Result<CacheBuilder, EnvironmentError> {
        Ok(match servers_from_variables(|name| std::env::var(name).ok())? {
            Some(config) => Self::memcached_with_ledger(config, ledger),
            None => Self::memory(MEMORY_BYTES),
        })
    }

    /// Like [`Cache::from_env`], with variables read by `variable`. An empty variable counts as not
    /// set.
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<CacheBuilder, EnvironmentError> {
        Ok(match servers_from_variables(variable)? {
            Some(config) => Self::memcached(Client::new(config)),
            None => Self::memory(MEMORY_BYTES),
        })
    }
}

/// Returns a config with the servers and credentials that the variables of [`Cache::from_env`] name,
/// and defaults for the rest. Returns `None` if they name no server.
pub fn servers_from_variables(
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Config>, EnvironmentError> {
    let set = |name: String| variable(&name).filter(|value| !value.trim().is_empty());
    for (platform, servers_variable, user_variable) in [
        ("MEMCACHIER", "MEMCACHIER_SERVERS", "MEMCACHIER_USERNAME"),
        ("MEMCACHE", "MEMCACHE_SERVERS", "MEMCACHE_USERNAME"),
    ] {
        let Some(servers) = set(servers_variable.to_owned()) else { continue };
        let error = |problem| EnvironmentError { variable: servers_variable, problem };
        if servers.contains('@') {
            // The text before the @ may hold a password, so it is not quoted.
            let problem = "contains a user; set user and password in variables of their own";
            return Err(error(problem.to_owned()));
        }
        let servers = ServerAddress::parse_list(&servers);
        let mut config = Config::new(servers.map_err(|wrong| error(wrong.to_string()))?);
        let username = set(format!("{platform}_USERNAME"));
        let password = set(format!("{platform}_PASSWORD"));
        config.credentials = match (username, password) {
            (Some(username), Some(password)) => {
                Some(Credentials { username, password: password.into() })
            }
            (None, None) => None,
            _ => {
                return Err(EnvironmentError {
                    variable: user_variable,
                    problem: "set both user and password, or neither".to_owned(),
                });
            }
        };
        return Ok(Some(config));
    }
    Ok(None)
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
