//! Reads the whole body of a request before the handler runs, within bounds of size and time:
//! no handler can be held up by a client that sends slowly, or for ever.

use std::time::Duration;

use actix_web::{
    Error, ResponseError,
    body::{EitherBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::PayloadError,
    http::header,
    middleware::Next,
    rt::time::timeout,
    web::{Bytes, PayloadConfig},
};

use crate::http::error_pages::AppError;

/// The most bytes of a body. A task name of 500 characters, each percent-encoded from four bytes,
/// takes 6,000.
const LIMIT: usize = 8 * 1024;

/// How long a client may take to send it.
const DEADLINE: Duration = Duration::from_secs(10);

/// What the extractor in [`read_within_bounds`] goes by.
pub(crate) fn limit() -> PayloadConfig {
    PayloadConfig::new(LIMIT)
}

/// Whether a request announces a body (RFC 9112, section 6). Then it must be read, and be it for a page
/// that does not want one: what is left of it would stand in the way of the next request.
pub(crate) fn has_one(req: &ServiceRequest) -> bool {
    let headers = req.headers();
    let length = headers.get(header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

/// Middleware: 413 for a body that is too long, 408 for one that takes too long.
pub(crate) async fn read_within_bounds<B: MessageBody>(
    mut req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    if !matches!(req.parts_mut().1, Payload::None) {
        match timeout(DEADLINE, req.extract::<Bytes>()).await {
            Ok(Ok(body)) => req.set_payload(Payload::from(body)),
            Ok(Err(error)) => return Ok(refuse(req, refusal(&error))),
            Err(_) => return Ok(refuse(req, AppError::BodyTimeout)),
        }
    }
    next.call(req).await.map(ServiceResponse::map_into_left_body)
}

fn refuse<B>(req: ServiceRequest, error: AppError) -> ServiceResponse<EitherBody<B>> {
    req.into_response(error.error_response()).map_into_right_body()
}

fn refusal(error: &Error) -> AppError {
    match error.as_error::<PayloadError>() {
        Some(PayloadError::Overflow) => AppError::BodyTooLarge,
        _ => AppError::BadRequest,
    }
}
