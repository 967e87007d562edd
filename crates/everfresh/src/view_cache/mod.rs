//! Caches whole pages by their path.

mod answer;
mod compression;
mod conditional;
mod entry;
mod middleware;
mod page;
mod policy;
mod spelling;
mod uncacheable;
mod vary;

use std::{fmt, sync::Arc};

use actix_web::{
    HttpResponse,
    dev::{ResponseHead, ServiceRequest},
};

use self::{page::PageStore, uncacheable::Uncacheable};
use crate::cache::{Cache, lifetime::Lifetime};

/// A middleware that answers GET and HEAD with the page that was sent before, until it is
/// invalidated.
///
/// ```
/// use everfresh::{Cache, ViewCache, view_key};
/// use actix_web::{App, web};
///
/// let cache = Cache::memory(64 << 20).build();
/// let views = ViewCache::builder(cache.layer("view")).build();
/// let app = App::new().service(
///     web::resource("/").wrap(views).to(async || "rendered only when it is not in the cache"),
/// );
///
/// # let _ = app;
/// // After a write:
/// # async {
/// cache.delete(&view_key("/")).await;
/// # };
/// ```
///
/// # Which pages are cached
///
/// Responses to GET with status 200 whose body is not a stream. Not cached are responses that set a
/// cookie, that are encoded already, or whose `Cache-Control` says `private`, `no-store`, `no-cache`
/// or `max-age=0`, and responses to requests with `Authorization` or a bypass cookie. The debug log
/// tells the reason.
///
/// The key is `view/` and the path as browsers spell it; requests with another spelling (`/%61` for
/// `/a`) bypass the cache. Of the query, only the parameters named by [`ViewCacheBuilder::query`] are
/// part of the key, and **the handler sees only those** when its response may be cached. Request
/// headers that a page depends on must be in its `Vary`: they are learned and become part of the key.
/// A page that shows the name of the user, or the requested `Host`, without saying so in `Vary` is
/// shown to other users. `connection_info()` trusts the client's own `Forwarded` and `X-Forwarded-…`.
///
/// Middleware that sets cookies, such as sessions, must be inside: this one cannot see a cookie that
/// is set outside. No middleware outside may keep a clone of the request.
///
/// # How pages are sent
///
/// With an `ETag` (clients that have the page get 304), `Age`, `Cache-Status` (RFC 9211) and, unless the
/// handler sets another, `Cache-Control: private, no-cache`. A page is compressed with Brotli or gzip
/// for clients that accept it: each form is made once, at its first request, and has its own `ETag`.
///
/// # How pages stay fresh
///
/// The key is reserved before the handler runs, as in
/// [`get_or_compute`](crate::Cache::get_or_compute): if the key is deleted meanwhile, the page is sent
/// but not stored. An entry only names the current page. Pages never change, and each process keeps
/// those that it sends (see [`ViewCacheBuilder::local_bytes`]), so a hit costs one small get, however
/// large the page; two, if it has a `Vary`.
#[derive(Clone)]
pub struct ViewCache(Arc<Settings>);

type Condition<T> = Option<Box<dyn Fn(&T) -> bool + Send + Sync>>;
type KeyFunction = Option<Box<dyn Fn(&ServiceRequest) -> Option<String> + Send + Sync>>;

struct Settings {
    cache: Cache,
    pages: PageStore,
    uncacheable: Uncacheable,
    version: u64,
    lifetime: Lifetime,
    paths: Vec<String>,
    query: Vec<String>,
    bypass_cookies: Vec<String>,
    unless: Condition<ServiceRequest>,
    only_if: Condition<ResponseHead>,
    key: KeyFunction,
}

/// Builds a [`ViewCache`].
///
/// ```
/// use std::time::Duration;
///
/// use actix_web::{HttpResponse, http::header};
/// use everfresh::{Cache, Lifetime, ViewCache};
///
/// let cache = Cache::memory(64 << 20).build();
/// let articles = ViewCache::builder(cache.layer("view"))
///     .lifetime(Lifetime::For(Duration::from_secs(600)))
///     // `/articles?page=2` is a page of its own, and `?utm_source=…` is not.
///     .query(["page"])
///     // Visitors who are logged in bypass the cache.
///     .bypass_cookie("session")
///     .unless(|req| req.headers().contains_key("x-preview"))
///     .only_if(|res| res.headers().contains_key(header::LAST_MODIFIED))
///     .build();
///
/// // A handler can choose another lifetime for its response.
/// let mut response = HttpResponse::Ok().body("breaking news");
/// ViewCache::set_lifetime(&mut response, Lifetime::For(Duration::from_secs(5)));
///
/// # async {
/// articles.forget("/articles?page=2").await;
/// # };
///
/// // Pages by host and path:
/// let by_host = ViewCache::builder(cache.layer("view"))
///     .key(|req| Some(format!("{}{}", req.headers().get("host")?.to_str().ok()?, req.path())))
///     .build();
/// assert_eq!(by_host.key("a.example/"), "view/a.example/");
/// ```
pub struct ViewCacheBuilder {
    settings: Settings,
    local_bytes: usize,
}

/// The default of [`ViewCacheBuilder::local_bytes`]: enough for some hundred pages.
const DEFAULT_LOCAL_BYTES: usize = 8 << 20;

