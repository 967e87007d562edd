//! The only place where all parts meet: builds them from the settings, and the server from them.

use std::{future::Future, io, pin::Pin};

use actix_web::{
    App,
    middleware::{Condition, from_fn},
    web::{Data, ServiceConfig},
};
use everfresh::{Cache, DieselLedger, TemplatesError, ViewCache, ViewCacheBuilder};
use secrecy::ExposeSecret;
use thiserror::Error;

use crate::{
    config::{AllowedHosts, CacheBackend, Config, Limits, TrustedProxies},
    db::{Db, DbError},
    http::{
        allowed_hosts,
        csrf::{self, PublicOrigins},
        error_pages, headers, https, request_body,
        route::RouteTable,
        visitor_requests::{self, VisitorRequests},
        write_rate::{self, WriteRates},
    },
    monitor::{
        access_log,
        admin_token::AdminAccess,
        history::{self, History},
        metrics::Metrics,
    },
    routes::{self, ROUTES},
    server::{self, listen::ListenError, shutdown::Draining, turns},
    session::{
        Sessions,
        flash::{self, Messages},
    },
    tasks::Tasks,
    views::Views,
};

/// The whole app, listening.
pub struct Application {
    server: Pin<Box<dyn Future<Output = io::Result<()>>>>,
    port: Option<u16>,
    summary: String,
}

/// The cause of a failed start, and its remedy.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartupError {
    #[error(
        "cannot open the database {url}: {source}; check DATABASE_URL, and that its folder \
        exists and is writable"
    )]
    Database { url: String, source: DbError },
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("a template is invalid: {0}")]
    Template(#[from] TemplatesError),
}

impl Application {
    /// Opens the database and starts to listen. The server runs on the caller's Actix system until
    /// `shutdown` resolves; then it drains and stops ([`crate::server::shutdown`]).
    ///
    /// SQLite is migrated here. Other databases are shared by several processes and migrated by a
    /// step of the deployment.
    pub fn build(
        config: Config,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Self, StartupError> {
        let draining = Draining::default();
        let parts = Parts::new(&config, draining.clone())?;
        let production = config.server.production;
        let listening = server::listen(
            &config.server,
            config.limits,
            config.trusted_proxies.clone(),
            draining.clone(),
            move || {
                // The last one is the outermost. Responses of each layer pass the layers outside: an
                // error gets its page, its headers and its line in the log. A cached page costs only
                // the layers outside the view cache.
                App::new()
                    .wrap(from_fn(request_body::read_within_limits))
                    .wrap(from_fn(write_rate::refuse_too_many))
                    .wrap(from_fn(visitor_requests::refuse_too_many))
                    .wrap(from_fn(csrf::refuse_cross_site))
                    .wrap(from_fn(allowed_hosts::refuse_other_hosts))
                    .wrap(from_fn(error_pages::error_pages))
                    .wrap(headers::security(production))
                    .wrap(parts.pages.clone())
                    .wrap(Condition::new(production, from_fn(https::redirect_plain_http)))
                    .wrap(headers::caching())
                    .wrap(from_fn(access_log::log_request))
                    .wrap(from_fn(turns::take_turns))
                    .configure(|app| parts.register(app))
                    .configure(|app| routes::configure(app, &parts.sessions))
            },
        )?;
        let summary = config.summary(&listening.describe(&config.server));
        let port = listening.port();
        Ok(Self { server: Box::pin(listening.serve(draining, shutdown)), port, summary })
    }

    /// Returns the TCP port; `None` for a unix socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Returns one line with the address, the database, the cache and the session store.
    #[must_use]
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// Serves until it is told to stop.
    pub async fn run(self) -> io::Result<()> {
        self.server.await
    }
}

/// The parts of the app, shared by all workers.
#[derive(Clone)]
struct Parts {
    access: Data<AdminAccess>,
    cache: Data<Cache>,
    db: Data<Db>,
    draining: Data<Draining>,
    history: Data<History>,
    hosts: Data<AllowedHosts>,
    limits: Data<Limits>,
    messages: Data<Messages>,
    metrics: Data<Metrics>,
    origins: Data<PublicOrigins>,
    pages: ViewCache,
    proxies: Data<TrustedProxies>,
    routes: Data<RouteTable>,
    sessions: Sessions,
    tasks: Data<Tasks>,
    views: Data<Views>,
    visitor_requests: Data<VisitorRequests>,
    write_rates: Data<WriteRates>,
}

impl Parts {
    fn new(config: &Config, draining: Draining) -> Result<Self, StartupError> {
        let (production, limits) = (config.server.production, config.limits);
        let db = Db::new(&config.database);
        db.prepare().map_err(|source| StartupError::Database {
            url: config.database.url.to_string(),
            source,
        })?;
        let cache = open_cache(config, &db);
        let layer = |name, is_on| if is_on { cache.layer(name) } else { Cache::null().build() };
        let queries = layer("query", config.cache.layers.query);
        let tasks = Tasks::new(db.clone(), &cache, queries, limits.tasks, limits.tasks_per_page);
        let sessions = Sessions::new(&config.session, production, &cache, &db);
        let views = Views::load(layer("fragment", config.cache.layers.fragment), production)?;
        let (hosts, live_views) = (config.allowed_hosts.clone(), views.clone());
        let pages = ViewCache::builder(layer("view", config.cache.layers.view))
            .version(views.version() ^ headers::version(production) ^ limits.tasks_per_page)
            .query_number("page")
            .groups_of(Tasks::groups_of_pages())
            .bypass_cookie(flash::COOKIE)
            .unless(move |req| {
                request_body::is_announced(req)
                    || !allowed_hosts::allow(&hosts, req)
                    || live_views.have_changed()
            });
        let pages = routes::cached_pages().fold(pages, ViewCacheBuilder::path).build();
        let routes = RouteTable::new(ROUTES);
        let (metrics, history) =
            (Data::new(Metrics::new(routes.labels())), Data::new(History::default()));
        history::start(history.clone(), cache.clone(), metrics.clone());
        Ok(Self {
            access: Data::new(AdminAccess::new(config.admin_token.clone(), production)),
            cache: Data::new(cache),
            db: Data::new(db),
            draining: Data::new(draining),
            history,
            hosts: Data::new(config.allowed_hosts.clone()),
            limits: Data::new(limits),
            messages: Data::new(sessions.messages()),
            metrics,
            origins: Data::new(PublicOrigins(config.public_origins.clone())),
            pages,
            proxies: Data::new(config.trusted_proxies.clone()),
            routes: Data::new(routes),
            sessions,
            tasks: Data::new(tasks),
            views: Data::new(views),
            visitor_requests: Data::new(VisitorRequests::new(limits.connections_per_address)),
            write_rates: Data::new(WriteRates::new(limits.writes_per_minute)),
        })
    }

