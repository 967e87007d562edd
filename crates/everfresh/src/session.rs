//! Sessions in the cache, for actix-session.
//!
//! A store that cannot be reached is no error of the request: its session is empty. It must then
//! not be written back, or what it really holds would be lost. So a session that was loaded
//! without its store carries the entry [`UNAVAILABLE`], and is never written.

use std::{
    collections::HashMap,
    fmt::Display,
    future::Future,
    time::{Duration, SystemTime},
};

use actix_session::storage::{
    LoadError, SaveError, SessionKey, SessionStore, UpdateError, generate_session_key,
};
use actix_web::cookie::time;
use serde::{Deserialize, Serialize};

use crate::{backend::frame::Stamp, cache::Cache, cache::key::join_key, cache::lifetime::Lifetime};

/// The entry of a session whose store could not be reached. Whoever wants to know whether a
/// session is really empty looks for it.
pub const UNAVAILABLE: &str = "everfresh/unavailable";

type State = HashMap<String, String>;

/// Where sessions outlive the cache: a table, say. What is written goes there first.
///
/// Errors are logged, and answered with an empty session; also that of [`DurableSessions::delete`],
/// so a log-out that must not fail has to look for itself.
pub trait DurableSessions {
    /// Why it cannot be asked.
    type Error: Display;

    /// Whether there is such a store: then it decides whether a session exists.
    const EXISTS: bool = true;

    /// The state of the session `key` and when it ends, if it has not ended yet.
    fn load(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<Option<(String, SystemTime)>, Self::Error>>;

    /// Stores a new session.
    fn insert(
        &self,
        key: &str,
        state: String,
        expires: SystemTime,
    ) -> impl Future<Output = Result<(), Self::Error>>;

    /// Changes a session that is there: its end, and its state if there is one. Whether it is
    /// there.
    fn update(
        &self,
        key: &str,
        state: Option<String>,
        expires: SystemTime,
    ) -> impl Future<Output = Result<bool, Self::Error>>;

    /// Deletes the session. That it is gone already is no error.
    fn delete(&self, key: &str) -> impl Future<Output = Result<(), Self::Error>>;
}

/// Sessions live in the cache only.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDurableSessions;

impl DurableSessions for NoDurableSessions {
    type Error = std::convert::Infallible;

    const EXISTS: bool = false;

    async fn load(&self, _: &str) -> Result<Option<(String, SystemTime)>, Self::Error> {
        Ok(None)
    }

    async fn insert(&self, _: &str, _: String, _: SystemTime) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn update(&self, _: &str, _: Option<String>, _: SystemTime) -> Result<bool, Self::Error> {
        Ok(true)
    }

    async fn delete(&self, _: &str) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// A session store: in the cache alone, or in the cache over a durable one.
///
/// Over a durable one, the cache holds what has been read from there: a change is written there,
/// and then deleted from the cache. If that delete cannot be confirmed, the cache may serve the old
/// state when it can be reached again, until it ends.
#[derive(Clone, Debug)]
pub struct CacheSessionStore<D = NoDurableSessions> {
    cache: Cache,
    durable: D,
}

/// A session as the cache keeps it.
#[derive(Deserialize, Serialize)]
struct Kept {
    state: State,
    /// Seconds since 1970.
    expires: u64,
}

impl Kept {
    fn new(state: State, expires: SystemTime) -> Self {
        let since_epoch = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { state, expires: since_epoch.as_secs() }
    }

    fn has_ended(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.expires <= now.as_secs()
    }
}

impl CacheSessionStore {
    /// In the cache alone: what it loses is lost.
    #[must_use]
    pub fn new(cache: &Cache) -> Self {
        Self::over(cache, NoDurableSessions)
    }
}

impl<D: DurableSessions> CacheSessionStore<D> {
    /// In the cache over `durable`, which is written first.
    #[must_use]
    pub fn over(cache: &Cache, durable: D) -> Self {
        Self { cache: cache.layer("session"), durable }
    }

    /// What the durable store holds; it is put into the cache unless somebody changes it meanwhile.
    async fn refill(&self, key: &SessionKey) -> Result<Option<Kept>, D::Error> {
        let read = async || {
            let found = self.durable.load(key.as_ref()).await?;
            Ok(found.and_then(|(text, expires)| Some(Kept::new(decode(&text)?, expires))))
        };
        let is_there = |kept: &Option<Kept>| kept.is_some();
        let lifetime = Lifetime::For(REFILLED);
        self.cache.get_or_compute_if(&key_of(key), Stamp::default(), lifetime, is_there, read).await
    }