/// The lifetime of one response, stored in its extensions.
struct ResponseLifetime(Lifetime);

impl ViewCache {
    /// Starts a view cache whose entries are in `cache`.
    #[must_use]
    pub fn builder(cache: Cache) -> ViewCacheBuilder {
        let settings = Settings {
            cache,
            pages: PageStore::new(0),
            uncacheable: Uncacheable::new(),
            version: 0,
            lifetime: Lifetime::Default,
            paths: Vec::new(),
            query: Vec::new(),
            bypass_cookies: Vec::new(),
            unless: None,
            only_if: None,
            key: None,
        };
        ViewCacheBuilder { settings, local_bytes: DEFAULT_LOCAL_BYTES }
    }

    /// Returns the key of the page at a path, with its query if parameters of it are part of the key,
    /// for an [`Invalidation`](crate::Invalidation). With a [key function](ViewCacheBuilder::key),
    /// takes the result of that function instead.
    #[must_use]
    pub fn key(&self, path_and_query: &str) -> String {
        if self.0.key.is_some() {
            return spelling::own_key(path_and_query);
        }
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        spelling::key(path, query, &self.0.query).0
    }

    /// Forgets the page at a path, in all its variants. Returns whether that is certain.
    pub async fn forget(&self, path_and_query: &str) -> bool {
        self.0.cache.delete(&self.key(path_and_query)).await
    }

    /// Sets the lifetime of one response. A response with a lifetime of zero is not cached.
    pub fn set_lifetime<B>(response: &mut HttpResponse<B>, lifetime: Lifetime) {
        response.extensions_mut().insert(ResponseLifetime(lifetime));
    }
}

/// Returns the key of the page at a path, percent-encoded or not, without a query, for an
/// [`Invalidation`](crate::Invalidation).
///
/// ```
/// assert_eq!(everfresh::view_key("/"), "view//");
/// ```
#[must_use]
pub fn view_key(path: &str) -> String {
    spelling::key(path, "", &[]).0
}

impl ViewCacheBuilder {
    /// Sets the version of all pages; entries of other versions are not served. Derive it from the
    /// templates ([`Templates::digest`](crate::Templates::digest), with the feature `tera`), the names
    /// of static files, and anything else that shapes all pages. Default: 0.
    #[must_use]
    pub fn version(mut self, version: u64) -> Self {
        self.settings.version = version;
        self
    }

    /// Sets the lifetime of pages. `s-maxage` or `max-age` of a response can only shorten it;
    /// [`ViewCache::set_lifetime`] replaces it. Default: [`Lifetime::Default`].
    #[must_use]
    pub fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.settings.lifetime = lifetime;
        self
    }

    /// Restricts the cache to this path, as it is written in the URL; requests for other paths are
    /// forwarded. Can be called several times. Default: all paths.
    ///
    /// This allows one view cache around the whole app, outside of everything that a cached page does
    /// not need: routing, sessions, middleware that sets constant headers.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.settings.paths.push(path.into());
        self
    }

    /// Sets the parameters of the query that are part of the key. Each combination of values is a page
    /// of its own, and clients can invent values. Default: no parameters.
    #[must_use]
    pub fn query<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.settings.query = names.into_iter().map(Into::into).collect();
        self
    }

    /// Bypasses the cache for requests with a cookie of this name: they are not answered from it, and
    /// their responses are not stored. Can be called several times. Default: no cookies.
    #[must_use]
    pub fn bypass_cookie(mut self, name: impl Into<String>) -> Self {
        self.settings.bypass_cookies.push(name.into());
        self
    }

    /// Bypasses the cache for requests that meet a condition. Default: no condition.
    #[must_use]
    pub fn unless(
        mut self,
        condition: impl Fn(&ServiceRequest) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.settings.unless = Some(Box::new(condition));
        self
    }

    /// Stores only responses that meet a condition, in addition to the rules of [`ViewCache`]. Default:
    /// no condition.
    #[must_use]
    pub fn only_if(
        mut self,
        condition: impl Fn(&ResponseHead) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.settings.only_if = Some(Box::new(condition));
        self
    }

    /// Sets the function that makes the key of a request, after `view/`; a request for which it
    /// returns `None` bypasses the cache. The handler then sees the whole query. Default: the path,
    /// with the parameters of [`query`](Self::query).
    #[must_use]
    pub fn key(
        mut self,
        key: impl Fn(&ServiceRequest) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.settings.key = Some(Box::new(key));
        self
    }

    /// Sets the approximate memory, in bytes, in which each process keeps pages ready to be sent. A
    /// page that does not fit is fetched from the servers at each request; without servers, it is
    /// rendered at each request. Default: 8 MiB.
    #[must_use]
    pub fn local_bytes(mut self, bytes: usize) -> Self {
        self.local_bytes = bytes;
        self
    }

    /// Builds the middleware. Build it once and clone it for each worker.
    #[must_use]
    pub fn build(self) -> ViewCache {
        let pages = PageStore::new(self.local_bytes);
        ViewCache(Arc::new(Settings { pages, ..self.settings }))
    }
}

impl fmt::Debug for ViewCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewCache").field("cache", &self.0.cache).finish_non_exhaustive()
    }
}

impl fmt::Debug for ViewCacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewCacheBuilder")
            .field("cache", &self.settings.cache)
            .finish_non_exhaustive()
    }
}
