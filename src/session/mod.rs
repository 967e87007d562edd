//! Sessions: their store, cookie and middleware, made from the settings. They hold deleted tasks that can be
//! restored. Messages for the next page are in a cookie of their own.

pub(crate) mod flash;
pub(crate) mod key_rotation;
mod store;
pub(crate) mod undo;

use actix_session::{SessionMiddleware, config::PersistentSession};
use actix_web::{
    cookie::{Key, SameSite, time},
    rt,
};
use everfresh::{Cache, CacheSessionStore};
use secrecy::{ExposeSecret, SecretString};

use self::{
    flash::Messages,
    key_rotation::KeyRotation,
    store::{DbSessions, Store},
    undo::UndoRoom,
};
use crate::{
    config::{SessionConfig, SessionStoreKind},
    db::Db,
};

/// The middleware of sessions.
pub(crate) type Middleware = SessionMiddleware<Store>;

/// The sessions that the settings ask for. Each worker makes a middleware of its own.
#[derive(Clone)]
pub(crate) struct Sessions {
    store: Store,
    keys: KeyRotation,
    lifetime: time::Duration,
    secure: bool,
}

impl Sessions {
    /// With `production`, cookies are for HTTPS only. With `cached_db`, starts a task that removes
    /// expired sessions and ends with the current Actix system.
    pub(crate) fn new(config: &SessionConfig, production: bool, cache: &Cache, db: &Db) -> Self {
        let store = match config.store {
            SessionStoreKind::Cookie => Store::Cookie,
            SessionStoreKind::Cache => Store::Cache(CacheSessionStore::new(cache)),
            SessionStoreKind::CachedDb => {
                let durable = DbSessions(db.clone());
                rt::spawn(durable.clone().purge());
                Store::CachedDb(CacheSessionStore::over(cache, durable))
            }
        };
        let seconds = i64::try_from(config.lifetime.as_secs()).unwrap_or(i64::MAX);
        let lifetime = time::Duration::seconds(seconds);
        Self { store, keys: key_rotation(config, production), lifetime, secure: production }
    }

    /// Returns the messages for visitors, signed with the keys of the sessions.
    pub(crate) fn messages(&self) -> Messages {
        Messages::new(self.keys.clone(), self.secure)
    }

    pub(crate) fn keys(&self) -> KeyRotation {
        self.keys.clone()
    }

    /// Returns the room for deleted tasks: a cookie takes 4 KB, encrypted.
    pub(crate) fn undo_room(&self) -> UndoRoom {
        match self.store {
            Store::Cookie => UndoRoom(900),
            Store::Cache(_) | Store::CachedDb(_) => UndoRoom(64 * 1024),
        }
    }

    pub(crate) fn middleware(&self) -> Middleware {
        SessionMiddleware::builder(self.store.clone(), self.keys.current.clone())
            .cookie_name(self.keys.cookie.to_owned())
            .cookie_secure(self.secure)
            .cookie_http_only(true)
            .cookie_same_site(SameSite::Lax)
            .session_lifecycle(PersistentSession::default().session_ttl(self.lifetime))
            .build()
    }
}

fn key_rotation(config: &SessionConfig, production: bool) -> KeyRotation {
    if config.secret_key.is_none() {
        log::warn!("SECRET_KEY is not set: sessions end when the server stops");
    }
    let derive = |secret: &SecretString| Key::derive_from(secret.expose_secret().as_bytes());
    KeyRotation {
        // Another host of the same domain cannot set a cookie with this prefix (RFC 6265bis).
        cookie: if production { "__Host-id" } else { "id" },
        current: config.secret_key.as_ref().map_or_else(Key::generate, derive),
        previous: config.secret_key_previous.as_ref().map(derive),
    }
}
