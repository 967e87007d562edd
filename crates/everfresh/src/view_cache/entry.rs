//! The entries of pages: how they are read, and how a handler's response becomes one.

use std::{collections::BTreeSet, sync::Arc};

use actix_web::{
    Error, HttpRequest, HttpResponse,
    body::{BodySize, EitherBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse},
    http::{
        Method, Uri,
        header::{self, HeaderMap, HeaderValue},
        uri::PathAndQuery,
    },
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    ResponseLifetime, Settings,
    answer::now,
    page::{Page, PageId, PageStore},
    policy::{self, Refusal},
    vary::Variation,
};
use crate::{
    backend::{
        entries::{Lookup, Slot},
        frame::Stamp,
        types::CasToken,
    },
    cache::{codec, lifetime::Term},
};

/// The value stored under the key of a page.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum PageEntry {
    Page {
        page: PageId,
        /// The time at which the page was made, in seconds since 1970.
        at: u64,
    },
    /// The page has a variant for each combination of the values of these request headers, under
    /// keys that begin with the generation. Deleting this entry makes all variants unreachable.
    Variants { generation: u64, names: BTreeSet<String> },
}

/// The outcome of a handler.
pub(super) enum HandlerOutcome<B> {
    Page {
        req: HttpRequest,
        page: Arc<Page>,
        /// The entry to be stored under the reserved key, if it may be stored.
        entry: Result<NewPageEntry, Refusal>,
    },
    /// A response that is not a page.
    Other(ServiceResponse<EitherBody<B, Bytes>>, Refusal),
}

/// An entry to be stored.
pub(super) struct NewPageEntry {
    pub(super) entry: PageEntry,
    pub(super) term: Term,
    /// The key of its page on the servers and the bytes there, if they are still to be stored.
    pub(super) page_bytes: Option<(String, Bytes)>,
}

/// The outcome of a lookup.
pub(super) enum PageLookup {
    /// A page, and the time at which it was made, in seconds since 1970.
    Page(Arc<Page>, u64),
    /// A page that has outlived its lifetime, but may be served stale.
    Stale(Arc<Page>, u64, Option<CasToken>),
    /// The generation and the header names of variants.
    Variants(u64, BTreeSet<String>),
    Missing(Lookup),
    /// The generation of a group cannot be read: nothing may be stored.
    Unknown,
}

/// The key of a page and, once it is known to vary, of one variant.
pub(super) struct PageKey {
    /// The key by which all variants are forgotten, as the backend knows it.
    main: String,
    /// The query that the handler may see; `None` for the whole query.
    query: Option<String>,
    /// The keys of its groups, as the backend knows them.
    groups: Vec<String>,
    /// The stamp of its entries: version, and generations of the groups when they were read.
    stamp: Stamp,
    variant: Option<Box<Variant>>,
}

/// One variant of a page.
struct Variant {
    key: String,
    /// The request headers that the key depends on.
    names: BTreeSet<String>,
}

impl PageKey {
    pub(super) fn new(
        main: String,
        query: Option<String>,
        groups: Vec<String>,
        version: u64,
    ) -> Self {
        let stamp = Stamp { schema: version, fingerprint: 0 };
        Self { main, query, groups, stamp, variant: None }
    }

    /// Returns the key of the variant, or of the page itself.
    pub(super) fn key(&self) -> &str {
        self.variant.as_ref().map_or(&self.main, |variant| &variant.key)
    }

    pub(super) fn slot(&self) -> Slot<'_> {
        Slot { key: self.key(), stamp: self.stamp }
    }

    pub(super) fn is_variant(&self) -> bool {
        self.variant.is_some()
    }

    /// Narrows the key to the variant for `req`.
    pub(super) fn narrow(
        &mut self,
        generation: u64,
        names: BTreeSet<String>,
        req: &HttpRequest,
        variation: &Variation,
    ) {
        let key = variant_key(&self.main, generation, &names, req, variation);
        self.variant = Some(Box::new(Variant { key, names }));
    }

    /// Removes from a request the part of its query that is not in the key.
    pub(super) fn restrict(&self, req: &mut ServiceRequest) {
        if let Some(query) = &self.query {
            restrict_query(req, query);
        }
    }

    /// Returns the `Cache-Status` of a miss.
    pub(super) fn miss_status(&self) -> &'static str {
        if self.is_variant() { "fwd=vary-miss" } else { "fwd=uri-miss" }
    }
}

