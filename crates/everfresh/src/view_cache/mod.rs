//! Caches whole pages by their path.

mod answer;
pub(crate) mod builder;
mod compression;
mod entry;
mod middleware;
mod outcome;
mod page;
mod policy;
mod spelling;
mod uncacheable;
mod vary;

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use actix_web::{
    HttpResponse,
    dev::{ResponseHead, ServiceRequest},
};

use self::{page::PageStore, spelling::Parameter, uncacheable::Uncacheable, vary::Variation};
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
/// Responses to GET with status 200 whose body is not a stream; HEAD is answered like GET. Not cached are
/// responses that set a cookie, that are encoded already, or whose `Cache-Control` says `private`, `no-store`, `no-cache`
/// or `max-age=0`, and responses to requests with `Authorization` or a bypass cookie. The debug log
/// tells the reason.
///
/// The key is `view/` and the path as browsers spell it; requests with another spelling (`/%61` for
/// `/a`) bypass the cache. Of the query, only the parameters that are named by
/// [`ViewCacheBuilder::query`](crate::ViewCacheBuilder::query) and its relatives are part of the key,
/// and **the handler sees only those** when its response may be cached.
///
/// Request headers that a page depends on must be in its `Vary`: they are learned and become part of the
/// key. A page that shows the requested `Host`, or a cookie, without saying so in `Vary` is shown to other
/// users. `connection_info()` trusts the client's own `Forwarded` and `X-Forwarded-…`. A page that was made
/// for a visitor with a session must vary by the session, else it is not kept
/// ([`allow_sessions`](crate::ViewCacheBuilder::allow_sessions)).
///
/// **Forms of cached pages need another protection against request forgery than a token**, which would be that
/// of the first visitor: compare `Sec-Fetch-Site` or `Origin` with the own origin, or send the token only in a
/// page that is not cached. A page with a token is not kept unless it varies by the session.
///
/// Pages that no write can name, such as those of a list or a search, belong into a
/// [`group`](crate::ViewCacheBuilder::group).
///
/// Middleware that sets cookies must be inside: this one cannot see a cookie that is set outside. Sessions
/// may be on either side. No middleware outside may keep a clone of the request.
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
/// those that it sends (see [`ViewCacheBuilder::local_bytes`](crate::ViewCacheBuilder::local_bytes)), so a hit costs one small get, however
/// large the page; two, if it has a `Vary`.
#[derive(Clone)]
pub struct ViewCache(Arc<Settings>);

type Condition<T> = Option<Box<dyn Fn(&T) -> bool + Send + Sync>>;
type GroupsFunction = Option<Box<dyn Fn(&str) -> Vec<String> + Send + Sync>>;
type KeyFunction = Option<Box<dyn Fn(&ServiceRequest) -> Option<String> + Send + Sync>>;

struct Settings {
    cache: Cache,
    pages: PageStore,
    uncacheable: Uncacheable,
    version: u64,
    lifetime: Lifetime,
    paths: Vec<String>,
    query: Vec<Parameter>,
    groups: Vec<String>,
    groups_of: GroupsFunction,
    variation: Variation,
    allows_sessions: bool,
    warned: Warned,
    bypass_cookies: Vec<String>,
    unless: Condition<ServiceRequest>,
    renew_if: Condition<ServiceRequest>,
    only_if: Condition<ResponseHead>,
    key: KeyFunction,
}

/// The lifetime of one response, stored in its extensions.
struct ResponseLifetime(Lifetime);

/// The routes for which the log has told why a page is not kept.
#[derive(Debug, Default)]
struct Warned(Mutex<HashSet<String>>);

/// The largest number of routes that are remembered.
const MAX_WARNED: usize = 1000;

impl Warned {
    /// Returns whether this is the first time for a route.
    fn is_first(&self, route: &str) -> bool {
        let mut warned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        warned.len() < MAX_WARNED && warned.insert(route.to_owned())
    }
}

impl ViewCache {
    /// Returns the key of the page at a path, with its query if parameters of it are part of the key,
    /// for an [`Invalidation`](crate::Invalidation). With a [key function](crate::ViewCacheBuilder::key),
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

impl fmt::Debug for ViewCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewCache").field("cache", &self.0.cache).finish_non_exhaustive()
    }
}
