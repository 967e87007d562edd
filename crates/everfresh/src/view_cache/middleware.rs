//! The steps that a request goes through.

use std::{
    cell::Cell,
    collections::BTreeSet,
    future::{Future, Ready, ready},
    pin::Pin,
    rc::Rc,
    sync::Arc,
};

use actix_web::{
    Error,
    body::{EitherBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready},
    error::ErrorInternalServerError,
    http::{Method, Version},
};
use bytes::Bytes;

use super::{
    Settings, ViewCache,
    answer::respond,
    entry::{HandlerOutcome, PageKey, PageLookup, as_get},
    outcome::{Response, StalePage, encode, finish, log_refusal, with_cache_status},
    policy::{self, Refusal},
    spelling, uncacheable,
};
use crate::{
    backend::entries::Lookup, cache::events::CacheEventKind, freshness::lease::FillOutcome,
};

/// Lookups of one request, each of which may find that the page varies by other headers.
const MAX_LOOKUPS: u32 = 4;

impl<S, B> Transform<S, ServiceRequest> for ViewCache
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B, Bytes>>;
    type Error = Error;
    type Transform = ViewCacheMiddleware<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        let settings = Arc::clone(&self.0);
        ready(Ok(ViewCacheMiddleware { settings, service: Rc::new(service) }))
    }
}

/// A [`ViewCache`] around one service.
#[derive(Clone)]
pub struct ViewCacheMiddleware<S> {
    settings: Arc<Settings>,
    service: Rc<S>,
}

impl<S, B> Service<ServiceRequest> for ViewCacheMiddleware<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B, Bytes>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Response<B>>>>;

    forward_ready!(service);

    fn call(&self, req: ServiceRequest) -> Self::Future {
        let (settings, service) = (Arc::clone(&self.settings), Rc::clone(&self.service));
        Box::pin(async move { settings.answer(req, &*service).await })
    }
}

/// The outcome of filling an entry.
enum FillResult<B> {
    Response(ServiceResponse<EitherBody<B, Bytes>>),
    /// The page has variants by these headers: look up again.
    Varies(ServiceRequest, u64, BTreeSet<String>),
}

/// The boxes below keep the futures of misses out of the future of a hit, which stays small.
impl Settings {
    async fn answer<S, B>(&self, req: ServiceRequest, service: &S) -> Response<B>
    where
        S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
        B: MessageBody + 'static,
    {
        let is_safe = matches!(*req.method(), Method::GET | Method::HEAD);
        let is_listed = self.paths.is_empty() || self.paths.iter().any(|path| path == req.path());
        if !is_safe || !is_listed || self.cache.entries().is_null() {
            return Box::pin(forward(req, service)).await;
        }
        let mut key = match self.admit(&req) {
            Ok((key, query)) => {
                PageKey::new(self.cache.full_key(&key), query, self.group_keys(&key), self.version)
            }
            Err(refusal) => {
                log_refusal(req.path(), refusal);
                let res = Box::pin(forward(req, service)).await?;
                return Ok(with_cache_status(res, "fwd=bypass"));
            }
        };
        self.serve(req, service, &mut key).await
    }

    /// Returns the key of a request and the query that its handler may see, if it may be answered
    /// from the cache.
    fn admit(&self, req: &ServiceRequest) -> Result<(String, Option<String>), Refusal> {
        policy::admits_request(req.headers(), &self.bypass_cookies)?;
        // An absolute URL names a host that may differ from the Host header.
        let is_absolute = req.version() < Version::HTTP_2 && req.uri().authority().is_some();
        if is_absolute || !spelling::is_usual(req.path()) {
            return Err(Refusal::Spelling);
        }
        if self.unless.as_ref().is_some_and(|unless| unless(req)) {
            return Err(Refusal::Unless);
        }
        if let Some(key) = &self.key {
            let key = key(req).ok_or(Refusal::NoKey)?;
            return Ok((spelling::own_key(&key), None));
        }
        let (key, query) = spelling::key(req.path(), req.query_string(), &self.query);
        Ok((key, Some(query)))
    }

    /// Returns the keys of the groups of a page.
    fn group_keys(&self, key: &str) -> Vec<String> {
        let own = self.groups_of.as_ref().map(|groups_of| groups_of(key)).unwrap_or_default();
        let names = self.groups.iter().map(String::as_str).chain(own.iter().map(String::as_str));
        names.map(|name| self.cache.full_group_key(name)).collect()
    }

