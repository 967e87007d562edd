//! The only place where all parts meet: builds them from the settings, and the server from them.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use actix_session::{SessionMiddleware, config::PersistentSession};
use actix_web::{
    App, HttpServer,
    cookie::{Key, SameSite, time},
    dev::Server,
    middleware::{Condition, from_fn},
    rt,
    web::{Data, ServiceConfig},
};
use everfresh::{Cache, CacheSessionStore, TemplatesError, ViewCache, replay};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    config::{CacheBackend, Config, ServerConfig, SessionConfig, SessionStoreKind},
    db::{Db, DbError},
    http::csrf::{self, PublicOrigins},
    http::error_pages,
    http::headers,
    http::https,
    http::request_body,
    http::shutdown::{self, Draining},
    monitor::access_log::{self, Observers},
    monitor::dashboard::Access,
    monitor::history::History,
    monitor::metrics::Metrics,
    routes,
    session::flash::{self, Marker},
    session::key_rotation::KeyRotation,
    session::store::{DbSessions, Sessions},
    tasks::ledger::DbLedger,
    tasks::{self, TasksCache},
    views::Views,
    views::assets::Assets,
};

/// Longer than proxies in front keep an idle connection (Heroku's router: 90 s), so that it is
/// they who close it, and no request meets a connection that is just being closed.
const KEEP_ALIVE: Duration = Duration::from_secs(95);

/// The whole app, listening.
pub struct Application {
    server: Server,
    port: Option<u16>,
    socket: Option<SocketFile>,
    summary: String,
}

/// What all workers use together.
#[derive(Clone)]
struct Shared {
    access: Data<Access>,
    assets: Data<Assets>,
    cache: Data<TasksCache>,
    db: Data<Db>,
    draining: Data<Draining>,
    keys: Data<KeyRotation>,
    marker: Data<Marker>,
    observers: Data<Observers>,
    origins: Data<PublicOrigins>,
    pages: ViewCache,
    sessions: Sessions,
    views: Data<Views>,
}

