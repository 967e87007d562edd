//! What is stored for a page, and how it gets there.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use actix_web::{
    Error, HttpRequest, HttpResponse,
    body::{BodySize, EitherBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse},
    http::{
        Uri,
        uri::{Authority, PathAndQuery},
    },
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    ResponseLifetime, Settings,
    answer::now,
    page::{Page, PageId},
    policy::{self, Refusal},
    vary,
};
use crate::{
    backend::Mark,
    backend::frame::{self as codec, Stamp},
    freshness::lease::{Lookup, Slot},
};

/// What lies under the key of a page.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Entry {
    Page {
        page: PageId,
        /// When it was made, in seconds since 1970.
        at: u64,
    },
    /// There is one for each combination of the values of these request headers, under keys that
    /// begin with the generation: who deletes this entry makes them all unreachable.
    Variants { generation: u64, names: BTreeSet<String> },
}

/// What the handler has made.
pub(super) enum Made<B> {
    Page {
        req: HttpRequest,
        page: Arc<Page>,
        /// What is to be stored under the key that was reserved, if it may be.
        entry: Result<(Entry, Option<Duration>), Refusal>,
    },
    Other(ServiceResponse<EitherBody<B, Bytes>>, Refusal),
}

/// What has been found of a page.
pub(super) enum Looked {
    /// And when it was made, in seconds since 1970.
    Page(Arc<Page>, u64),
    Variants(u64, BTreeSet<String>),
    Nothing(Lookup),
}

/// Where a page is looked for.
pub(super) struct Place {
    /// The key that the page is forgotten by, as the backend knows it.
    main: String,
    /// The query that the handler may see, if not the whole.
    query: Option<String>,
    variant: Option<Box<Variant>>,
}

/// One page of those that a key has.
struct Variant {
    key: String,
    /// The request headers that the key depends on.
    names: BTreeSet<String>,
}

impl Place {
    pub(super) fn of_page(main: String, query: Option<String>) -> Self {
        Self { main, query, variant: None }
    }

    /// The key of the page itself.
    pub(super) fn key(&self) -> &str {
        self.variant.as_ref().map_or(&self.main, |variant| &variant.key)
    }

    pub(super) fn is_variant(&self) -> bool {
        self.variant.is_some()
    }

    /// From here on the variant for whoever sent `headers`.
    pub(super) fn narrow(&mut self, generation: u64, names: BTreeSet<String>, req: &HttpRequest) {
        let key = variant_key(&self.main, generation, &names, req);
        self.variant = Some(Box::new(Variant { key, names }));
    }

    /// The page that the handler is asked for.
    pub(super) fn restrict(&self, req: &mut ServiceRequest) {
        if let Some(query) = &self.query {
            restrict_query(req, query);
        }
    }

    /// What `Cache-Status` says when there is no page here.
    pub(super) fn miss(&self) -> &'static str {
        if self.is_variant() { "fwd=vary-miss" } else { "fwd=uri-miss" }
    }
}

