//! The stores of sessions (`SESSION_STORE`), and the table `sessions`.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actix_session::storage::{
    CookieSessionStore, LoadError, SaveError, SessionKey, SessionStore, UpdateError,
};
use actix_web::{cookie::time, rt};
use diesel::prelude::*;
use everfresh::{CacheSessionStore, DurableSessions, WatchedSessions};
use sha2::{Digest, Sha256};

use crate::db::{Db, DbConnection, DbError};

diesel::table! {
    sessions (id) {
        id -> Text,
        state -> Text,
        expires_at -> BigInt,
    }
}

/// The pause between two removals of expired rows.
const PURGE_INTERVAL: Duration = Duration::from_secs(60 * 60);

type SessionState = HashMap<String, String>;

/// The store that the settings ask for. A new store is a variant, and a line in `dispatch!`.
#[derive(Clone)]
pub(crate) enum Store {
    /// The visitor's cookie, signed and encrypted.
    Cookie,
    Cache(CacheSessionStore),
    CachedDb(CacheSessionStore<DbSessions>),
}

/// Calls a method of whichever store there is.
macro_rules! dispatch {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Self::Cookie => {
                let $store = WatchedSessions(CookieSessions(CookieSessionStore::default()));
                $call.await
            }
            Self::Cache($store) => $call.await,
            Self::CachedDb($store) => $call.await,
        }
    };
}

impl SessionStore for Store {
    async fn load(&self, key: &SessionKey) -> Result<Option<SessionState>, LoadError> {
        dispatch!(self, store => store.load(key))
    }

    async fn save(
        &self,
        state: SessionState,
        ttl: &time::Duration,
    ) -> Result<SessionKey, SaveError> {
        dispatch!(self, store => store.save(state, ttl))
    }

    async fn update(
        &self,
        key: SessionKey,
        state: SessionState,
        ttl: &time::Duration,
    ) -> Result<SessionKey, UpdateError> {
        dispatch!(self, store => store.update(key, state, ttl))
    }

    async fn update_ttl(
        &self,
        key: &SessionKey,
        ttl: &time::Duration,
    ) -> Result<(), anyhow::Error> {
        dispatch!(self, store => store.update_ttl(key, ttl))
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), anyhow::Error> {
        dispatch!(self, store => store.delete(key))
    }
}

/// Sessions in the visitor's cookie. The browser forgets the cookie at the end of its lifetime; a client
/// that does not is told by the time inside.
struct CookieSessions(CookieSessionStore);

/// The entry of a session in a cookie that holds its end, in seconds since 1970.
const ENDS_AT: &str = "ends at";

impl SessionStore for CookieSessions {
    async fn load(&self, key: &SessionKey) -> Result<Option<SessionState>, LoadError> {
        let Some(mut state) = self.0.load(key).await? else { return Ok(None) };
        let ends_at = state.remove(ENDS_AT).and_then(|time| time.parse().ok());
        let is_alive = ends_at.is_some_and(|ends_at: i64| seconds(SystemTime::now()) < ends_at);
        Ok(is_alive.then_some(state))
    }

    async fn save(
        &self,
        mut state: SessionState,
        ttl: &time::Duration,
    ) -> Result<SessionKey, SaveError> {
        let ends_at = seconds(SystemTime::now()).saturating_add(ttl.whole_seconds());
        state.insert(ENDS_AT.to_owned(), ends_at.to_string());
        self.0.save(state, ttl).await
    }

    async fn update(
        &self,
        _: SessionKey,
        state: SessionState,
        ttl: &time::Duration,
    ) -> Result<SessionKey, UpdateError> {
        self.save(state, ttl).await.map_err(|error| UpdateError::Other(error.into()))
    }

    async fn update_ttl(
        &self,
        key: &SessionKey,
        ttl: &time::Duration,
    ) -> Result<(), anyhow::Error> {
        // Called only if every response extended the lifetime, which needs a new cookie.
        self.0.update_ttl(key, ttl).await
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), anyhow::Error> {
        self.0.delete(key).await
    }
}

/// The table `sessions`.
#[derive(Clone, Debug)]
pub(crate) struct DbSessions(pub(super) Db);

impl DbSessions {
    /// Removes expired rows every hour, for ever: spawn it.
    pub(super) async fn purge(self) {
        loop {
            let now = seconds(SystemTime::now());
            let purged = self.0.write(move |conn| {
                diesel::delete(sessions::table.filter(sessions::expires_at.le(now))).execute(conn)
            });
            if let Err(error) = purged.await {
                log::warn!("expired sessions cannot be removed: {error}");
            }
            rt::time::sleep(PURGE_INTERVAL).await;
        }
    }
}

impl DurableSessions for DbSessions {
    type Error = DbError;

    async fn load(&self, key: &str) -> Result<Option<(String, SystemTime)>, DbError> {
        let (id, now) = (hashed(key), seconds(SystemTime::now()));
        let found: Option<(String, i64)> = self
            .0
            .read(move |conn| {
                let alive = sessions::table.find(&id).filter(sessions::expires_at.gt(now));
                alive.select((sessions::state, sessions::expires_at)).first(conn).optional()
            })
            .await?;
        Ok(found.map(|(state, expires)| {
            let since_epoch = Duration::from_secs(expires.try_into().unwrap_or(0));
            (state, UNIX_EPOCH + since_epoch)
        }))
    }

    async fn insert(&self, key: &str, state: String, expires: SystemTime) -> Result<(), DbError> {
        let row = (
            sessions::id.eq(hashed(key)),
            sessions::state.eq(state),
            sessions::expires_at.eq(seconds(expires)),
        );
        let insert = move |conn: &mut DbConnection| {
            diesel::insert_into(sessions::table).values(row).execute(conn)
        };
        self.0.write(insert).await.map(drop)
    }

    async fn update(
        &self,
        key: &str,
        state: Option<String>,
        expires: SystemTime,
    ) -> Result<bool, DbError> {
        let (id, expires) = (hashed(key), seconds(expires));
        let changed = self.0.write(move |conn| {
            let row = diesel::update(sessions::table.find(id));
            let expires = sessions::expires_at.eq(expires);
            match state {
                Some(state) => row.set((sessions::state.eq(state), expires)).execute(conn),
                None => row.set(expires).execute(conn),
            }
        });
        Ok(changed.await? > 0)
    }

    async fn delete(&self, key: &str) -> Result<(), DbError> {
        let id = hashed(key);
        let delete =
            move |conn: &mut DbConnection| diesel::delete(sessions::table.find(id)).execute(conn);
        self.0.write(delete).await.map(drop)
    }
}

/// Returns the id of a row: a digest, so that read access to the table does not give away sessions.
fn hashed(key: &str) -> String {
    const_hex::encode(Sha256::digest(key))
}

fn seconds(time: SystemTime) -> i64 {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}
