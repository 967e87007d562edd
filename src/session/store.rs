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
use everfresh::{CacheSessionStore, DurableSessions};
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
                let $store = CookieSessionStore::default();
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
                let alive = sessions::table.find(id).filter(sessions::expires_at.gt(now));
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