    async fn serve<S, B>(
        &self,
        mut req: ServiceRequest,
        service: &S,
        key: &mut PageKey,
    ) -> Response<B>
    where
        S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
        B: MessageBody + 'static,
    {
        let is_renewed = self.renew_if.as_ref().is_some_and(|renew_if| renew_if(&req));
        if is_renewed && !self.cache.entries().delete_many(&[key.key().to_owned()]).await[0] {
            // The old page may still be there, and would be served below.
            return Box::pin(self.answer_uncached(req, service, key)).await;
        }
        for _ in 0..MAX_LOOKUPS {
            // The first lookup is by path; if the page varies, the next one is by variant.
            let stopwatch = self.cache.entries().stopwatch();
            let found = match self.look_up(key).await {
                PageLookup::Page(page, at) => {
                    let kind = CacheEventKind::Hit { bytes: page.length() };
                    self.cache.entries().note(key.key(), kind, stopwatch.elapsed());
                    let res = respond(req.headers(), &page, Some(at), None).await;
                    return Ok(req.into_response(res.map_into_right_body()));
                }
                PageLookup::Stale(page, at, token) => {
                    let stale = StalePage { page, at, token };
                    return Box::pin(self.answer_stale(req, service, key, stale)).await;
                }
                PageLookup::Variants(generation, names) if !key.is_variant() => {
                    key.narrow(generation, names, req.request(), &self.variation);
                    continue;
                }
                // A list of variants under the key of a variant is not an entry of this cache.
                PageLookup::Variants(..) => Lookup::Miss(None),
                PageLookup::Missing(found) => found,
                PageLookup::Unknown => break,
            };
            if !matches!(found, Lookup::Unknown) {
                self.cache.entries().note(key.key(), CacheEventKind::Miss, stopwatch.elapsed());
            }
            if self.uncacheable.contains(key.key()) {
                log_refusal(req.path(), Refusal::Uncacheable);
                return Box::pin(self.answer_uncached(req, service, key)).await;
            }
            match Box::pin(self.fill(req, service, key, found)).await? {
                FillResult::Response(res) => return Ok(res),
                FillResult::Varies(returned, generation, names) => {
                    key.narrow(generation, names, returned.request(), &self.variation);
                    req = returned;
                }
            }
        }
        // The list of headers changes again and again, or the generation of a group is unknown.
        Box::pin(self.answer_uncached(req, service, key)).await
    }

    /// Calls the handler for this request only.
    async fn answer_uncached<S, B>(
        &self,
        mut req: ServiceRequest,
        service: &S,
        key: &PageKey,
    ) -> Response<B>
    where
        S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
        B: MessageBody + 'static,
    {
        key.restrict(&mut req);
        as_get(&mut req);
        Ok(with_cache_status(forward(req, service).await?, key.miss_status()))
    }

    /// Fills the entry: by the handler of this request, or by that of a concurrent one.
    async fn fill<S, B>(
        &self,
        req: ServiceRequest,
        service: &S,
        key: &PageKey,
        found: Lookup,
    ) -> Result<FillResult<B>, Error>
    where
        S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
        B: MessageBody + 'static,
    {
        // The request is moved into the handler if this one is called, else it is needed below.
        let pending = Cell::new(Some(req));
        let call_handler = async || match pending.take() {
            Some(req) => self.call_handler(req, service, key).await,
            None => {
                Err(ErrorInternalServerError("the handler was called twice (bug in everfresh)"))
            }
        };
        // A lookup that reserves the key is counted when its outcome is known.
        let was_unknown = matches!(found, Lookup::Unknown);
        let note = |kind| {
            if was_unknown {
                self.cache.entries().note(key.key(), kind, None);
            }
        };
        let filled = self.cache.filler().fill(key.slot(), found, encode, call_handler).await;
        let filled = filled.inspect_err(|_| {
            note(CacheEventKind::Miss);
            self.uncacheable.add(key.key(), uncacheable::BY_REQUEST);
        })?;
        let (body, call_handler) = match filled {
            FillOutcome::Computed { value, is_stored } => {
                note(CacheEventKind::Miss);
                if let Some(time) = value.uncacheable_for() {
                    self.uncacheable.add(key.key(), time);
                }
                self.warn_of_visitor(&value);
                return Ok(FillResult::Response(finish(value, key, is_stored).await));
            }
            FillOutcome::Cached(body, call_handler) => (body, call_handler),
        };
        // A concurrent request has filled the entry, or it was there in spite of the deletion.
        match (self.read(&body, None).await, pending.take()) {
            (PageLookup::Page(page, at), Some(req)) => {
                note(CacheEventKind::Hit { bytes: page.length() });
                let collapsed = (!was_unknown).then(|| format!("{}; collapsed", key.miss_status()));
                let res = respond(req.headers(), &page, Some(at), collapsed.as_deref()).await;
                Ok(FillResult::Response(req.into_response(res.map_into_right_body())))
            }
            (PageLookup::Variants(generation, names), Some(req)) if !key.is_variant() => {
                // Counted by the lookup of the variant.
                Ok(FillResult::Varies(req, generation, names))
            }
            // Its page cannot be used, so this request calls its own handler.
            (_, req) => {
                note(CacheEventKind::Miss);
                pending.set(req);
                Ok(FillResult::Response(finish(call_handler().await?, key, false).await))
            }
        }
    }
}

impl Settings {
    /// Says once for each route that its pages are not kept because they belong to one visitor.
    fn warn_of_visitor<B>(&self, outcome: &HandlerOutcome<B>) {
        let HandlerOutcome::Other(res, refusal @ (Refusal::Session | Refusal::CsrfToken)) = outcome
        else {
            return;
        };
        let route = res.request().match_pattern();
        let route = route.as_deref().unwrap_or(res.request().path());
        if self.warned.is_first(route) {
            log::warn!("pages of {route} are not cached: {refusal}");
        }
    }
}

/// Lets the service answer, without the cache.
async fn forward<S, B>(req: ServiceRequest, service: &S) -> Response<B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    Ok(service.call(req).await?.map_into_left_body())
}
