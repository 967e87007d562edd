//! Messages that the next page shows once, kept in the session.
//!
//! Who has one carries a marker cookie besides, which says no more than that: with it a request
//! passes by the view cache, and without it no session is looked for. The page that answers takes
//! it away.

use actix_session::{Session, SessionInsertError};
use actix_web::{
    HttpRequest, HttpResponse,
    cookie::{Cookie, SameSite},
};
use serde::{Deserialize, Serialize};

use crate::tasks::task::TaskName;

const KEY: &str = "flash";

/// The name of the marker cookie.
pub(crate) const MARKER: &str = "flash";

/// How many wait at most: a client that never asks for a page must not fill its session.
const MOST: usize = 5;

/// Characters of a task's name that a message repeats.
const NAME_LENGTH: usize = 80;

/// What happened.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Flash {
    Added { name: String },
    Deleted { name: String },
    AlreadyGone,
}

impl Flash {
    pub(crate) fn added(name: &TaskName) -> Self {
        Self::Added { name: shortened(name.as_str()) }
    }

    pub(crate) fn deleted(name: &str) -> Self {
        Self::Deleted { name: shortened(name) }
    }
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(NAME_LENGTH) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Keeps `message` for the next page.
pub(crate) fn push(session: &Session, message: Flash) -> Result<(), SessionInsertError> {
    let mut waiting = peek(session);
    waiting.push(message);
    let surplus = waiting.len().saturating_sub(MOST);
    session.insert(KEY, &waiting[surplus..])
}

/// Returns what waits, oldest first.
pub(crate) fn peek(session: &Session) -> Vec<Flash> {
    // What cannot be read (another version's) counts as nothing.
    session.get(KEY).ok().flatten().unwrap_or_default()
}

/// Returns what waits, oldest first, and forgets it. A session with nothing else in it ends.
pub(crate) fn take(session: &Session) -> Vec<Flash> {
    let waiting = peek(session);
    if session.remove(KEY).is_some() && session.entries().is_empty() {
        session.purge();
    }
    waiting
}

/// The marker cookie.
#[derive(Clone, Debug)]
pub(crate) struct Marker(Cookie<'static>);

impl Marker {
    /// For https only, if `secure`.
    pub(crate) fn new(secure: bool) -> Self {
        let cookie = Cookie::build(MARKER, "1").path("/").http_only(true);
        Self(cookie.same_site(SameSite::Lax).secure(secure).finish())
    }

    pub(crate) fn set(&self, response: &mut HttpResponse) {
        // A cookie of these characters can always be set.
        let _ = response.add_cookie(&self.0);
    }

    /// Takes the cookie away, if the request carries it.
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
