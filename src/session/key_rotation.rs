//! Sessions of visitors whose cookie was made with the key before: `SECRET_KEY_PREVIOUS`.
//!
//! actix-session knows one key. So a cookie that the current key does not open, but the previous
//! one does, is closed again with the current key before the session is looked for.

use actix_web::{
    Error,
    body::MessageBody,
    cookie::{Cookie, CookieJar, Key},
    dev::{ServiceRequest, ServiceResponse},
    http::header::{self, HeaderMap, HeaderValue},
    middleware::Next,
    web::Data,
};

/// The session cookie and the keys that may have closed it.
#[derive(Clone)]
pub(crate) struct KeyRotation {
    pub(crate) cookie: &'static str,
    pub(crate) current: Key,
    pub(crate) previous: Option<Key>,
}

/// Middleware, around the one of sessions.
pub(crate) async fn accept_previous_key(
    mut req: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let rotated = req
        .app_data::<Data<KeyRotation>>()
        .and_then(|rotation| rotation.rotated(req.headers()))
        .and_then(|cookies| HeaderValue::try_from(cookies).ok());
    if let Some(cookies) = rotated {
        req.headers_mut().insert(header::COOKIE, cookies);
    }
    next.call(req).await
}

impl KeyRotation {
    /// The request's cookies with that of the session closed by the current key, if it must be.
    fn rotated(&self, headers: &HeaderMap) -> Option<String> {
        let previous = self.previous.as_ref()?;
        // Not by `req.cookies()`, which would keep what it has read for those who come later.
        let lines = headers.get_all(header::COOKIE).filter_map(|line| line.to_str().ok());
        let cookies: Vec<_> = lines.flat_map(|line| line.split(';')).map(str::trim).collect();
        let is_session = |cookie: &&str| cookie.split('=').next() == Some(self.cookie);
        let found = Cookie::parse_encoded(cookies.iter().copied().find(is_session)?).ok()?;
        let found = found.into_owned();
        if opened(&found, &self.current).is_some() {
            return None;
        }
        let closed = closed(opened(&found, previous)?, &self.current)?;
        let others = cookies.iter().filter(|cookie| !is_session(cookie)).copied();
        let cookies: Vec<_> = others.map(str::to_owned).chain([closed]).collect();
        Some(cookies.join("; "))
    }
}

fn opened(cookie: &Cookie<'static>, key: &Key) -> Option<Cookie<'static>> {
    CookieJar::new().private(key).decrypt(cookie.clone())
}

fn closed(cookie: Cookie<'static>, key: &Key) -> Option<String> {
    let name = cookie.name().to_owned();
    let mut jar = CookieJar::new();
    jar.private_mut(key).add(cookie);
    jar.get(&name).map(|cookie| cookie.encoded().stripped().to_string())
}
