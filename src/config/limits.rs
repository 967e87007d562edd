//! Limits of what one client, or all together, may take.

use std::time::Duration;

use super::environment::{ConfigError, Environment};

/// The limits of connections, requests and writes. `docs/limits.md` describes each.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `MAX_CONNECTIONS`: connections at the same time. Default: 4,096, or fewer if the process may
    /// not open as many files.
    pub connections: usize,
    /// `MAX_CONNECTIONS_PER_ADDRESS`: of these, connections of one address. Loopback addresses and
    /// trusted proxies may use all. Default: 256.
    pub connections_per_address: usize,
    /// `MAX_HEAD_BYTES`: the size of a request's line and headers. Default: 16 KiB.
    pub head_bytes: usize,
    /// `MAX_BODY_BYTES`: the size of a request's body. Default: 8 KiB: a task name of 500 characters of
    /// four bytes each, percent-encoded, takes 6,000.
    pub body_bytes: usize,
    /// `REQUEST_TIMEOUT`: the time in which a head must arrive, and then again a body. Default: 10 s.
    pub request_timeout: Duration,
    /// `WRITE_TIMEOUT`: the time after which a client that takes nothing of its answer is dropped.
    /// Default: 30 s.
    pub write_timeout: Duration,
    /// `IDLE_TIMEOUT`: the time for which a connection stays open between two requests. Longer than
    /// proxies in front keep it (Heroku's router: 90 s), so that the proxy closes first and never
    /// sends a request into a closing connection. Default: 95 s.
    pub idle_timeout: Duration,
    /// `MAX_TASKS`: tasks in the list. Default: 1,000,000.
    pub tasks: u64,
    /// `TASKS_PER_PAGE`: tasks on each page of the list. Default: 100.
    pub tasks_per_page: u64,
    /// `MAX_WRITES_PER_MINUTE`: writes of one address in a minute, at this process. Loopback addresses
    /// are not counted. 0 is no limit. Default: 600.
    pub writes_per_minute: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: 256,
            head_bytes: 16 * 1024,
            body_bytes: 8 * 1024,
            request_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(95),
            tasks: 1_000_000,
            tasks_per_page: 100,
            writes_per_minute: 600,
        }
    }
}

impl Limits {
    pub(super) fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        let default = Self::default();
        let count = |variable, min, max, default: usize| {
            Ok(env.number_between(variable, min, max)?.map_or(default, |number| number as usize))
        };
        let time = |variable, default| {
            let longest = Duration::from_secs(3600);
            let time = env.duration_between(variable, Duration::from_millis(100), longest)?;
            Ok(time.unwrap_or(default))
        };
        Ok(Self {
            connections: count("MAX_CONNECTIONS", 1, 1_000_000, default.connections)?,
            connections_per_address: count(
                "MAX_CONNECTIONS_PER_ADDRESS",
                1,
                1_000_000,
                default.connections_per_address,
            )?,
            head_bytes: count("MAX_HEAD_BYTES", 1024, 64 * 1024, default.head_bytes)?,
            body_bytes: count("MAX_BODY_BYTES", 1024, 1024 * 1024, default.body_bytes)?,
            request_timeout: time("REQUEST_TIMEOUT", default.request_timeout)?,
            write_timeout: time("WRITE_TIMEOUT", default.write_timeout)?,
            idle_timeout: time("IDLE_TIMEOUT", default.idle_timeout)?,
            tasks: env.number_between("MAX_TASKS", 1, u32::MAX)?.map_or(default.tasks, u64::from),
            tasks_per_page: env
                .number_between("TASKS_PER_PAGE", 1, 1000)?
                .map_or(default.tasks_per_page, u64::from),
            writes_per_minute: env
                .number_between("MAX_WRITES_PER_MINUTE", 0, u32::MAX)?
                .unwrap_or(default.writes_per_minute),
        })
    }
}
