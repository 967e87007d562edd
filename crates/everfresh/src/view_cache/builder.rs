//! Builds view caches.

use std::{fmt, sync::Arc};

use actix_web::{
    HttpRequest,
    dev::{ResponseHead, ServiceRequest},
};

use super::{
    Settings, ViewCache, Warned, page::PageStore, spelling::Parameter, uncacheable::Uncacheable,
    vary::Variation,
};
use crate::cache::{Cache, lifetime::Lifetime};

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

impl ViewCache {
    /// Starts a view cache with its entries in `cache`.
    #[must_use]
    pub fn builder(cache: Cache) -> ViewCacheBuilder {
        ViewCacheBuilder::new(cache)
    }
}

impl ViewCacheBuilder {
    pub(super) fn new(cache: Cache) -> Self {
        let settings = Settings {
            cache,
            pages: PageStore::new(0),
            uncacheable: Uncacheable::new(),
            version: 0,
            lifetime: Lifetime::Default,
            paths: Vec::new(),
            query: Vec::new(),
            groups: Vec::new(),
            groups_of: None,
            variation: Variation::default(),
            allows_sessions: false,
            warned: Warned::default(),
            bypass_cookies: Vec::new(),
            unless: None,
            renew_if: None,
            only_if: None,
            key: None,
        };
        Self { settings, local_bytes: DEFAULT_LOCAL_BYTES }
    }

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

