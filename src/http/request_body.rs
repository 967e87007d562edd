//! Reads the whole body of a request before the handler runs, within limits of size and time, so that
//! no handler waits for a slow client.

use actix_web::{
    Error, ResponseError,
    body::{EitherBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::PayloadError,
    http::header,
    middleware::Next,
    rt::time::timeout,
    web::{Bytes, Data, PayloadConfig},
};

use super::error_pages::AppError;
use crate::config::Limits;

/// Returns the limit that the extractor in [`read_within_limits`] uses.
pub(crate) fn limit(limits: &Limits) -> PayloadConfig {
    PayloadConfig::new(limits.body_bytes)
}

/// Returns whether a request announces a body (RFC 9112, section 6). It must then be read, even for a
/// cached page: unread bytes would be taken for the next request.
pub(crate) fn is_announced(req: &ServiceRequest) -> bool {
    let headers = req.headers();
    let length = headers.get(header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

/// A middleware that answers 413 to a body that is too large, and 408 to one that takes too long.
pub(crate) async fn read_within_limits<B: MessageBody>(
    mut req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    if !matches!(req.parts_mut().1, Payload::None) {
        let limits = req.app_data::<Data<Limits>>().map(|limits| ***limits).unwrap_or_default();
        match timeout(limits.request_timeout, req.extract::<Bytes>()).await {
            Ok(Ok(body)) => req.set_payload(Payload::from(body)),
            Ok(Err(error)) => return Ok(reject(req, rejection(&error))),
            Err(_) => return Ok(reject(req, AppError::BodyTimeout)),
        }
    }
    next.call(req).await.map(ServiceResponse::map_into_left_body)
}

fn reject<B>(req: ServiceRequest, error: AppError) -> ServiceResponse<EitherBody<B>> {
    req.into_response(error.error_response()).map_into_right_body()
}

fn rejection(error: &Error) -> AppError {
    match error.as_error::<PayloadError>() {
        Some(PayloadError::Overflow) => AppError::BodyTooLarge,
        _ => AppError::BadRequest,
    }
}
