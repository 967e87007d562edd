//! Pages whose lifetime is over, and which are served while one request makes them again.

use std::sync::Arc;

use actix_web::{
    Error, HttpRequest,
    body::{EitherBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse},
};
use bytes::Bytes;

use super::{
    Settings,
    answer::respond,
    entry::{HandlerOutcome, PageKey},
    middleware::{Response, encode, finish},
    page::Page,
    policy::Refusal,
};
use crate::{backend::types::CasToken, cache::stats::Event};

/// A page whose lifetime is over.
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
            return Ok(self.serve_stale(req, &stale).await);
        };
        // If a middleware fails, the request is lost, and the reservation ends by itself.
        let outcome = filler.timed(async || self.call_handler(req, service, key).await).await?;
        if let HandlerOutcome::Other(res, Refusal::Status(status)) = &outcome
            && status.is_server_error()
        {
            refresh.fail().await;
            return Ok(self.serve_stale(res.request().clone(), &stale).await);
        }
        self.cache.entries().count(Event::Misses(1));
        refresh.land(encode(&outcome)).await;
        Ok(finish(outcome, key, false).await)
    }

    async fn serve_stale<B>(
        &self,
        req: HttpRequest,
        stale: &StalePage,
    ) -> ServiceResponse<EitherBody<B, Bytes>> {
        let entries = self.cache.entries();
        entries.count(Event::Hits { hits: 1, bytes: stale.page.length() });
        entries.count(Event::Stale);
        let status = Some("hit; detail=stale");
        let res = respond(req.headers(), &stale.page, Some(stale.at), status).await;
        ServiceResponse::new(req, res.map_into_right_body())
    }
}
