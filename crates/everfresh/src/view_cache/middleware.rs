//! What happens to a request, in order.

use std::{
    cell::Cell,
    collections::BTreeSet,
    future::{Future, Ready, ready},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix_web::{
    Error,
    body::{EitherBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready},
    error::ErrorInternalServerError,
    http::{Method, Version, header::HeaderMap},
};
use bytes::Bytes;

use super::{
    Settings, ViewCache,
    answer::{mark, sent},
    entry::{Looked, Made, Place},
    policy::{self, Refusal},
    spelling, uncacheable as passes,
};
use crate::{
    backend::Backend,
    backend::frame as codec,
    cache::stats::Event,
    freshness::lease::{Encoded, Filled, Lookup},
};

/// How often an entry is looked at that turns out to be another kind of entry.
const TURNS: u32 = 4;

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

/// [`ViewCache`] before one service.
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
    type Future = Pin<Box<dyn Future<Output = Answered<B>>>>;

    forward_ready!(service);

    fn call(&self, req: ServiceRequest) -> Self::Future {
        let (settings, service) = (Arc::clone(&self.settings), Rc::clone(&self.service));
        Box::pin(async move { settings.answer(req, &*service).await })
    }
}

type Answered<B> = Result<ServiceResponse<EitherBody<B, Bytes>>, Error>;

/// What has come of filling an entry.
enum Turn<B> {
    Done(ServiceResponse<EitherBody<B, Bytes>>),
    /// It has turned out that there are variants, by these headers.
    Again(ServiceRequest, u64, BTreeSet<String>),
}

/// Boxes below keep the room that only misses need out of the future of a hit.
impl Settings {
    async fn answer<S, B>(&self, req: ServiceRequest, service: &S) -> Answered<B>
    where
        S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
        B: MessageBody + 'static,
    {
        let is_safe = matches!(*req.method(), Method::GET | Method::HEAD);
        let is_meant = self.paths.is_empty() || self.paths.iter().any(|path| path == req.path());
        if !is_safe || !is_meant || matches!(self.cache.backend(), Backend::Null) {
            return Box::pin(passed(req, service)).await;
        }
        let mut place = match self.admit(&req) {
            Ok((key, query)) => Place::of_page(self.cache.full_key(&key), query),
            Err(refusal) => {
                refused(req.path(), refusal);
                let res = Box::pin(passed(req, service)).await?;
                return Ok(marked(res, "fwd=bypass"));
            }
        };
        self.serve(req, service, &mut place).await
    }

