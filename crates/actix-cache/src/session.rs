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

use crate::{cache::Cache, key::join_key, lifetime::Lifetime};

/// The entry of a session whose store could not be reached. Whoever wants to know whether a
/// session is really empty looks for it.
pub const UNAVAILABLE: &str = "actix-cache/unavailable";

type State = HashMap<String, String>;

/// Where sessions outlive the cache: a table, say. What is written goes there first.
///
/// Errors are logged, and answered with an empty session.
pub trait DurableSessions {
    /// Why it cannot be asked.
    type Error: Display;

    /// Whether there is such a store: then it decides whether a session exists.
    const EXISTS: bool = true;

    /// The state of the session `key`, if it has not expired.
    fn load(&self, key: &str) -> impl Future<Output = Result<Option<String>, Self::Error>>;

    /// Stores the state of the session `key`, whatever was there, until `expires`.
    fn save(
        &self,
        key: &str,
        state: String,
        expires: SystemTime,
    ) -> impl Future<Output = Result<(), Self::Error>>;

    /// Deletes the session. That it is gone already is no error.
    fn delete(&self, key: &str) -> impl Future<Output = Result<(), Self::Error>>;
}

/// Sessions live in the cache only.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDurableSessions;

impl DurableSessions for NoDurableSessions {
    type Error = std::convert::Infallible;

    const EXISTS: bool = false;

    async fn load(&self, _: &str) -> Result<Option<String>, Self::Error> {
        Ok(None)
    }

    async fn save(&self, _: &str, _: String, _: SystemTime) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn delete(&self, _: &str) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// A session store: in the cache alone, or in the cache over a durable one.
///
/// Over a durable one, a session that the cache has lost is read from there and put into the cache
/// again. If a change has been written there and the cache can then neither be changed nor be
/// cleared, the cache may serve the old state when it can be reached again, until it expires.
#[derive(Clone, Debug)]
pub struct CacheSessionStore<D = NoDurableSessions> {
    cache: Cache,
    durable: D,
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

    /// Durable store first; the cache follows if it can, and must not lag behind.
    async fn write(&self, key: &SessionKey, state: &State, ttl: &time::Duration) {
        if state.contains_key(UNAVAILABLE) {
            return;
        }
        let Some(text) = encode(state) else { return };
        let lifetime = Duration::try_from(*ttl).unwrap_or_default();
        let expires = SystemTime::now() + lifetime;
        if let Err(error) = self.durable.save(key.as_ref(), text, expires).await {
            log::error!("a session cannot be stored: {error}");
            self.forget(key).await;
            return;
        }
        let key_in_cache = key_of(key);
        if !self.cache.set(&key_in_cache, state, Lifetime::For(lifetime)).await {
            self.forget(key).await;
        }
    }

    async fn forget(&self, key: &SessionKey) {
        self.cache.delete(&key_of(key)).await;
    }

    /// What the durable store holds, put into the cache for the next time.
    async fn refill(&self, key: &SessionKey, in_cache: bool) -> Result<Option<State>, D::Error> {
        let text = self.durable.load(key.as_ref()).await?;
        let state = text.and_then(|text| decode(&text));
        if let (Some(state), true) = (&state, in_cache) {
            // Only if nobody has written in between.
            self.cache.add(&key_of(key), state, Lifetime::For(REFILLED)).await;
        }
        Ok(state)
    }
}

/// How long a session that was lost is kept in the cache before it is read again: how long it
/// really lives is known where it comes from.
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

impl<D: DurableSessions> SessionStore for CacheSessionStore<D> {
    async fn load(&self, key: &SessionKey) -> Result<Option<State>, LoadError> {
        let found = self.cache.try_get::<State>(&key_of(key)).await;
        if let Ok(Some(state)) = found {
            return Ok(Some(state));
        }
        match self.refill(key, found.is_ok()).await {
            Ok(Some(state)) => Ok(Some(state)),
            Ok(None) if found.is_ok() || D::EXISTS => Ok(None),
            Ok(None) => Ok(Some(unavailable())),
            Err(error) => {
                log::error!("a session cannot be read: {error}");
                Ok(Some(unavailable()))
            }
        }
    }

    async fn save(&self, state: State, ttl: &time::Duration) -> Result<SessionKey, SaveError> {
        let key = generate_session_key();
        self.write(&key, &state, ttl).await;
        Ok(key)
    }

    async fn update(
        &self,
        key: SessionKey,
        state: State,
        ttl: &time::Duration,
    ) -> Result<SessionKey, UpdateError> {
        self.write(&key, &state, ttl).await;
        Ok(key)
    }

    async fn update_ttl(
        &self,
        key: &SessionKey,
        ttl: &time::Duration,
    ) -> Result<(), anyhow::Error> {
        if let Ok(Some(state)) = self.load(key).await {
            self.write(key, &state, ttl).await;
        }
        Ok(())
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), anyhow::Error> {
        if let Err(error) = self.durable.delete(key.as_ref()).await {
            log::error!("a session cannot be deleted: {error}");
        }
        self.forget(key).await;
        Ok(())
    }
}
