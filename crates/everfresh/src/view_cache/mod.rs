//! Whole pages, kept by their path.

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

use self::{page::Pages, uncacheable::Passes};
use crate::{cache::Cache, cache::lifetime::Lifetime};

/// Middleware: answers GET and HEAD with the page that was sent before, until it is forgotten.
///
/// ```
/// use everfresh::{Cache, ViewCache, view_key};
/// use actix_web::{App, web};
///
/// let cache = Cache::memory(64 << 20).build();
/// let views = ViewCache::builder(cache.layer("view")).build();
/// let app = App::new().service(
///     web::resource("/").wrap(views).to(async || "made only when it is not in the cache"),
/// );
///
/// # let _ = app;
/// // After a write:
/// # async {
/// cache.delete(&view_key("/")).await;
/// # };
/// ```
///
/// # What is kept
///
/// Responses to GET with status 200 whose body is not a stream. Not those that set a cookie, that
/// are encoded already, or whose `Cache-Control` says `private`, `no-store`, `no-cache` or
/// `max-age=0`; and nothing that answers a request with `Authorization` or a bypass cookie. A line
/// in the debug log says why.
///
/// The key is `view/` and the path, in the spelling that browsers use; other spellings of it
/// (`/%61` for `/a`) are not answered from the cache. The query is no part of it, but for the parameters named by
/// [`ViewCacheBuilder::query`]; **a handler sees only those** when its response may be kept. What a
/// page depends on besides must stand in its `Vary`: the request headers named there are learned,
/// and become part of the key. A page that shows who is logged in, or what `Host` it was asked for,
/// and does not say so in `Vary`, is shown to others. `connection_info()` believes what a visitor
/// writes into `Forwarded` and `X-Forwarded-…`.
///
/// Whatever sets cookies (sessions, say) must be inside: a cookie that is set outside is not seen
/// here. No middleware outside may keep a clone of the request.
///
/// # How it is sent
///
/// With an `ETag` (304 for those who have it), `Age`, `Cache-Status` (RFC 9211) and, unless the
/// handler says otherwise, `Cache-Control: private, no-cache`. Compressed with Brotli or gzip for
/// those who take it: each form is made once, when it is first asked for, and has its own `ETag`.
///
/// # How it stays fresh
///
/// The entry is reserved before the handler runs, as in
/// [`get_or_compute`](crate::Cache::get_or_compute): what is read while somebody deletes the key
/// is sent, but not kept. An entry holds only which page is the right one. The pages themselves
/// never change; a process keeps those that it sends (see [`ViewCacheBuilder::bytes_at_hand`]), so
/// that a hit costs one small get, however large the page; two, if it has a `Vary`.
#[derive(Clone)]
pub struct ViewCache(Arc<Settings>);

type Condition<T> = Option<Box<dyn Fn(&T) -> bool + Send + Sync>>;
type KeyFunction = Option<Box<dyn Fn(&ServiceRequest) -> Option<String> + Send + Sync>>;

struct Settings {
    cache: Cache,
    pages: Pages,
    passes: Passes,
    version: u64,
    lifetime: Lifetime,
    paths: Vec<String>,
    query: Vec<String>,
    bypass_cookies: Vec<String>,
    unless: Condition<ServiceRequest>,
    keeps: Condition<ResponseHead>,
    key: KeyFunction,
}

/// How a [`ViewCache`] is made.
pub struct ViewCacheBuilder {
    settings: Settings,
    bytes_at_hand: usize,
}

/// Enough for some hundred pages.
const BYTES_AT_HAND: usize = 8 << 20;

/// The lifetime of one response, in its extensions.
struct ResponseLifetime(Lifetime);

impl ViewCache {
    /// A view cache whose entries are in `cache`.
    #[must_use]
    pub fn builder(cache: Cache) -> ViewCacheBuilder {
        let settings = Settings {
            cache,
            pages: Pages::new(0),
            passes: Passes::new(),
            version: 0,
            lifetime: Lifetime::Default,
            paths: Vec::new(),
            query: Vec::new(),
            bypass_cookies: Vec::new(),
            unless: None,
            keeps: None,
            key: None,
        };
        ViewCacheBuilder { settings, bytes_at_hand: BYTES_AT_HAND }
    }