impl Settings {
    pub(super) fn slot<'a>(&self, place: &'a Place) -> Slot<'a> {
        Slot { key: place.key(), stamp: self.stamp() }
    }

    fn stamp(&self) -> Stamp {
        Stamp { schema: self.version, fingerprint: 0 }
    }

    pub(super) async fn look_up(&self, place: &Place) -> Looked {
        match self.cache.lookup(self.slot(place)).await {
            Lookup::Hit(bytes, mark) => self.read(&bytes, mark).await,
            other => Looked::Nothing(other),
        }
    }

    pub(super) async fn read(&self, bytes: &[u8], mark: Option<Mark>) -> Looked {
        match codec::deserialize(bytes) {
            Some(Entry::Page { page, at }) => match self.pages.find(&self.cache, page).await {
                Some(page) => Looked::Page(page, at),
                None => Looked::Nothing(Lookup::Miss(mark)),
            },
            Some(Entry::Variants { generation, names }) => Looked::Variants(generation, names),
            None => Looked::Nothing(Lookup::Miss(mark)),
        }
    }

    /// Lets the handler answer, and keeps what it has made.
    pub(super) async fn make<S, B>(
        &self,
        mut req: ServiceRequest,
        service: &S,
        place: &Place,
    ) -> Result<Made<B>, Error>
    where
        S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
        B: MessageBody + 'static,
    {
        place.restrict(&mut req);
        let res = service.call(req).await?;
        let (lifetime, names) = match self.admit_response(res.response()) {
            Ok(admitted) => admitted,
            Err(refusal) => return Ok(Made::Other(res.map_into_left_body(), refusal)),
        };
        let (req, res) = res.into_parts();
        let (res, body) = res.into_parts();
        let body = match body.try_into_bytes() {
            Ok(body) => body,
            Err(body) => {
                let res = ServiceResponse::new(req, res.set_body(EitherBody::left(body)));
                return Ok(Made::Other(res, Refusal::Stream));
            }
        };
        let Some((page, stored)) = Page::of_response(res.headers(), body.clone()) else {
            let res = ServiceResponse::new(req, res.set_body(EitherBody::right(body)));
            return Ok(Made::Other(res, Refusal::TooLarge));
        };
        let page = Arc::new(page);
        let entry = if self.pages.keep(&self.cache, &page, &stored, lifetime).await {
            self.entry(place, &req, page.id, names, lifetime).await
        } else {
            Err(Refusal::TooLarge)
        };
        Ok(Made::Page { req, page, entry: entry.map(|entry| (entry, lifetime)) })
    }

    /// The lifetime of a response, and the request headers that it depends on.
    fn admit_response<B>(
        &self,
        res: &HttpResponse<B>,
    ) -> Result<(Option<Duration>, BTreeSet<String>), Refusal>
    where
        B: MessageBody,
    {
        policy::admits_response(res.status(), res.headers())?;
        if !matches!(res.body().size(), BodySize::None | BodySize::Sized(_)) {
            return Err(Refusal::Stream);
        }
        if self.keeps.as_ref().is_some_and(|keeps| !keeps(res.head())) {
            return Err(Refusal::Filter);
        }
        let own = res.extensions().get().map(|ResponseLifetime(lifetime)| *lifetime);
        let usual = self.cache.resolve(own.unwrap_or(self.lifetime));
        let at_most = policy::max_age(res.headers()).filter(|_| own.is_none());
        let lifetime = usual.into_iter().chain(at_most).min();
        if lifetime == Some(Duration::ZERO) {
            return Err(Refusal::Lifetime);
        }
        Ok((lifetime, vary::vary(res.headers())?))
    }

    /// What is to be stored for a page that depends on the headers in `names`.
    async fn entry(
        &self,
        place: &Place,
        req: &HttpRequest,
        page: PageId,
        names: BTreeSet<String>,
        lifetime: Option<Duration>,
    ) -> Result<Entry, Refusal> {
        let kept = Entry::Page { page, at: now() };
        match place.variant.as_ref().map(|variant| &variant.names) {
            None if names.is_empty() => Ok(kept),
            Some(known) if names.is_subset(known) => Ok(kept),
            None => {
                let generation = rand::random();
                let key = variant_key(&place.main, generation, &names, req);
                self.put(key, &kept, lifetime).await;
                Ok(Entry::Variants { generation, names })
            }
            Some(known) => {
                // It says which headers count, and nothing of any page: it may come at any time.
                let names = names.union(known).cloned().collect();
                let variants = Entry::Variants { generation: rand::random(), names };
                self.put(place.main.clone(), &variants, lifetime).await;
                Err(Refusal::OtherVary)
            }
        }
    }

    async fn put(&self, key: String, entry: &Entry, lifetime: Option<Duration>) {
        let Some(bytes) = codec::serialize(entry) else { return };
        let frame = self.cache.secret().entry(&key, self.stamp(), &bytes);
        let entry = (key, frame);
        for outcome in self.cache.backend().set_many(&[entry], lifetime).await {
            let _ = outcome.inspect_err(|failure| self.cache.failed(*failure));
        }
    }
}

/// The key of one variant: neither a path nor a query begins like that.
fn variant_key(main: &str, generation: u64, names: &BTreeSet<String>, req: &HttpRequest) -> String {
    let authority = req.uri().authority().map(Authority::as_str);
    let variant = vary::variant(req.headers(), authority, names);
    format!("{main}?#{generation:016x}{variant}")
}

/// Leaves the handler no more of the query than the key is made of. Like all that changes a
/// request in Actix, it panics if somebody outside has kept a clone of it.
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