    /// Whether a session that was there has been changed.
    async fn change(&self, key: &SessionKey, state: Option<&State>, ttl: Duration) -> bool {
        let expires = SystemTime::now() + ttl;
        if D::EXISTS {
            let text = state.and_then(encode);
            let changed = self.durable.update(key.as_ref(), text, expires).await;
            self.cache.delete(&key_of(key)).await;
            return changed.unwrap_or_else(|error| {
                log::error!("a session cannot be stored: {error}");
                // Not known to be gone: its key stays.
                true
            });
        }
        let lifetime = Lifetime::For(ttl);
        match state {
            // A cache that is away has lost nothing yet.
            Some(state) => {
                let kept = Kept::new(state.clone(), expires);
                self.cache.replace(&key_of(key), &kept, lifetime).await.unwrap_or(true)
            }
            None => self.cache.touch(&key_of(key), lifetime).await,
        }
    }
}

/// How long a session that was read from the durable store is kept in the cache.
const REFILLED: Duration = Duration::from_secs(60 * 60);

fn key_of(key: &SessionKey) -> String {
    join_key("session", [key.as_ref()])
}

fn encode(state: &State) -> Option<String> {
    serde_json::to_string(state).ok()
}

fn decode(text: &str) -> Option<State> {
    serde_json::from_str(text).ok()
}

fn unavailable() -> State {
    State::from([(UNAVAILABLE.to_owned(), "true".to_owned())])
}

fn lifetime(ttl: &time::Duration) -> Duration {
    Duration::try_from(*ttl).unwrap_or_default()
}

impl<D: DurableSessions> SessionStore for CacheSessionStore<D> {
    async fn load(&self, key: &SessionKey) -> Result<Option<State>, LoadError> {
        // The lifetime of an entry of the cache alone is that of its session.
        let is_good = |kept: &Kept| !D::EXISTS || !kept.has_ended();
        let found = self.cache.try_get::<Kept>(&key_of(key)).await;
        let kept = match found {
            Ok(Some(kept)) => Ok(Some(kept)),
            Ok(None) if !D::EXISTS => Ok(None),
            Err(_) if !D::EXISTS => return Ok(Some(unavailable())),
            _ => self.refill(key).await,
        };
        Ok(match kept {
            Ok(kept) => kept.filter(is_good).map(|kept| kept.state),
            Err(error) => {
                log::error!("a session cannot be read: {error}");
                Some(unavailable())
            }
        })
    }

    async fn save(&self, mut state: State, ttl: &time::Duration) -> Result<SessionKey, SaveError> {
        // A new key overwrites nothing.
        state.remove(UNAVAILABLE);
        let (key, ttl) = (generate_session_key(), lifetime(ttl));
        let expires = SystemTime::now() + ttl;
        if D::EXISTS {
            if let Some(text) = encode(&state) {
                let inserted = self.durable.insert(key.as_ref(), text, expires).await;
                let _ = inserted
                    .inspect_err(|error| log::error!("a session cannot be stored: {error}"));
            }
        } else {
            let kept = Kept::new(state, expires);
            self.cache.set(&key_of(&key), &kept, Lifetime::For(ttl)).await;
        }
        Ok(key)
    }

    async fn update(
        &self,
        key: SessionKey,
        state: State,
        ttl: &time::Duration,
    ) -> Result<SessionKey, UpdateError> {
        if state.contains_key(UNAVAILABLE) || self.change(&key, Some(&state), lifetime(ttl)).await {
            return Ok(key);
        }
        // It has been deleted meanwhile, and must not come back under its key.
        self.save(state, ttl).await.map_err(|error| match error {
            SaveError::Serialization(error) => UpdateError::Serialization(error),
            SaveError::Other(error) => UpdateError::Other(error),
        })
    }

    async fn update_ttl(
        &self,
        key: &SessionKey,
        ttl: &time::Duration,
    ) -> Result<(), anyhow::Error> {
        self.change(key, None, lifetime(ttl)).await;
        Ok(())
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), anyhow::Error> {
        if let Err(error) = self.durable.delete(key.as_ref()).await {
            log::error!("a session cannot be deleted: {error}");
        }
        self.cache.delete(&key_of(key)).await;
        Ok(())
    }
}
