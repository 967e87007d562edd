//! A cache from the environment, as platforms set it.

use memcached_client::{Client, Config, Credentials, ServerAddress};
use thiserror::Error;

use crate::{cache::Cache, cache::builder::CacheBuilder};

/// What the in-process cache may take where no server is named.
const MEMORY_BYTES: usize = 64 * 1024 * 1024;

/// A variable that is wrong. Never holds the password.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{variable}: {problem}")]
pub struct EnvironmentError {
    /// Which variable.
    pub variable: &'static str,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

impl Cache {
    /// The servers of `MEMCACHIER_SERVERS`, with `MEMCACHIER_USERNAME` and `MEMCACHIER_PASSWORD`;
    /// or those of `MEMCACHE_SERVERS` and so on; or, without any, 64 MiB in this process.
    pub fn from_env() -> Result<CacheBuilder, EnvironmentError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Likewise, with the variables looked up by `variable`. An empty one counts as not set.
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<CacheBuilder, EnvironmentError> {
        Ok(match servers_from_variables(variable)? {
            Some(config) => Self::memcached(Client::new(config)),
            None => Self::memory(MEMORY_BYTES),
        })
    }
}

/// The servers and credentials that the variables name, as for [`Cache::from_env`]; the rest of the
/// config has its defaults. `None` if they name none.
pub fn servers_from_variables(
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Config>, EnvironmentError> {
    let set = |name: String| variable(&name).filter(|value| !value.trim().is_empty());
    for (platform, servers_are, user_is) in [
        ("MEMCACHIER", "MEMCACHIER_SERVERS", "MEMCACHIER_USERNAME"),
        ("MEMCACHE", "MEMCACHE_SERVERS", "MEMCACHE_USERNAME"),
    ] {
        let Some(servers) = set(servers_are.to_owned()) else { continue };
        let error = |problem| EnvironmentError { variable: servers_are, problem };
        if servers.contains('@') {
            // What stands before it may be a password.
            let problem = "names a user; user and password have variables of their own";
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
                    variable: user_is,
                    problem: "user and password must be set both, or neither".to_owned(),
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
    fn without_servers_the_cache_is_in_this_process() {
        assert_eq!(from(&[]), Ok("memory"));
        assert_eq!(from(&[("MEMCACHIER_SERVERS", " "), ("MEMCACHE_SERVERS", "")]), Ok("memory"));
    }

    #[test]
    fn servers_are_taken_from_either_name() {
        let user = ("MEMCACHIER_USERNAME", "user");
        let password = ("MEMCACHIER_PASSWORD", "hunter2");
        assert_eq!(from(&[("MEMCACHIER_SERVERS", "a:1,b"), user, password]), Ok("memcached"));
        assert_eq!(from(&[("MEMCACHE_SERVERS", "a")]), Ok("memcached"));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_password_is() {
        let error = from(&[("MEMCACHIER_SERVERS", "a:b")]).unwrap_err();
        assert!(error.starts_with("MEMCACHIER_SERVERS: “a:b” is not a server"), "{error}");
        let error = from(&[("MEMCACHE_SERVERS", "me:hunter2@a:1")]).unwrap_err();
        assert!(error.starts_with("MEMCACHE_SERVERS: ") && !error.contains("hunter2"), "{error}");
        let password = ("MEMCACHIER_PASSWORD", "hunter2");
        let error = from(&[("MEMCACHIER_SERVERS", "a"), password]).unwrap_err();
        assert!(error.contains("both") && !error.contains("hunter2"), "{error}");
    }
}