impl Settings {
    /// Looks a page up, in the current generations of its groups: they are read with the page, and kept for
    /// its variants.
    pub(super) async fn look_up(&self, key: &mut PageKey) -> PageLookup {
        let entries = self.cache.entries();
        let found = if key.is_variant() || key.groups.is_empty() {
            if !key.is_variant() && self.cache.deletions().expects_miss(&key.main) {
                // Look up and reserve in one round trip.
                Lookup::Unknown
            } else {
                entries.look_up(key.slot()).await
            }
        } else {
            let look_up = entries.look_up_in(&key.main, self.version, &key.groups);
            // In a box, because it would be the larger part of the future of every hit.
            let (found, stamp) = Box::pin(look_up).await;
            let Some(stamp) = stamp else { return PageLookup::Unknown };
            key.stamp = stamp;
            found
        };
        match found {
            Lookup::Hit(body, token) => self.read(&body, token).await,
            Lookup::Stale(body, token) => match self.read(&body, token).await {
                PageLookup::Page(page, at) => PageLookup::Stale(page, at, token),
                // A list of headers does not age. Its pages may be stale.
                PageLookup::Variants(generation, names) => PageLookup::Variants(generation, names),
                _ => PageLookup::Missing(Lookup::Miss(token)),
            },
            other => PageLookup::Missing(other),
        }
    }

    /// Reads the body of an entry and finds its page.
    pub(super) async fn read(&self, body: &[u8], token: Option<CasToken>) -> PageLookup {
        match codec::deserialize(body) {
            Some(PageEntry::Page { page, at }) => match self.pages.find(&self.cache, page).await {
                Some(page) => PageLookup::Page(page, at),
                // The page was evicted: its entry is replaced.
                None => PageLookup::Missing(Lookup::Miss(token)),
            },
            Some(PageEntry::Variants { generation, names }) => {
                PageLookup::Variants(generation, names)
            }
            None => PageLookup::Missing(Lookup::Miss(token)),
        }
    }

    /// Calls the handler, and stores its page if it may be stored. The caller stores the entry.
    pub(super) async fn call_handler<S, B>(
        &self,
        mut req: ServiceRequest,
        service: &S,
        key: &PageKey,
    ) -> Result<HandlerOutcome<B>, Error>
    where
        S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
        B: MessageBody + 'static,
    {
        key.restrict(&mut req);
        as_get(&mut req);
        let (res, has_session) = watch_sessions(service.call(req)).await?;
        let (term, names) = match self.admit_response(res.response(), has_session) {
            Ok(admitted) => admitted,
            Err(refusal) => return Ok(HandlerOutcome::Other(res.map_into_left_body(), refusal)),
        };
        let (req, res) = res.into_parts();
        let (res, body) = res.into_parts();
        let body = match body.try_into_bytes() {
            Ok(body) => body,
            Err(body) => {
                let res = ServiceResponse::new(req, res.set_body(EitherBody::left(body)));
                return Ok(HandlerOutcome::Other(res, Refusal::Stream));
            }
        };
        if self.shares_csrf_token(res.headers(), &body, &names) {
            let res = ServiceResponse::new(req, res.set_body(EitherBody::right(body)));
            return Ok(HandlerOutcome::Other(res, Refusal::CsrfToken));
        }
        let Some((page, stored)) = Page::of_response(res.headers(), body.clone()) else {
            let res = ServiceResponse::new(req, res.set_body(EitherBody::right(body)));
            return Ok(HandlerOutcome::Other(res, Refusal::TooLarge));
        };
        let page = Arc::new(page);
        let is_kept = self.pages.keep(&page);
        let on_servers =
            self.cache.is_shared().then(|| (PageStore::key(&self.cache, page.id), stored));
        // An entry must never name a page that cannot be found: one that this process does not keep is stored
        // first.
        let can_be_found = match &on_servers {
            Some((key, stored)) if !is_kept => {
                self.cache.entries().put_named(key, stored.clone(), term.stored()).await.is_ok()
            }
            _ => is_kept,
        };
        let entry = if can_be_found {
            self.new_entry(key, &req, page.id, names, term).await
        } else {
            Err(Refusal::TooLarge)
        };
        let page_bytes = on_servers.filter(|_| is_kept);
        let entry = entry.map(|entry| NewPageEntry { entry, term, page_bytes });
        Ok(HandlerOutcome::Page { req, page, entry })
    }