    /// The key of the page at this path, with its query if that counts: for an
    /// [`Invalidation`](crate::Invalidation). With a [key function](ViewCacheBuilder::key), of the
    /// page for which that gives this.
    #[must_use]
    pub fn key(&self, path_and_query: &str) -> String {
        if self.0.key.is_some() {
            return spelling::own_key(path_and_query);
        }
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        spelling::key(path, query, &self.0.query).0
    }

    /// Forgets the page at this path, in all its variants. Whether that is certain.
    pub async fn forget(&self, path_and_query: &str) -> bool {
        self.0.cache.delete(&self.key(path_and_query)).await
    }

    /// Gives one response a lifetime of its own. Zero: it is not kept.
    pub fn set_lifetime<B>(response: &mut HttpResponse<B>, lifetime: Lifetime) {
        response.extensions_mut().insert(ResponseLifetime(lifetime));
    }
}

/// The key of the page at this path, percent-encoded or not, where no parameter of the query counts:
/// for an [`Invalidation`](crate::Invalidation).
///
/// ```
/// assert_eq!(everfresh::view_key("/"), "view//");
/// ```
#[must_use]
pub fn view_key(path: &str) -> String {
    spelling::key(path, "", &[]).0
}

impl ViewCacheBuilder {
    /// Entries of another version are not served. To be changed with whatever shapes all pages,
    /// like their templates ([`Templates::digest`](crate::Templates::digest), with the feature
    /// `tera`) and the names of static files. Default: 0.
    #[must_use]
    pub fn version(mut self, version: u64) -> Self {
        self.settings.version = version;
        self
    }

    /// How long pages are kept; `s-maxage` or `max-age` of a response can only make it shorter,
    /// [`ViewCache::set_lifetime`] takes its place. Default: [`Lifetime::Default`].
    #[must_use]
    pub fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.settings.lifetime = lifetime;
        self
    }

    /// Only requests for this path, as it stands in the URL, are looked at; all others pass as if
    /// this were not there. May be called several times. Default: all paths.
    ///
    /// So one view cache can be wrapped around the whole app, outside of what a page that is found
    /// does not need: routing, sessions, what sets the same headers each time.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.settings.paths.push(path.into());
        self
    }

    /// The parameters of the query that pages depend on. Each combination of values is a page, and
    /// anyone can make up values. Default: none.
    #[must_use]
    pub fn query<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.settings.query = names.into_iter().map(Into::into).collect();
        self
    }

    /// A request with a cookie of this name is not answered from the cache, nor its response kept.
    /// May be called several times. Default: none.
    #[must_use]
    pub fn bypass_cookie(mut self, name: impl Into<String>) -> Self {
        self.settings.bypass_cookies.push(name.into());
        self
    }

    /// Likewise for requests that meet a condition.
    #[must_use]
    pub fn unless(
        mut self,
        condition: impl Fn(&ServiceRequest) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.settings.unless = Some(Box::new(condition));
        self
    }

    /// Keeps only responses that meet a condition, besides what is said at [`ViewCache`].
    #[must_use]
    pub fn only_if(
        mut self,
        condition: impl Fn(&ResponseHead) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.settings.keeps = Some(Box::new(condition));
        self
    }

    /// Makes the key of a request, after `view/`; `None` if it is not to be answered from the
    /// cache. Then the handler sees the whole query. Default: the path, with the parameters named
    /// by [`query`](Self::query).
    #[must_use]
    pub fn key(
        mut self,
        key: impl Fn(&ServiceRequest) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.settings.key = Some(Box::new(key));
        self
    }

    /// In about so many bytes each process keeps pages ready to be sent. Those that do not fit
    /// are fetched from the servers each time; if there are none, they are made each time.
    /// Default: 8 MiB.
    #[must_use]
    pub fn bytes_at_hand(mut self, bytes: usize) -> Self {
        self.bytes_at_hand = bytes;
        self
    }

    /// The middleware; to be made once, and cloned for each worker.
    #[must_use]
    pub fn build(self) -> ViewCache {
        let pages = Pages::new(self.bytes_at_hand);
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