    fn register(&self, app: &mut ServiceConfig) {
        app.app_data(request_body::limit(&self.limits))
            .app_data(self.access.clone())
            .app_data(self.cache.clone())
            .app_data(self.db.clone())
            .app_data(self.draining.clone())
            .app_data(self.history.clone())
            .app_data(self.hosts.clone())
            .app_data(self.limits.clone())
            .app_data(self.messages.clone())
            .app_data(self.metrics.clone())
            .app_data(self.origins.clone())
            .app_data(self.proxies.clone())
            .app_data(self.routes.clone())
            .app_data(self.tasks.clone())
            .app_data(Data::new(self.sessions.undo_room()))
            .app_data(self.views.clone())
            .app_data(self.visitor_requests.clone())
            .app_data(self.write_rates.clone());
    }
}

fn open_cache(config: &Config, db: &Db) -> Cache {
    let mut builder = match &config.cache.backend {
        CacheBackend::Memcached(servers) => {
            Cache::memcached_with_ledger(servers.config.clone(), DieselLedger(db.clone()))
        }
        CacheBackend::Memory(bytes) => Cache::memory(*bytes),
        CacheBackend::None => Cache::null(),
    }
    .prefix(config.cache.prefix.clone());
    if let Some(bytes) = config.cache.near_bytes {
        builder = builder.near(bytes);
    }
    if let Some(timeout) = config.cache.default_timeout {
        builder = builder.default_lifetime(timeout);
    }
    if let Some(secret) = &config.session.secret_key {
        builder = builder.secret_context("tasklist cache").secret(secret.expose_secret());
    }
    if let Some(previous) = &config.session.secret_key_previous {
        builder = builder.previous_secret(previous.expose_secret());
    }
    builder.build()
}
