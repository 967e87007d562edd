//! Messages that the next page shows once, stored in the session.
//!
//! A visitor with a message also has a marker cookie. With the cookie a request bypasses the view cache;
//! without it, no session is loaded for a cached page. The page that shows the messages removes the
//! cookie. A message without data of its own is in the marker alone, and starts no session.

use actix_session::{Session, SessionInsertError};
use actix_web::{
    HttpRequest, HttpResponse,
    cookie::{Cookie, SameSite},
};
use serde::{Deserialize, Serialize};

/// The session entry.
const KEY: &str = "flash";

/// The name of the marker cookie.
pub(crate) const MARKER: &str = "flash";

/// The value of the marker for [`Flash::AlreadyGone`]; the messages of the session are shown with it.
const ALREADY_GONE: &str = "gone";

/// The largest number of messages, so that a client that never loads a page cannot fill its session.
const MAX_MESSAGES: usize = 5;

/// The longest part of a task's name in a message, in characters.
const MAX_NAME_LENGTH: usize = 80;

/// A message about the last action.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Flash {
    Added { name: String },
    Deleted { name: String },
    AlreadyGone,
}

impl Flash {
    pub(crate) fn added(name: &str) -> Self {
        Self::Added { name: shortened(name) }
    }

    pub(crate) fn deleted(name: &str) -> Self {
        Self::Deleted { name: shortened(name) }
    }
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(MAX_NAME_LENGTH) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Stores a message for the next page.
pub(crate) fn push(session: &Session, message: Flash) -> Result<(), SessionInsertError> {
    let mut messages = peek(session);
    messages.push(message);
    let surplus = messages.len().saturating_sub(MAX_MESSAGES);
    session.insert(KEY, &messages[surplus..])
}

/// Returns the messages, oldest first.
pub(crate) fn peek(session: &Session) -> Vec<Flash> {
    // Messages of another version that cannot be parsed are dropped.
    session.get(KEY).ok().flatten().unwrap_or_default()
}

/// Removes the messages and returns them, oldest first. Ends a session without other entries.
pub(crate) fn take(session: &Session) -> Vec<Flash> {
    let messages = peek(session);
    if session.remove(KEY).is_some() && session.entries().is_empty() {
        session.purge();
    }
    messages
}

/// The marker cookie.
#[derive(Clone, Debug)]
pub(crate) struct FlashMarker(Cookie<'static>);

impl FlashMarker {
    /// Creates the cookie; with `secure`, for HTTPS only.
    pub(crate) fn new(secure: bool) -> Self {
        let cookie = Cookie::build(MARKER, "1").path("/").http_only(true);
        Self(cookie.same_site(SameSite::Lax).secure(secure).finish())
    }

    pub(crate) fn set(&self, response: &mut HttpResponse) {
        // It can fail only for a cookie with invalid characters.
        let _ = response.add_cookie(&self.0);
    }

    /// Sets the cookie so that the next page shows [`Flash::AlreadyGone`], unless another message follows
    /// before it.
    pub(crate) fn set_already_gone(&self, response: &mut HttpResponse) {
        let mut cookie = self.0.clone();
        cookie.set_value(ALREADY_GONE);
        let _ = response.add_cookie(&cookie);
    }

    /// Returns the message of the marker itself.
    pub(crate) fn message(request: &HttpRequest) -> Option<Flash> {
        let marker = request.cookie(MARKER)?;
        (marker.value() == ALREADY_GONE).then_some(Flash::AlreadyGone)
    }

    /// Removes the cookie, if the request carries it.
    pub(crate) fn remove(&self, request: &HttpRequest, response: &mut HttpResponse) {
        if request.cookie(MARKER).is_some() {
            let _ = response.add_removal_cookie(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_shortened_between_characters() {
        assert_eq!(shortened(&"🦀".repeat(80)), "🦀".repeat(80));
        assert_eq!(shortened(&"🦀".repeat(81)), format!("{}…", "🦀".repeat(80)));
    }
}