/// Why the app did not start: cause and remedy.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartupError {
    #[error(
        "cannot open the database {url}: {source}; check DATABASE_URL, and that its folder \
        exists and can be written to"
    )]
    Database { url: String, source: DbError },
    #[error("cannot listen on {address}: {source}; {remedy}")]
    Listen { address: String, source: io::Error, remedy: &'static str },
    #[error("a template is wrong: {0}")]
    Template(#[from] TemplatesError),
}

impl Application {
    /// Opens the database and starts to listen. The server runs on the caller's Actix system
    /// until `shutdown` resolves; then it drains and stops ([`crate::shutdown`]).
    ///
    /// SQLite is brought up to date here. Other databases are shared by several processes, and
    /// migrated by a step of the deployment.
    pub fn build(
        config: Config,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Self, StartupError> {
        let draining = Draining::default();
        let shared = Shared::new(&config, draining.clone())?;
        let session = config.session.clone();
        let production = config.server.production;

        let server = HttpServer::new(move || {
            let store = shared.sessions.clone();
            let sessions = sessions(&session, store, &shared.keys, production);
            // The last one wraps all others. What is refused must still get its page, its headers
            // and its line in the log. A cached page costs what stands below it here, no more.
            App::new()
                .wrap(from_fn(request_body::read_within_bounds))
                .wrap(from_fn(csrf::refuse_cross_site))
                .wrap(from_fn(error_pages::error_pages))
                .wrap(headers::security(production))
                .wrap(shared.pages.clone())
                .wrap(Condition::new(production, from_fn(https::insist)))
                .wrap(headers::caching())
                .wrap(from_fn(shutdown::close_connections))
                .wrap(from_fn(access_log::write_line))
                .configure(|app| shared.register(app))
                .configure(|app| routes::configure(app, &sessions))
        })
        .workers(config.server.workers)
        .keep_alive(KEEP_ALIVE)
        .shutdown_signal(draining.begin_after(shutdown))
        .shutdown_timeout(shutdown::GRACE_SECONDS);

        let server = match &config.server.uds {
            Some(path) => bind_socket(path).and_then(|socket| server.listen_uds(socket)),
            None => server.bind((config.server.host.as_str(), config.server.port)),
        }
        .map_err(|source| listen_error(&config.server, source))?;
        let address = server.addrs().first().copied();
        let summary = summary(&config, address);
        let socket = config.server.uds.map(SocketFile::new);
        Ok(Self { server: server.run(), port: address.map(|a| a.port()), socket, summary })
    }

    /// The TCP port that it listens on, if it is not a unix socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// One line: where it listens, and what it uses for database, cache and sessions.
    #[must_use]
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// Serves until it is told to stop.
    pub async fn run(self) -> io::Result<()> {
        let outcome = self.server.await;
        if let Some(socket) = self.socket {
            socket.remove();
        }
        outcome
    }
}

impl Shared {
    fn new(config: &Config, draining: Draining) -> Result<Self, StartupError> {
        let db = Db::new(&config.database);
        prepare_database(&db, config)?;
        let cache = open_cache(config, &db);
        let sessions = session_store(&config.session, &cache, &db);
        let cache = TasksCache::new(cache, config.cache.layers, &db);
        let observers = Data::new(Observers {
            proxies: config.trusted_proxies.clone(),
            metrics: Metrics::default(),
            history: History::default(),
        });
        rt::spawn(keep_history(observers.clone(), cache.whole().clone()));
        let assets = Assets::load();
        let views = Views::load(assets.clone(), cache.fragment.clone())?;
        let pages = ViewCache::builder(cache.view.clone())
            .version(views.version() ^ headers::version(config.server.production))
            .path(tasks::PAGE)
            .bypass_cookie(flash::MARKER)
            .unless(request_body::has_one)
            .build();
        Ok(Self {
            access: Data::new(Access::new(config.admin_token.clone(), config.server.production)),
            pages,
            sessions,
            cache: Data::new(cache),
            views: Data::new(views),
            assets: Data::new(assets),
            db: Data::new(db),
            draining: Data::new(draining),
            keys: Data::new(key_rotation(&config.session, config.server.production)),
            marker: Data::new(Marker::new(config.server.production)),
            observers,
            origins: Data::new(PublicOrigins(config.public_origins.clone())),
        })
    }

    fn register(&self, app: &mut ServiceConfig) {
        app.app_data(request_body::limit())
            .app_data(self.access.clone())
            .app_data(self.assets.clone())
            .app_data(self.cache.clone())
            .app_data(self.db.clone())
            .app_data(self.draining.clone())
            .app_data(self.keys.clone())
            .app_data(self.marker.clone())
            .app_data(self.observers.clone())
            .app_data(self.origins.clone())
            .app_data(self.views.clone());
    }
}

#[cfg_attr(
    not(feature = "sqlite"),
    expect(unused_variables, clippy::unnecessary_wraps, reason = "only SQLite is migrated here")
)]
fn prepare_database(db: &Db, config: &Config) -> Result<(), StartupError> {
    #[cfg(feature = "sqlite")]
    if config.database.url.is_sqlite() {
        return migrate(db, config);
    }
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    warn_of_pending_migrations(db.clone());
    Ok(())
}

#[cfg(feature = "sqlite")]
fn migrate(db: &Db, config: &Config) -> Result<(), StartupError> {
    let url = config.database.url.to_string();
    for name in db.migrate().map_err(|source| StartupError::Database { url, source })? {
        log::info!("applied migration {name}");
    }
    Ok(())
}

/// Does not delay the start: the database may be slow, or away for a moment.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn warn_of_pending_migrations(db: Db) {
    std::thread::spawn(move || match db.pending_migrations() {
        Ok(0) => {}
        Ok(_) => log::warn!("the database is not up to date; run `tasklist migrate`"),
        Err(error) => log::warn!("{error}"),
    });
}

async fn keep_history(observers: Data<Observers>, cache: Cache) {
    observers.history.keep(&cache).await;
}

