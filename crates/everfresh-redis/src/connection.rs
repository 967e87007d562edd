//! The connection: its time limits, and the required settings of the server.

use std::{
    fmt,
    future::Future,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use everfresh::backend::BackendError;
use redis::{
    Client, ErrorKind, RedisError, RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use thiserror::Error;
use tokio::time::timeout;

/// The time in which the server must answer.
const TIMEOUT: Duration = Duration::from_millis(200);

/// The time for which the server is not asked after it did not answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A Redis or Valkey server, for [`Cache::with_backend`](everfresh::Cache::with_backend). A server that does not
/// answer within 200 ms is not asked for a second; meanwhile the cache is one without entries.
pub struct Redis {
    client: Client,
    /// Replaced after an outage: a connection that answers no more may look open for long.
    connection: Mutex<ConnectionManager>,
    /// Whether the server is known to be empty after a restart. It is asked again after an outage, because it may be
    /// another one.
    is_volatile: AtomicBool,
    /// Whether that was promised by the caller.
    is_promised: bool,
    down_until: Mutex<Option<Instant>>,
}

/// The reason that a server cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is not one of a server.
    #[error("this is not the URL of a Redis server ({0}); write redis://HOST:PORT")]
    Url(String),
    /// The server keeps entries over a restart, so that it could bring back entries that were deleted.
    #[error(
        "the Redis server keeps its entries over a restart, and would bring back entries that were deleted: \
         set `{setting}` to `{remedy}` (it is `{value}`)"
    )]
    Persistent {
        /// The setting of the server.
        setting: &'static str,
        /// Its value.
        value: String,
        /// The value that it should have.
        remedy: &'static str,
    },
    /// The server has begun with the entries of a snapshot.
    #[error(
        "the Redis server has begun with {keys} entries of a snapshot, and would bring back entries that were \
         deleted: delete its file dump.rdb and restart it"
    )]
    Snapshot {
        /// The number of entries.
        keys: String,
    },
    /// The server does not tell its settings.
    #[error(
        "the Redis server does not tell whether it keeps its entries over a restart ({0}); if you know that it \
         does not, use `Redis::connect_to_volatile`"
    )]
    Unknown(String),
}

