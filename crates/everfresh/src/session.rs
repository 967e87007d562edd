//! A session store for actix-session.
//!
//! A store that cannot be reached is not an error of the request: the session is empty. Writing that
//! empty session back would destroy the real one. So it carries the entry [`UNAVAILABLE`] and is never
//! written.

use std::{
    cell::Cell,
    collections::HashMap,
    fmt::Display,
    future::Future,
    time::{Duration, SystemTime},
};

#[cfg(feature = "actix")]
use actix_session::SessionExt;
use actix_session::storage::{
    LoadError, SaveError, SessionKey, SessionStore, UpdateError, generate_session_key,
};
use actix_web::cookie::time;
#[cfg(feature = "actix")]
use actix_web::{Error, dev::ServiceResponse};
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, key::join_key, lifetime::Lifetime};

/// The entry of a session that could not be loaded: look for it to tell such a session from
/// one that is really empty.
pub const UNAVAILABLE: &str = "everfresh/unavailable";

type State = HashMap<String, String>;

tokio::task_local! {
    /// Whether a session with content was loaded for the request that this task is answering.
    static HAS_CONTENT: Cell<bool>;
}

/// Waits for a response. Returns also whether the request has a session with content: it is loaded
/// meanwhile, by a middleware inside, or is there already, from a middleware outside.
#[cfg(feature = "actix")]
pub(crate) async fn watch<B>(
    response: impl Future<Output = Result<ServiceResponse<B>, Error>>,
) -> Result<(ServiceResponse<B>, bool), Error> {
    let watched = async {
        let res = response.await?;
        let is_outside = !res.request().get_session().entries().is_empty();
        Ok((res, is_outside || HAS_CONTENT.with(Cell::get)))
    };
    HAS_CONTENT.scope(Cell::new(false), watched).await
}

/// Makes sessions of another store known to a [`ViewCache`](crate::ViewCache) around the session middleware:
/// it does not keep pages of visitors with a session unless they vary by it. [`CacheSessionStore`] does that
/// by itself, and a view cache inside of the session middleware knows all sessions.
///
/// ```
/// use actix_session::storage::CookieSessionStore;
/// use everfresh::WatchedSessions;
///
/// let store = WatchedSessions(CookieSessionStore::default());
/// # let _ = store;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct WatchedSessions<S>(pub S);

impl<S: SessionStore> SessionStore for WatchedSessions<S> {
    async fn load(&self, key: &SessionKey) -> Result<Option<State>, LoadError> {
        self.0.load(key).await.inspect(|loaded| note(loaded.as_ref()))
    }

    async fn save(&self, state: State, ttl: &time::Duration) -> Result<SessionKey, SaveError> {
        self.0.save(state, ttl).await
    }

    async fn update(
        &self,
        key: SessionKey,
        state: State,
        ttl: &time::Duration,
    ) -> Result<SessionKey, UpdateError> {
        self.0.update(key, state, ttl).await
    }

    async fn update_ttl(
        &self,
        key: &SessionKey,
        ttl: &time::Duration,
    ) -> Result<(), anyhow::Error> {
        self.0.update_ttl(key, ttl).await
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), anyhow::Error> {
        self.0.delete(key).await
    }
}

/// Remembers that a session has content.
fn note(loaded: Option<&State>) {
    if loaded.is_some_and(|state| !state.is_empty()) {
        // It fails outside of a view cache.
        let _ = HAS_CONTENT.try_with(|has_content| has_content.set(true));
    }
}

/// A store, such as a table, in which sessions outlive the cache. Every write goes there first.
///
/// An error is logged, and the session is empty. That includes [`DurableSessions::delete`]: if a
/// log-out must not fail, the app has to check by itself.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not store sessions durably",
    note = "implement `DurableSessions` over a table of the app, or use `NoDurableSessions`"
)]
pub trait DurableSessions {
    /// The reason that the store cannot be read or written.
    type Error: Display;

    /// Whether this is a real store, which then decides whether a session exists.
    const EXISTS: bool = true;

    /// Returns the state of a session and its end; `None` if there is no such session or it has
    /// ended.
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

    /// Changes the end of a session, and its state if one is given. Returns whether there is such a
    /// session.
    fn update(
        &self,
        key: &str,
        state: Option<String>,
        expires: SystemTime,
    ) -> impl Future<Output = Result<bool, Self::Error>>;