    /// Returns the lifetime of a response and the request headers that it depends on, if it may be
    /// stored.
    fn admit_response<B>(
        &self,
        res: &HttpResponse<B>,
        has_session: bool,
    ) -> Result<(Term, BTreeSet<String>), Refusal>
    where
        B: MessageBody,
    {
        policy::admits_response(res.status(), res.headers())?;
        if !matches!(res.body().size(), BodySize::None | BodySize::Sized(_)) {
            return Err(Refusal::Stream);
        }
        if self.only_if.as_ref().is_some_and(|only_if| !only_if(res.head())) {
            return Err(Refusal::Filter);
        }
        let own = res.extensions().get().map(|ResponseLifetime(lifetime)| *lifetime);
        let usual = self.cache.resolve(own.unwrap_or(self.lifetime));
        let at_most = policy::max_age(res.headers()).filter(|_| own.is_none());
        let term = usual.at_most(at_most);
        if term.is_zero() {
            return Err(Refusal::Lifetime);
        }
        let names = self.variation.of_response(res.headers())?;
        if has_session && !self.may_show_visitor(&names) {
            return Err(Refusal::Session);
        }
        Ok((term, names))
    }

    /// Returns whether a page has a CSRF token that would be sent to other visitors.
    fn shares_csrf_token(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        names: &BTreeSet<String>,
    ) -> bool {
        let is_html = |kind: &HeaderValue| kind.as_bytes().starts_with(b"text/html");
        headers.get(header::CONTENT_TYPE).is_some_and(is_html)
            && !self.may_show_visitor(names)
            && policy::has_csrf_token(body)
    }

    /// Returns whether pages that vary by `names` may show what belongs to one visitor.
    fn may_show_visitor(&self, names: &BTreeSet<String>) -> bool {
        self.allows_sessions || self.variation.includes_session(names)
    }

    /// Returns the entry to be stored under the reserved key for a page that depends on the request
    /// headers in `names`.
    async fn new_entry(
        &self,
        key: &PageKey,
        req: &HttpRequest,
        page: PageId,
        names: BTreeSet<String>,
        term: Term,
    ) -> Result<PageEntry, Refusal> {
        let entry = PageEntry::Page { page, at: now() };
        match key.variant.as_ref().map(|variant| &variant.names) {
            // The reserved key is that of the page, which has no variants.
            None if names.is_empty() => Ok(entry),
            // The reserved key is that of a variant, and covers all headers.
            Some(known) if names.is_subset(known) => Ok(entry),
            // The page turns out to vary: the entry of the variant is stored first, under a new
            // generation that is unknown until the reserved key names it.
            None => {
                let generation = rand::random();
                let variant_key = variant_key(&key.main, generation, &names, req, &self.variation);
                self.put(&variant_key, key.stamp, &entry, term).await;
                Ok(PageEntry::Variants { generation, names })
            }
            // The page varies by more headers than its variants so far. The new list of headers
            // tells nothing about any page, so it needs no reservation.
            Some(known) => {
                let names = names.union(known).cloned().collect();
                let variants = PageEntry::Variants { generation: rand::random(), names };
                self.put(&key.main, key.stamp, &variants, term).await;
                Err(Refusal::OtherVary)
            }
        }
    }

    async fn put(&self, key: &str, stamp: Stamp, entry: &PageEntry, term: Term) {
        let Some(body) = codec::serialize(entry) else { return };
        // If it fails, the next request is a miss.
        let _ = self.cache.entries().put(Slot { key, stamp }, &body, term).await;
    }
}

/// Returns the key of one variant. No path or query gives such a key.
fn variant_key(
    main: &str,
    generation: u64,
    names: &BTreeSet<String>,
    req: &HttpRequest,
    variation: &Variation,
) -> String {
    let variant = variation.variant(req, names);
    format!("{main}?#{generation:016x}{variant}")
}

/// Lets HEAD have the answer of GET (RFC 9110, section 9.3.2), also where the app has no route for it. Actix
/// leaves out the body. Panics if a middleware outside has kept a clone of the request.
pub(super) fn as_get(req: &mut ServiceRequest) {
    if *req.method() == Method::HEAD {
        req.head_mut().method = Method::GET;
    }
}

/// Waits for a response. Returns also whether the request has a session with content.
#[cfg(feature = "session")]
use crate::session::watch as watch_sessions;

#[cfg(not(feature = "session"))]
async fn watch_sessions<B>(
    response: impl Future<Output = Result<ServiceResponse<B>, Error>>,
) -> Result<(ServiceResponse<B>, bool), Error> {
    Ok((response.await?, false))
}

/// Leaves the handler only the part of the query that is in the key. Like every change of a request
/// in Actix, it panics if a middleware outside has kept a clone of the request.
fn restrict_query(req: &mut ServiceRequest, query: &str) {
    let path = req.path();
    let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    if req.uri().path_and_query().is_some_and(|found| found.as_str() == target) {
        return;
    }
    let mut parts = req.uri().clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        req.head_mut().uri = uri;
    }
}