impl Redis {
    /// Connects to a server, and makes sure that it is empty after a restart. If it cannot be reached, logs a
    /// warning, and makes sure of that before its first use.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        let redis = Self::new(url, false)?;
        match redis.check().await {
            Ok(()) => Ok(redis),
            Err(Check::Unreachable(reason)) => {
                log::warn!("the Redis server cannot be reached: {reason}");
                Ok(redis)
            }
            Err(Check::Failed(error)) => Err(error),
        }
    }

    /// Connects, at the first use, to a server that is known to be empty after a restart, and to have no replica that
    /// may take its place.
    pub fn connect_to_volatile(url: &str) -> Result<Self, ConnectError> {
        Self::new(url, true)
    }

    fn new(url: &str, is_promised: bool) -> Result<Self, ConnectError> {
        // The URL may contain a password, and is not part of the error.
        let client = Client::open(url).map_err(|error| ConnectError::Url(text(&error)))?;
        let connection = open(&client).map_err(|error| ConnectError::Url(text(&error)))?;
        Ok(Self {
            client,
            connection: Mutex::new(connection),
            is_volatile: AtomicBool::new(is_promised),
            is_promised,
            down_until: Mutex::default(),
        })
    }

    fn connection(&self) -> ConnectionManager {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs an operation, unless the server is known to be away.
    pub(crate) async fn run<T, F>(
        &self,
        operation: impl FnOnce(ConnectionManager) -> F,
    ) -> Result<T, BackendError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        if self.is_down() {
            return Err(BackendError::Unavailable);
        }
        if !self.is_volatile.load(Ordering::Relaxed) {
            match self.check().await {
                Ok(()) => self.is_volatile.store(true, Ordering::Relaxed),
                Err(Check::Unreachable(_)) => return Err(BackendError::Unavailable),
                Err(Check::Failed(error)) => {
                    log::error!("the cache stores nothing: {error}");
                    // It is asked again after a while: its settings can be changed.
                    self.note_outage();
                    return Err(BackendError::Refused);
                }
            }
        }
        self.timed(operation(self.connection())).await.map_err(|error| {
            if is_outage(&error) { BackendError::Unavailable } else { BackendError::Refused }
        })
    }

    async fn timed<T>(&self, operation: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
        // Also bounds the time for a connection.
        let answered = timeout(TIMEOUT * 2, operation).await;
        let outcome = answered.unwrap_or_else(|_| {
            Err(RedisError::from((ErrorKind::Io, "the server does not answer")))
        });
        outcome.inspect_err(|error| {
            if is_outage(error) {
                self.note_outage();
            }
        })
    }

    fn is_down(&self) -> bool {
        let down_until = self.down_until.lock().unwrap_or_else(PoisonError::into_inner);
        down_until.is_some_and(|end| Instant::now() < end)
    }

    fn note_outage(&self) {
        let mut down_until = self.down_until.lock().unwrap_or_else(PoisonError::into_inner);
        *down_until = Some(Instant::now() + RETRY_AFTER);
        self.is_volatile.store(self.is_promised, Ordering::Relaxed);
        if let Ok(new) = open(&self.client) {
            *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = new;
        }
    }

    /// Makes sure that the server is empty after a restart.
    async fn check(&self) -> Result<(), Check> {
        for (setting, remedy) in [("save", ""), ("appendonly", "no")] {
            let mut connection = self.connection();
            let mut command = redis::cmd("CONFIG");
            command.arg("GET").arg(setting);
            let answer = self.timed(command.query_async::<Vec<String>>(&mut connection)).await;
            let value = match answer {
                Ok(pair) => pair.into_iter().nth(1).unwrap_or_default(),
                Err(error) => return Err(not_answered(error)),
            };
            if value != remedy {
                let error = ConnectError::Persistent { setting, value, remedy: quoted(remedy) };
                return Err(Check::Failed(error));
            }
        }
        // A snapshot of before is loaded at each start, whatever the settings.
        let mut connection = self.connection();
        let mut command = redis::cmd("INFO");
        command.arg("persistence");
        let answer = self.timed(command.query_async::<String>(&mut connection)).await;
        let info = answer.map_err(not_answered)?;
        let value = |name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        match (value("loading"), value("rdb_last_load_keys_loaded")) {
            (Some("1"), _) => Err(Check::Unreachable("it is loading".to_owned())),
            (_, Some("0")) => Ok(()),
            (_, Some(keys)) => Err(Check::Failed(ConnectError::Snapshot { keys: keys.to_owned() })),
            (_, None) => {
                let reason =
                    "it does not say what it has loaded: it is older than Redis 7".to_owned();
                Err(Check::Failed(ConnectError::Unknown(reason)))
            }
        }
    }
}

/// The reason that a server is not known to be empty after a restart.
enum Check {
    Unreachable(String),
    Failed(ConnectError),
}

fn not_answered(error: RedisError) -> Check {
    if is_outage(&error) {
        Check::Unreachable(text(&error))
    } else {
        Check::Failed(ConnectError::Unknown(text(&error)))
    }
}

/// Opens a connection at its first use.
fn open(client: &Client) -> RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(0)
        .set_connection_timeout(Some(TIMEOUT))
        .set_response_timeout(Some(TIMEOUT));
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

fn is_outage(error: &RedisError) -> bool {
    error.is_io_error() || error.is_timeout() || error.is_connection_dropped()
}

fn quoted(value: &'static str) -> &'static str {
    if value.is_empty() { "\"\"" } else { value }
}

fn text(error: &RedisError) -> String {
    error.to_string()
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("is_down", &self.is_down()).finish_non_exhaustive()
    }
}