    /// The key of a request, and the query that its handler may see.
    fn admit(&self, req: &ServiceRequest) -> Result<(String, Option<String>), Refusal> {
        policy::admits_request(req.headers(), &self.bypass_cookies)?;
        // Such a URL names a host besides the one in the headers.
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

    async fn serve<S, B>(
        &self,
        mut req: ServiceRequest,
        service: &S,
        place: &mut Place,
    ) -> Answered<B>
    where
        S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
        B: MessageBody + 'static,
    {
        for _ in 0..TURNS {
            let found = match self.look_up(place).await {
                Looked::Page(page, at) => {
                    self.cache.count(Event::Hits { hits: 1, bytes: page.length() });
                    let res = sent(req.headers(), &page, Some(at), None).await;
                    return Ok(req.into_response(res.map_into_right_body()));
                }
                Looked::Variants(generation, names) if !place.is_variant() => {
                    place.narrow(generation, names, req.request());
                    continue;
                }
                Looked::Variants(..) => Lookup::Miss(None),
                Looked::Nothing(found) => found,
            };
            self.cache.count(Event::Misses(1));
            let refusal = match *req.method() {
                Method::HEAD => Some(Refusal::Head),
                _ if self.passes.contains(place.key()) => Some(Refusal::Pass),
                _ => None,
            };
            if let Some(refusal) = refusal {
                refused(req.path(), refusal);
                return Box::pin(self.made_alone(req, service, place)).await;
            }
            match Box::pin(self.fill_page(req, service, place, found)).await? {
                Turn::Done(res) => return Ok(res),
                Turn::Again(back, generation, names) => {
                    place.narrow(generation, names, back.request());
                    req = back;
                }
            }
        }
        Box::pin(self.made_alone(req, service, place)).await
    }

    /// The page for this request only.
    async fn made_alone<S, B>(
        &self,
        mut req: ServiceRequest,
        service: &S,
        place: &Place,
    ) -> Answered<B>
    where
        S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
        B: MessageBody + 'static,
    {
        place.restrict(&mut req);
        Ok(marked(passed(req, service).await?, place.miss()))
    }

    /// Has the page made, by this request or another that asks for the same.
    async fn fill_page<S, B>(
        &self,
        req: ServiceRequest,
        service: &S,
        place: &Place,
        found: Lookup,
    ) -> Result<Turn<B>, Error>
    where
        S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
        B: MessageBody + 'static,
    {
        let waiting = Cell::new(Some(req));
        let make = async || match waiting.take() {
            Some(req) => self.make(req, service, place).await,
            None => Err(ErrorInternalServerError("a page is made once")),
        };
        let filled = self.cache.fill(self.slot(place), found, stored_form, make).await;
        let filled = filled.inspect_err(|_| self.passes.add(place.key(), passes::BY_FAILURE))?;
        let (bytes, make) = match filled {
            Filled::Fresh { value, is_stored } => {
                if let Some(time) = value.passes_for() {
                    self.passes.add(place.key(), time);
                }
                return Ok(Turn::Done(finished(value, place, is_stored).await));
            }
            Filled::Stored(bytes, make) => (bytes, make),
        };
        match (self.read(&bytes, None).await, waiting.take()) {
            (Looked::Page(page, at), Some(req)) => {
                let status = format!("{}; collapsed", place.miss());
                let res = sent(req.headers(), &page, Some(at), Some(&status)).await;
                Ok(Turn::Done(req.into_response(res.map_into_right_body())))
            }
            (Looked::Variants(generation, names), Some(req)) if !place.is_variant() => {
                Ok(Turn::Again(req, generation, names))
            }
            (_, req) => {
                waiting.set(req);
                Ok(Turn::Done(finished(make().await?, place, false).await))
            }
        }
    }
}

impl<B> Made<B> {
    /// For how long nobody should wait for this page, if it was not kept.
    fn passes_for(&self) -> Option<Duration> {
        match self {
            // Next time it is told apart.
            Self::Page { entry: Ok(_) | Err(Refusal::OtherVary), .. } => None,
            Self::Other(_, Refusal::Status(status)) if status.is_server_error() => {
                Some(passes::BY_FAILURE)
            }
            Self::Page { .. } | Self::Other(..) => Some(passes::BY_NATURE),
        }
    }
}

fn stored_form<B>(made: &Made<B>) -> Option<Encoded> {
    match made {
        Made::Page { entry: Ok((entry, lifetime)), page, .. } => Some(Encoded {
            bytes: codec::serialize(entry)?,
            lifetime: *lifetime,
            size: page.length(),
        }),
        _ => None,
    }
}

async fn finished<B>(
    made: Made<B>,
    place: &Place,
    is_stored: bool,
) -> ServiceResponse<EitherBody<B, Bytes>> {
    match made {
        Made::Other(res, refusal) => {
            refused(res.request().path(), refusal);
            marked(res, place.miss())
        }
        Made::Page { req, page, entry } => {
            let stored = if is_stored { "; stored" } else { "" };
            let status = format!("{}{stored}", place.miss());
            let res = match entry {
                Ok(_) => sent(req.headers(), &page, None, Some(&status)).await,
                Err(refusal) => {
                    refused(req.path(), refusal);
                    // What is sent only once is not worth compressing.
                    sent(&HeaderMap::new(), &page, None, Some(&status)).await
                }
            };
            ServiceResponse::new(req, res.map_into_right_body())
        }
    }
}

/// As the handler answers it.
async fn passed<S, B>(req: ServiceRequest, service: &S) -> Answered<B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    Ok(service.call(req).await?.map_into_left_body())
}

fn marked<B>(mut res: ServiceResponse<B>, status: &str) -> ServiceResponse<B> {
    mark(res.headers_mut(), status);
    res
}

fn refused(path: &str, refusal: Refusal) {
    log::debug!("{path} is not kept: {refusal}");
}