/// The cache, and what keeps it fresh in the background.
fn open_cache(config: &Config, db: &Db) -> Cache {
    let ledger = DbLedger(db.clone());
    let builder = match &config.cache.backend {
        CacheBackend::Memcached(servers) => {
            Cache::memcached_with_ledger(servers.clone(), ledger.clone())
        }
        CacheBackend::Memory(bytes) => Cache::memory(*bytes),
        CacheBackend::None => Cache::null(),
    };
    let mut builder = builder.prefix(config.cache.prefix.clone());
    if let Some(timeout) = config.cache.default_timeout {
        builder = builder.default_lifetime(timeout);
    }
    if let Some(secret) = &config.session.secret_key {
        let previous = config.session.secret_key_previous.as_ref().map(cache_secret);
        builder = builder.secret(cache_secret(secret), previous);
    }
    let cache = builder.build();
    if cache.is_shared() {
        rt::spawn(replay(cache.clone(), ledger));
    }
    cache
}

/// Another than that of cookies, and no way back to the one it is made of.
fn cache_secret(secret: &SecretString) -> [u8; 16] {
    let digest = Sha256::new().chain_update("tasklist cache").chain_update(secret.expose_secret());
    let mut key = [0; 16];
    key.copy_from_slice(&digest.finalize()[..16]);
    key
}

fn session_store(config: &SessionConfig, cache: &Cache, db: &Db) -> Sessions {
    match config.store {
        SessionStoreKind::Cookie => Sessions::Cookie,
        SessionStoreKind::Cache => Sessions::Cache(CacheSessionStore::new(cache)),
        SessionStoreKind::CachedDb => {
            let durable = DbSessions(db.clone());
            rt::spawn(durable.clone().purge());
            Sessions::CachedDb(CacheSessionStore::over(cache, durable))
        }
    }
}

fn key_rotation(session: &SessionConfig, production: bool) -> KeyRotation {
    let derived = |secret: &SecretString| Key::derive_from(secret.expose_secret().as_bytes());
    if session.secret_key.is_none() {
        log::warn!("SECRET_KEY is not set: sessions end when the server stops");
    }
    KeyRotation {
        // A name with this prefix cannot be set by another host of the same domain (RFC 6265bis).
        cookie: if production { "__Host-id" } else { "id" },
        current: session.secret_key.as_ref().map_or_else(Key::generate, derived),
        previous: session.secret_key_previous.as_ref().map(derived),
    }
}

fn sessions(
    config: &SessionConfig,
    store: Sessions,
    keys: &KeyRotation,
    production: bool,
) -> SessionMiddleware<Sessions> {
    let seconds = i64::try_from(config.lifetime.as_secs()).unwrap_or(i64::MAX);
    SessionMiddleware::builder(store, keys.current.clone())
        .cookie_name(keys.cookie.to_owned())
        .cookie_secure(production)
        .cookie_http_only(true)
        .cookie_same_site(SameSite::Lax)
        .session_lifecycle(
            PersistentSession::default().session_ttl(time::Duration::seconds(seconds)),
        )
        .build()
}

/// Takes the place of a socket that a stopped server left behind, and of nothing else.
fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    let is_socket = path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    let refused =
        || UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    if is_socket && refused() {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

/// A socket's file as it was made: another server may have taken its place since.
struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    fn new(path: PathBuf) -> Self {
        Self { identity: Self::identity_of(&path), path }
    }

    fn identity_of(path: &Path) -> Option<(u64, u64)> {
        path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()))
    }

    fn remove(self) {
        if self.identity.is_some() && Self::identity_of(&self.path) == self.identity {
            // It may go at this very moment, which is what is wanted.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

fn listen_error(config: &ServerConfig, source: io::Error) -> StartupError {
    match &config.uds {
        Some(path) => StartupError::Listen {
            address: path.display().to_string(),
            source,
            remedy: "name with --uds a path that is free, in a folder that can be written to",
        },
        None => StartupError::Listen {
            address: format!("{}:{}", config.host, config.port),
            source,
            remedy: "stop the program that uses this port, or set HOST and PORT to a free address",
        },
    }
}

fn summary(config: &Config, address: Option<SocketAddr>) -> String {
    let address = match (&config.server.uds, address) {
        (Some(path), _) => format!("unix:{}", path.display()),
        (None, Some(address)) => format!("http://{address}"),
        (None, None) => format!("http://{}:{}", config.server.host, config.server.port),
    };
    format!(
        "tasklist is running on {address} (database: {}; cache: {}; sessions: {})",
        config.database.url, config.cache.backend, config.session.store
    )
}
