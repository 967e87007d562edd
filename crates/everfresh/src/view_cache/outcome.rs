//! Answers with what the handler returned, or with the stale page instead.

use std::{sync::Arc, time::Duration};

use actix_web::{
    Error, HttpRequest,
    body::{EitherBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse},
    http::header::HeaderMap,
};
use bytes::Bytes;

use super::{
    Settings,
    answer::{append_cache_status, respond},
    entry::{HandlerOutcome, PageKey},
    page::Page,
    policy::Refusal,
    uncacheable,
};
use crate::{
    backend::types::CasToken,
    cache::{codec, events::CacheEventKind},
    freshness::landing::Encoded,
};

pub(super) type Response<B> = Result<ServiceResponse<EitherBody<B, Bytes>>, Error>;

impl<B> HandlerOutcome<B> {
    /// Returns how long no request should wait for this page, if it was not stored.
    pub(super) fn uncacheable_for(&self) -> Option<Duration> {
        match self {
            // At the next request the variant is known.
            Self::Page { entry: Ok(_) | Err(Refusal::OtherVary), .. } => None,
            Self::Other(_, Refusal::Status(status)) if status.is_server_error() => {
                Some(uncacheable::BY_REQUEST)
            }
            // Shortly: the page of a visitor without a session may be stored.
            Self::Other(_, Refusal::Session) => Some(uncacheable::BY_REQUEST),
            Self::Page { .. } | Self::Other(..) => Some(uncacheable::BY_NATURE),
        }
    }
}

pub(super) fn encode<B>(outcome: &HandlerOutcome<B>) -> Option<Encoded> {
    match outcome {
        HandlerOutcome::Page { entry: Ok(new), page, .. } => Some(Encoded {
            bytes: codec::serialize(&new.entry)?,
            term: new.term,
            size: page.length(),
            named: new.page_bytes.clone(),
        }),
        _ => None,
    }
}

/// Builds the response of the request that called its handler.
pub(super) async fn finish<B>(
    outcome: HandlerOutcome<B>,
    key: &PageKey,
    is_stored: bool,
) -> ServiceResponse<EitherBody<B, Bytes>> {
    match outcome {
        HandlerOutcome::Other(res, refusal) => {
            log_refusal(res.request().path(), refusal);
            with_cache_status(res, key.miss_status())
        }
        HandlerOutcome::Page { req, page, entry } => {
            let stored = if is_stored { "; stored" } else { "" };
            let status = format!("{}{stored}", key.miss_status());
            let res = match entry {
                Ok(_) => respond(req.headers(), &page, None, Some(&status)).await,
                Err(refusal) => {
                    log_refusal(req.path(), refusal);
                    // Without headers: a page that is sent once is not worth compressing.
                    respond(&HeaderMap::new(), &page, None, Some(&status)).await
                }
            };
            ServiceResponse::new(req, res.map_into_right_body())
        }
    }
}

pub(super) fn with_cache_status<B>(
    mut res: ServiceResponse<B>,
    status: &str,
) -> ServiceResponse<B> {
    append_cache_status(res.headers_mut(), status);
    res
}

pub(super) fn log_refusal(path: &str, refusal: Refusal) {
    log::debug!("{path} is not cached: {refusal}");
}

/// A page that has outlived its lifetime.
pub(super) struct StalePage {
    pub(super) page: Arc<Page>,
    /// The time at which it was made, in seconds since 1970.
    pub(super) at: u64,
    /// The state of its entry.
    pub(super) token: Option<CasToken>,
}

impl Settings {
    /// Calls the handler, unless another request does. Answers with the stale page if another request does, or if
    /// the handler fails (5xx).
    pub(super) async fn answer_stale<S, B>(
        &self,
        req: ServiceRequest,
        service: &S,
        key: &PageKey,
        stale: StalePage,
    ) -> Response<B>
    where
        S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
        B: MessageBody + 'static,
    {
        let filler = self.cache.filler();
        let Some(refresh) = filler.begin_refresh(key.slot(), stale.token).await else {
            let (req, _) = req.into_parts();
            return Ok(self.serve_stale(req, key, &stale).await);
        };
        // If a middleware fails, the request is lost, and the reservation ends by itself.
        let outcome =
            filler.timed(key.key(), async || self.call_handler(req, service, key).await).await?;
        if let HandlerOutcome::Other(res, Refusal::Status(status)) = &outcome
            && status.is_server_error()
        {
            refresh.fail().await;
            return Ok(self.serve_stale(res.request().clone(), key, &stale).await);
        }
        self.cache.entries().note(key.key(), CacheEventKind::Miss, None);
        refresh.land(encode(&outcome)).await;
        Ok(finish(outcome, key, false).await)
    }

    async fn serve_stale<B>(
        &self,
        req: HttpRequest,
        key: &PageKey,
        stale: &StalePage,
    ) -> ServiceResponse<EitherBody<B, Bytes>> {
        let entries = self.cache.entries();
        let bytes = stale.page.length();
        entries.note(key.key(), CacheEventKind::Hit { bytes }, None);
        entries.note(key.key(), CacheEventKind::Stale, None);
        let status = Some("hit; detail=stale");
        let res = respond(req.headers(), &stale.page, Some(stale.at), status).await;
        ServiceResponse::new(req, res.map_into_right_body())
    }
}