    /// Adds parameters of the query to the key. Each combination of values is a page of its own. Default:
    /// no parameters.
    ///
    /// Clients can invent values, and each value makes an entry: **a write cannot name the keys of all of
    /// them**. Put such pages into a [`group`](Self::group), which forgets them all, and prefer
    /// [`query_number`](Self::query_number) or [`query_with`](Self::query_with), which limit the values.
    #[must_use]
    pub fn query<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.settings.query.extend(names.into_iter().map(Parameter::any));
        self
    }

    /// Adds a parameter of the query that is a positive number, such as the number of a page. It is part of
    /// the key, and seen by the handler, in decimal digits without leading zeros. Any other value counts as
    /// if the parameter were not there.
    #[must_use]
    pub fn query_number(self, name: impl Into<String>) -> Self {
        self.query_with(name, |value| {
            let is_decimal = value.bytes().all(|byte| byte.is_ascii_digit());
            let number = value.parse::<u64>().ok().filter(|number| is_decimal && *number > 0)?;
            Some(number.to_string())
        })
    }

    /// Adds a parameter of the query that is part of the key, and seen by the handler, in the form that
    /// `normalise` returns for its value; if that is `None`, as if the parameter were not there.
    ///
    /// ```
    /// use everfresh::{Cache, ViewCache};
    ///
    /// let views = ViewCache::builder(Cache::memory(64 << 20).build())
    ///     .query_number("page")
    ///     // A search ignores case and surrounding blanks; an empty one is none.
    ///     .query_with("q", |q| Some(q.trim().to_lowercase()).filter(|q| !q.is_empty()))
    ///     .build();
    /// assert_eq!(views.key("/?page=007&q= Milk&utm=x"), "view//?page=7&q=milk");
    /// assert_eq!(views.key("/?page=zero&q="), "view//");
    /// ```
    #[must_use]
    pub fn query_with(
        mut self,
        name: impl Into<String>,
        normalise: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.settings.query.push(Parameter::new(name, normalise));
        self
    }

    /// Puts all pages into a group: they are forgotten when the key of the group is deleted
    /// ([`group_key`](crate::group_key)). Can be called several times. Default: no groups.
    ///
    /// The groups of a page are read in the same round trip as the page, if they are on one server.
    ///
    /// ```
    /// use everfresh::{Cache, Invalidation, ViewCache, group_key};
    ///
    /// let cache = Cache::memory(64 << 20).build();
    /// let lists = ViewCache::builder(cache.layer("view"))
    ///     .query_number("page")
    ///     .group("tasks")
    ///     .build();
    /// # let _ = lists;
    /// // After a write, all pages of the list are made again:
    /// # async {
    /// cache.invalidate(&Invalidation::of([group_key("tasks")])).await;
    /// # };
    /// ```
    #[must_use]
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.settings.groups.push(name.into());
        self
    }

    /// Puts a page into the groups that a function returns for its key, in addition to those of
    /// [`group`](Self::group). The key is that of [`ViewCache::key`]. Default: no function.
    ///
    /// ```
    /// use everfresh::{Cache, ViewCache, view_key};
    ///
    /// // A write names the start page, which is then one get, and forgets all others as a group.
    /// let views = ViewCache::builder(Cache::memory(64 << 20).build())
    ///     .query_number("page")
    ///     .groups_of(|key| if key == view_key("/") { vec![] } else { vec!["lists".to_owned()] })
    ///     .build();
    /// # let _ = views;
    /// ```
    #[must_use]
    pub fn groups_of(
        mut self,
        groups: impl Fn(&str) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        self.settings.groups_of = Some(Box::new(groups));
        self
    }

    /// Makes pages vary by a cookie: visitors with different values of it get different pages. Of the
    /// cookies, only those that are named here count, also for a response with `Vary: Cookie`: else each
    /// visitor of another site's analytics would get a page of its own. Can be called several times.
    /// Default: no cookies.
    ///
    /// Pages that show anything of a session must vary by the cookie of the session
    /// ([`session_cookie`](Self::session_cookie)); those that do not are kept for visitors without a
    /// session only.
    #[must_use]
    pub fn vary_cookie(mut self, name: impl Into<String>) -> Self {
        self.settings.variation.cookies.push(name.into());
        self
    }

    /// Makes pages vary by what a function tells of a request, such as the kind of its browser. `name`
    /// identifies it to other processes: change it with the function. Can be called several times. For a
    /// function of the session, use `vary_by_session`. Default: no function.
    ///
    /// ```
    /// use everfresh::{Cache, ViewCache};
    ///
    /// let views = ViewCache::builder(Cache::memory(64 << 20).build())
    ///     .vary_by("is mobile", |req| req.headers().contains_key("sec-ch-ua-mobile").to_string())
    ///     .build();
    /// # let _ = views;
    /// ```
    #[must_use]
    pub fn vary_by(
        mut self,
        name: impl Into<String>,
        function: impl Fn(&HttpRequest) -> String + Send + Sync + 'static,
    ) -> Self {
        self.settings.variation.functions.push((name.into(), Box::new(function)));
        self
    }

    /// Makes pages vary by what a function tells of the session, such as the role of the visitor: pages must
    /// show nothing else of it. The view cache must be inside of the session middleware. `name` identifies
    /// the function to other processes: change it with the function. Default: no function.
    ///
    /// ```
    /// use everfresh::{Cache, ViewCache};
    ///
    /// let views = ViewCache::builder(Cache::memory(64 << 20).build())
    ///     .vary_by_session("role", |session| {
    ///         session.get("role").ok().flatten().unwrap_or_default()
    ///     })
    ///     .build();
    /// # let _ = views;
    /// ```
    #[cfg(feature = "session")]
    #[must_use]
    pub fn vary_by_session(
        mut self,
        name: impl Into<String>,
        function: impl Fn(&actix_session::Session) -> String + Send + Sync + 'static,
    ) -> Self {
        self.settings.variation.varies_by_session = true;
        self.vary_by(name, move |req| function(&actix_session::SessionExt::get_session(req)))
    }

    /// Sets the name of the cookie with the session: pages that vary by it may show the session. Default:
    /// `id`, like that of actix-session.
    #[must_use]
    pub fn session_cookie(mut self, name: impl Into<String>) -> Self {
        self.settings.variation.session_cookie = name.into();
        self
    }

    /// Also keeps pages that were made for visitors with a session and do not vary by it (`Vary: Cookie`,
    /// [`vary_cookie`](Self::vary_cookie), `vary_by_session`). **They must not show anything of the session**:
    /// they are sent to others. The same holds for HTML pages with a CSRF token, told by the name of an
    /// `<input>` or `<meta>`. By default, they are not kept, and the log says so once for each route.
    ///
    /// Sessions are noticed with the feature `session`. Around the session middleware, only those are noticed
    /// that are stored by [`CacheSessionStore`](crate::CacheSessionStore), or in
    /// [`WatchedSessions`](crate::WatchedSessions).
    #[must_use]
    pub fn allow_sessions(mut self) -> Self {
        self.settings.allows_sessions = true;
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

    /// Makes the page anew for requests that meet a condition, and stores it for all. Such a
    /// request costs a computation, so let it be one that only you can send. Default: no condition.
    ///
    /// ```
    /// # fn f(cache: everfresh::Cache, token: &'static str) {
    /// use everfresh::ViewCache;
    ///
    /// let views = ViewCache::builder(cache)
    ///     .renew_if(move |req| {
    ///         let sent = req.headers().get("x-renew");
    ///         sent.is_some_and(|sent| sent.as_bytes() == token.as_bytes())
    ///     })
    ///     .build();
    /// # }
    /// ```
    #[must_use]
    pub fn renew_if(
        mut self,
        condition: impl Fn(&ServiceRequest) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.settings.renew_if = Some(Box::new(condition));
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

impl fmt::Debug for ViewCacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewCacheBuilder")
            .field("cache", &self.settings.cache)
            .finish_non_exhaustive()
    }
}
