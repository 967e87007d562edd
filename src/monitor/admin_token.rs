//! `ADMIN_TOKEN`: access to `/cache` and `/metrics`.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderValue},
    web::Data,
};
use actix_web_httpauth::headers::authorization::{Basic, Bearer, Scheme};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::http::error_pages::AppError;

/// Access to the operators' pages.
#[derive(Clone, Debug)]
pub(crate) enum AdminAccess {
    Open,
    Hidden,
    /// Requests with the token: as the password of HTTP Basic, with any user name, or as a Bearer
    /// token.
    Token(SecretString),
}

impl AdminAccess {
    pub(crate) fn new(token: Option<SecretString>, production: bool) -> Self {
        match token {
            Some(token) => Self::Token(token),
            None if production => Self::Hidden,
            None => Self::Open,
        }
    }

    pub(crate) fn check(&self, req: &HttpRequest) -> Result<(), AppError> {
        match self {
            Self::Open => Ok(()),
            Self::Hidden => Err(AppError::NotFound),
            Self::Token(token) => {
                match req.headers().get(header::AUTHORIZATION).and_then(presented_token) {
                    Some(presented) if is_equal(&presented, token.expose_secret()) => Ok(()),
                    _ => Err(AppError::Unauthorized),
                }
            }
        }
    }
}

/// Refuses the other methods of these pages, without telling strangers that the pages exist.
pub(crate) async fn refuse(
    req: HttpRequest,
    access: Data<AdminAccess>,
) -> Result<HttpResponse, AppError> {
    access.check(&req)?;
    Ok(HttpResponse::MethodNotAllowed().insert_header((header::ALLOW, "GET, HEAD")).finish())
}

/// Returns the password of HTTP Basic (RFC 7617), or a Bearer token (RFC 6750).
fn presented_token(header: &HeaderValue) -> Option<String> {
    let (scheme, credentials) = header.to_str().ok()?.split_once(' ')?;
    // actix-web-httpauth knows one spelling of each scheme; RFC 9110 (section 11.1) allows any.
    let spelled = |scheme| HeaderValue::try_from(format!("{scheme} {}", credentials.trim())).ok();
    if scheme.eq_ignore_ascii_case("basic") {
        Basic::parse(&spelled("Basic")?).ok()?.password().map(str::to_owned)
    } else if scheme.eq_ignore_ascii_case("bearer") {
        Some(Bearer::parse(&spelled("Bearer")?).ok()?.token().to_owned())
    } else {
        None
    }
}

/// Compares in a time that depends neither on the content nor on the length of the token.
fn is_equal(presented: &str, token: &str) -> bool {
    Sha256::digest(presented).ct_eq(&Sha256::digest(token)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token_of(header: &'static str) -> Option<String> {
        presented_token(&HeaderValue::from_static(header))
    }

    #[test]
    fn a_token_comes_as_the_password_of_basic_or_as_bearer() {
        assert_eq!(token_of("Basic dXNlcjpwYTpzcw==").as_deref(), Some("pa:ss"));
        assert_eq!(token_of("basic OnA6cQ==").as_deref(), Some("p:q"));
        assert_eq!(token_of("Bearer pass").as_deref(), Some("pass"));
        for header in ["Digest pass", "Basic", "Basic !!!", "Basic dXNlcg==", ""] {
            assert_eq!(token_of(header), None, "{header}");
        }
    }

    #[test]
    fn only_the_whole_token_is_accepted() {
        assert!(is_equal("secret", "secret"));
        for presented in ["", "secre", "secret ", "Secret"] {
            assert!(!is_equal(presented, "secret"), "{presented}");
        }
    }
}
