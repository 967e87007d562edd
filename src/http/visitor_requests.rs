//! Limits the requests of one visitor that are in progress at the same time behind a trusted proxy, whose
//! connections are those of all visitors. Pages from the view cache are not counted.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix_web::{
    Error, ResponseError,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web::Data,
};

use super::error_pages::AppError;
use crate::config::TrustedProxies;

/// The time after which a refused visitor may try again.
const WAIT: Duration = Duration::from_secs(1);

/// The requests in progress, by the address of the visitor. All workers share them.
#[derive(Debug)]
pub(crate) struct VisitorRequests {
    max: usize,
    in_progress: Mutex<HashMap<IpAddr, usize>>,
}

/// A request in progress, until this is dropped.
struct InProgress<'a>(&'a VisitorRequests, IpAddr);

impl VisitorRequests {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, in_progress: Mutex::default() }
    }

    fn in_progress(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.in_progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request. Returns `None` if the visitor has too many.
    fn admit(&self, visitor: IpAddr) -> Option<InProgress<'_>> {
        let mut in_progress = self.in_progress();
        let requests = in_progress.entry(visitor).or_default();
        if *requests >= self.max {
            return None;
        }
        *requests += 1;
        Some(InProgress(self, visitor))
    }
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        let mut in_progress = self.0.in_progress();
        if let Some(requests) = in_progress.get_mut(&self.1) {
            *requests -= 1;
            if *requests == 0 {
                in_progress.remove(&self.1);
            }
        }
    }
}

/// A middleware that answers 429 to a visitor with too many requests in progress.
pub(crate) async fn refuse_too_many<B: MessageBody>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let proxies = req.app_data::<Data<TrustedProxies>>().cloned();
    let requests = req.app_data::<Data<VisitorRequests>>().cloned();
    let visitor = proxies.and_then(|proxies| proxies.proxied_client(req.request()));
    let (Some(requests), Some(visitor)) = (requests, visitor) else {
        return next.call(req).await.map(ServiceResponse::map_into_left_body);
    };
    let Some(_in_progress) = requests.admit(visitor) else {
        let refusal = AppError::TooManyRequests { wait: WAIT }.error_response();
        return Ok(req.into_response(refusal).map_into_right_body());
    };
    next.call(req).await.map(ServiceResponse::map_into_left_body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_may_send_the_next_request_when_one_has_ended() {
        let requests = VisitorRequests::new(2);
        let (visitor, other) = (IpAddr::from([203, 0, 113, 1]), IpAddr::from([203, 0, 113, 2]));
        let first = requests.admit(visitor);
        let second = requests.admit(visitor);
        assert!(first.is_some() && second.is_some());
        assert!(requests.admit(visitor).is_none());
        assert!(requests.admit(other).is_some());
        drop(first);
        assert!(requests.admit(visitor).is_some());
        drop(second);
        assert!(requests.in_progress().is_empty(), "a visitor without requests is forgotten");
    }
}
