//! Errors of requests, and their pages.
//!
//! A handler returns an [`AppError`], which becomes a response without a body; requests that Actix
//! refuses end in the same way. [`error_pages`] gives each of these responses its page and logs the
//! cause once. A page shows the kind of problem and the request's id, never the text of an internal
//! error; but in development, that of a mistake in a template.

use std::time::Duration;

use actix_session::SessionInsertError;
use actix_web::{
    Error, HttpResponse, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
    middleware::Next,
    web::Data,
};
use serde::Serialize;
use thiserror::Error;

use super::request_id::RequestId;
use crate::{
    db::DbError,
    views::{ERROR_PAGE, Views},
};

/// Seconds after which a client may retry when the database is unavailable.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Asks for the `ADMIN_TOKEN` (RFC 7617).
const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"tasklist\", charset=\"UTF-8\"");

#[derive(Debug, Error)]
pub(crate) enum AppError {
    #[error("there is no such page")]
    NotFound,
    #[error("the password is missing or wrong")]
    Unauthorized,
    #[error("the request came from another site")]
    CrossSite,
    #[error("the request is for another host")]
    WrongHost,
    #[error("the body cannot be read")]
    BadRequest,
    #[error("the body is too large")]
    BodyTooLarge,
    #[error("the body took too long to arrive")]
    BodyTimeout,
    #[error("the address has sent too many requests")]
    TooManyRequests { wait: Duration },
    #[error(transparent)]
    Database(#[from] DbError),
    #[error("a template failed: {0}")]
    Render(#[from] tera::Error),
    #[error("the session cannot be written: {0}")]
    Session(#[from] SessionInsertError),
}

impl ResponseError for AppError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::CrossSite => StatusCode::FORBIDDEN,
            Self::WrongHost => StatusCode::MISDIRECTED_REQUEST,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Database(DbError::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Database(_) | Self::Render(_) | Self::Session(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut res = HttpResponse::new(self.status_code());
        let extra = match self {
            Self::Database(DbError::Unavailable(_)) => Some((header::RETRY_AFTER, RETRY_AFTER)),
            Self::TooManyRequests { wait } => {
                Some((header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1)))
            }
            Self::Unauthorized => Some((header::WWW_AUTHENTICATE, CHALLENGE)),
            _ => None,
        };
        if let Some((name, value)) = extra {
            res.headers_mut().insert(name, value);
        }
        res
    }
}

/// A middleware that adds a page to responses of 400 and above without one. Middleware inside must
/// return responses, not errors: errors would bypass this one and the log.
pub(crate) async fn error_pages(
    req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let res = next.call(req).await?.map_into_boxed_body();
    let status = res.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return Ok(res);
    }
    log_cause(&res);
    Ok(if has_own_page(&res) { res } else { with_page(res).await })
}

fn log_cause(res: &ServiceResponse) {
    // An outage of the database has been logged once; the access log has its requests.
    let is_outage = res.status() == StatusCode::SERVICE_UNAVAILABLE;
    let is_error = res.status().is_server_error() && !is_outage;
    if let (true, Some(cause)) = (is_error, res.response().error()) {
        let id = RequestId::of(res.request());
        log::error!("id={id} status={} cause={cause}", res.status().as_u16());
    }
}

/// Refusals by Actix have no body, or plain text.
fn has_own_page(res: &ServiceResponse) -> bool {
    res.headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|content_type| !content_type.as_bytes().starts_with(b"text/plain"))
}

async fn with_page(res: ServiceResponse) -> ServiceResponse {
    let html = page(&res).await;
    let mut res = res.map_body(|_, _| BoxBody::new(html));
    let headers = res.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    res
}

#[derive(Serialize)]
struct ErrorPage {
    status: u16,
    title: &'static str,
    message: &'static str,
    request_id: String,
    /// The mistake in a template, in development.
    cause: Option<String>,
}

async fn page(res: &ServiceResponse) -> String {
    let (title, message) = in_words(res.status());
    let views = res.request().app_data::<Data<Views>>();
    let cause = res.response().error().and_then(|error| match error.as_error() {
        Some(AppError::Render(error)) => Some(error.to_string()),
        _ => None,
    });
    let page = ErrorPage {
        status: res.status().as_u16(),
        title,
        message,
        request_id: RequestId::of(res.request()).to_string(),
        cause: cause.filter(|_| views.is_some_and(|views| views.show_errors())),
    };
    let rendered = match views {
        Some(views) => views.render(ERROR_PAGE, &page).await.ok(),
        None => None,
    };
    rendered.unwrap_or_else(|| format!("<!doctype html><title>{title}</title><p>{message}"))
}

fn in_words(status: StatusCode) -> (&'static str, &'static str) {
    match status.as_u16() {
        401 => ("Password needed", "This page is for those who run this site."),
        403 => (
            "Not accepted",
            "This request came from another site, so nothing was changed. Use the form on the \
             task list itself.",
        ),
        404 => ("Page not found", "There is nothing at this address. It may have been mistyped."),
        405 => ("Not possible here", "This address does not answer this kind of request."),
        408 => ("Too slow", "The request took too long to arrive. Nothing was changed."),
        413 => ("Too large", "The request was larger than this site accepts. Nothing was changed."),
        421 => (
            "Wrong address",
            "This site does not answer under this name. If you run it, add the name to \
             ALLOWED_HOSTS.",
        ),
        429 => (
            "Too many requests",
            "More requests came from your address at once, or more changes within a minute, than \
             this site accepts. This one was not carried out; please try again in a minute.",
        ),
        503 => (
            "Back in a moment",
            "The task list cannot reach its database. Nothing is lost; please try again in a few \
             seconds.",
        ),
        400..=499 => ("Not understood", "The request could not be understood."),
        _ => ("Something went wrong", "The problem was on our side, and it has been recorded."),
    }
}
