//! Protects from cross-site request forgery without tokens in pages, so that a page with forms is the
//! same for all visitors.
//!
//! Browsers tell the origin of a request: by `Sec-Fetch-Site` (all since 2023), or at least by
//! `Origin` with every POST. A client that sends neither is not a browser, has no visitor's cookies,
//! and is accepted. The rule is that of Go 1.25's `http.CrossOriginProtection`, without its
//! exceptions.

use actix_web::{
    Error, HttpRequest, ResponseError,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Uri,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web::Data,
};

use super::{error_pages::AppError, forwarded::Scheme};
use crate::config::TrustedProxies;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Origins from which forms are accepted in addition to the request's own host (`PUBLIC_ORIGIN`).
#[derive(Clone, Debug)]
pub(crate) struct PublicOrigins(pub(crate) Vec<String>);

/// A middleware that answers state-changing requests from other sites with 403.
pub(crate) async fn refuse_cross_site<B: MessageBody>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    if req.method().is_safe() || is_same_origin(req.request()) {
        return next.call(req).await.map(ServiceResponse::map_into_left_body);
    }
    Ok(req.into_response(AppError::CrossSite.error_response()).map_into_right_body())
}

fn is_same_origin(req: &HttpRequest) -> bool {
    let listed = req.app_data::<Data<PublicOrigins>>().map_or(&[][..], |origins| &origins.0);
    let scheme = req.app_data::<Data<TrustedProxies>>().and_then(|proxies| proxies.scheme(req));
    may_change_state(req.headers(), scheme, listed)
}

/// Decides by the headers, and by the scheme of the request where it is known. Every value of a
/// repeated header must be accepted.
fn may_change_state(
    headers: &HeaderMap,
    scheme: Option<Scheme>,
    public_origins: &[String],
) -> bool {
    if headers.contains_key(SEC_FETCH_SITE) {
        return headers
            .get_all(SEC_FETCH_SITE)
            .all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
    }
    let host = headers.get(header::HOST);
    headers.get_all(header::ORIGIN).all(|origin| is_own(origin, host, scheme, public_origins))
}

fn is_own(
    origin: &HeaderValue,
    host: Option<&HeaderValue>,
    own_scheme: Option<Scheme>,
    public_origins: &[String],
) -> bool {
    let Ok(origin) = origin.to_str().map(str::to_ascii_lowercase) else {
        return false;
    };
    if public_origins.contains(&origin) {
        return true;
    }
    let Ok(uri) = origin.parse::<Uri>() else {
        return false;
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    let (scheme, default_port) = match scheme {
        "http" => (Scheme::Http, ":80"),
        "https" => (Scheme::Https, ":443"),
        _ => return false,
    };
    if own_scheme.is_some_and(|own| own != scheme) {
        return false;
    }
    let without_port = |text: &str| text.strip_suffix(default_port).unwrap_or(text).to_owned();
    host.and_then(|host| host.to_str().ok()).is_some_and(|host| {
        without_port(&host.to_ascii_lowercase()) == without_port(authority.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::try_from(*name).expect("a header's name");
            map.append(name, HeaderValue::from_str(value).expect("a header's value"));
        }
        map
    }

    fn passes(fields: &[(&str, &str)]) -> bool {
        may_change_state(&headers(fields), None, &["https://tasks.example".to_owned()])
    }

    #[test]
    fn a_default_port_may_be_written_out_or_not() {
        assert!(passes(&[("host", "a.example:443"), ("origin", "https://a.example")]));
        assert!(passes(&[("host", "A.example"), ("origin", "http://a.EXAMPLE:80")]));
        assert!(!passes(&[("host", "a.example:443"), ("origin", "http://a.example")]));
    }

    #[test]
    fn a_public_origin_is_accepted_behind_a_proxy_that_changes_the_host() {
        assert!(passes(&[("host", "10.0.0.7:8080"), ("origin", "https://tasks.example")]));
        assert!(!passes(&[("host", "10.0.0.7:8080"), ("origin", "http://tasks.example")]));
    }

    #[test]
    fn a_public_origin_does_not_overrule_the_browser() {
        let fields = [("origin", "https://tasks.example"), ("sec-fetch-site", "cross-site")];
        assert!(!passes(&fields));
    }

    #[test]
    fn an_origin_of_another_scheme_is_another_site_where_the_scheme_is_known() {
        let headers = headers(&[("host", "a.example"), ("origin", "http://a.example")]);
        for (scheme, accepted) in
            [(None, true), (Some(Scheme::Http), true), (Some(Scheme::Https), false)]
        {
            assert_eq!(may_change_state(&headers, scheme, &[]), accepted, "{scheme:?}");
        }
    }

    #[test]
    fn both_of_two_values_must_be_accepted() {
        assert!(!passes(&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")]));
        let origins = [("host", "a"), ("origin", "http://a"), ("origin", "http://b")];
        assert!(!passes(&origins));
    }

    #[test]
    fn an_origin_that_is_not_a_url_is_another_site() {
        for origin in ["null", "", "a.example", "file://a.example", "http://a.example@b", "http:"] {
            assert!(!passes(&[("host", "a.example"), ("origin", origin)]), "{origin}");
        }
    }

    #[test]
    fn unknown_values_of_sec_fetch_site_are_rejected() {
        assert!(!passes(&[("sec-fetch-site", "")]));
        assert!(!passes(&[("sec-fetch-site", "same-origin, none")]));
    }
}