    /// Deletes a session. A session that does not exist is no error.
    fn delete(&self, key: &str) -> impl Future<Output = Result<(), Self::Error>>;
}

/// No durable store: sessions are in the cache alone.
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

/// A session store in the cache alone, or in the cache over a durable store.
///
/// Over a durable store, the cache holds sessions that have been read: a change is written to the
/// durable store and then deleted from the cache. If that deletion cannot be confirmed, the cache may
/// serve the old state for up to an hour after it can be reached again.
#[derive(Clone, Debug)]
pub struct CacheSessionStore<D = NoDurableSessions> {
    cache: Cache,
    durable: D,
}

/// A session as stored in the cache.
#[derive(Deserialize, Serialize)]
struct StoredSession {
    state: State,
    /// The end of the session, in seconds since 1970.
    expires: u64,
}

impl StoredSession {
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
    /// Stores sessions in the cache alone: a session that is evicted is lost.
    #[must_use]
    pub fn new(cache: &Cache) -> Self {
        Self::over(cache, NoDurableSessions)
    }
}

impl<D: DurableSessions> CacheSessionStore<D> {
    /// Stores sessions in `durable`, and in the cache for reading.
    #[must_use]
    pub fn over(cache: &Cache, durable: D) -> Self {
        Self { cache: cache.layer("session"), durable }
    }

    /// Reads a session from the durable store, and puts it into the cache unless it is changed
    /// meanwhile.
    async fn refill(&self, key: &SessionKey) -> Result<Option<StoredSession>, D::Error> {
        let read = async || {
            let found = self.durable.load(key.as_ref()).await?;
            Ok(found.and_then(|(text, expires)| Some(StoredSession::new(decode(&text)?, expires))))
        };
        let exists = |session: &Option<StoredSession>| session.is_some();
        let lifetime = Lifetime::For(REFILL_LIFETIME);
        self.cache.get_or_compute_if(&key_of(key), 0, &[], lifetime, exists, read).await
    }

    /// Changes a session. Returns whether there is one.
    async fn change(&self, key: &SessionKey, state: Option<&State>, ttl: Duration) -> bool {
        let expires = SystemTime::now() + ttl;
        if D::EXISTS {
            let text = state.and_then(encode);
            let changed = self.durable.update(key.as_ref(), text, expires).await;
            self.cache.delete(&key_of(key)).await;
            return changed.unwrap_or_else(|error| {
                log::error!("a session cannot be stored: {error}");
                // The session may still exist, so its key stays.
                true
            });
        }
        let lifetime = Lifetime::For(ttl);
        match state {
            // A cache that cannot be reached may still hold the session.
            Some(state) => {
                let session = StoredSession::new(state.clone(), expires);
                self.cache.try_replace(&key_of(key), &session, lifetime).await.unwrap_or(true)
            }
            None => self.cache.touch(&key_of(key), lifetime).await,
        }
    }
}

/// The lifetime in the cache of a session that was read from the durable store.
const REFILL_LIFETIME: Duration = Duration::from_secs(60 * 60);

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
        // In the cache alone an entry expires with its session.
        let is_valid = |session: &StoredSession| !D::EXISTS || !session.has_ended();
        let found = self.cache.try_get::<StoredSession>(&key_of(key)).await;
        let session = match found {
            Ok(Some(session)) => Ok(Some(session)),
            Ok(None) if !D::EXISTS => Ok(None),
            Err(_) if !D::EXISTS => return Ok(Some(unavailable())),
            _ => self.refill(key).await,
        };
        let loaded = match session {
            Ok(session) => session.filter(is_valid).map(|session| session.state),
            Err(error) => {
                log::error!("a session cannot be read: {error}");
                Some(unavailable())
            }
        };
        note(loaded.as_ref());
        Ok(loaded)
    }

    async fn save(&self, mut state: State, ttl: &time::Duration) -> Result<SessionKey, SaveError> {
        // The key is new, so this session overwrites no other.
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
            let session = StoredSession::new(state, expires);
            self.cache.set(&key_of(&key), &session, Lifetime::For(ttl)).await;
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
        // The session was deleted meanwhile, and must not come back under its old key.
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
