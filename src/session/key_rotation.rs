//! Accepts session cookies that were encrypted with the previous key: `SECRET_KEY_PREVIOUS`.
//!
//! actix-session knows one key. So a cookie that only the previous key decrypts is encrypted with the
//! current key before the session is loaded.

use actix_web::{
    Error,
    body::MessageBody,
    cookie::{Cookie, CookieJar, Key},
    dev::{ServiceRequest, ServiceResponse},
    http::header::{self, HeaderMap, HeaderValue},
    middleware::Next,
    web::Data,
};

/// The name of the session cookie, and the keys that may have encrypted it.
#[derive(Clone)]
pub(crate) struct KeyRotation {
    pub(super) cookie: &'static str,
    pub(super) current: Key,
    pub(super) previous: Option<Key>,
}

/// A middleware around the session middleware.
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
    /// Returns the keys that may have protected a cookie.
    pub(super) fn all(&self) -> impl Iterator<Item = &Key> {
        [&self.current].into_iter().chain(&self.previous)
    }

    /// Returns the cookies of a request with the session cookie encrypted by the current key; `None`
    /// if nothing has to change.
    fn rotated(&self, headers: &HeaderMap) -> Option<String> {
        let previous = self.previous.as_ref()?;
        // `req.cookies()` would cache the parsed cookies for everything that runs later.
        let lines = headers.get_all(header::COOKIE).filter_map(|line| line.to_str().ok());
        let cookies: Vec<_> = lines.flat_map(|line| line.split(';')).map(str::trim).collect();
        let is_session = |cookie: &&str| cookie.split('=').next() == Some(self.cookie);
        let session = Cookie::parse_encoded(cookies.iter().copied().find(is_session)?).ok()?;
        let session = session.into_owned();
        if decrypt(&session, &self.current).is_some() {
            return None;
        }
        let encrypted = encrypt(decrypt(&session, previous)?, &self.current)?;
        let others = cookies.iter().filter(|cookie| !is_session(cookie)).copied();
        let cookies: Vec<_> = others.map(str::to_owned).chain([encrypted]).collect();
        Some(cookies.join("; "))
    }
}

fn decrypt(cookie: &Cookie<'static>, key: &Key) -> Option<Cookie<'static>> {
    CookieJar::new().private(key).decrypt(cookie.clone())
}

fn encrypt(cookie: Cookie<'static>, key: &Key) -> Option<String> {
    let name = cookie.name().to_owned();
    let mut jar = CookieJar::new();
    jar.private_mut(key).add(cookie);
    jar.get(&name).map(|cookie| cookie.encoded().stripped().to_string())
}
