//! Messages that the next page shows once, stored in the session.
//!
//! A visitor with a message also has a marker cookie. With the cookie a request bypasses the view cache;
//! without it, no session is loaded for a cached page. The page that shows the messages removes the
//! cookie. A message about something that was not done is in the marker alone, and starts no session.

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

/// The values of the marker for messages that are in no session; those of the session are shown with them.
const IN_MARKER: [(&str, Flash); 2] =
    [("gone", Flash::AlreadyGone), ("nothing", Flash::NothingToUndo)];

/// The largest number of messages, so that a client that never loads a page cannot fill its session.
const MAX_MESSAGES: usize = 5;

/// The longest part of a task's name in a message, in characters.
const MAX_NAME_LENGTH: usize = 80;

/// A message about the last action.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Flash {
    Added { name: ShortName },
    Completed { name: ShortName },
    Reopened { name: ShortName },
    Renamed { name: ShortName },
    Deleted { name: ShortName, can_undo: bool },
    CompletedAll { number: usize },
    Cleared { number: usize, can_undo: bool },
    Restored { number: usize },
    NothingToUndo,
    AlreadyGone,
}

/// The words of a message, without the full stop. A name stands between `before` and `after`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct Words {
    pub(crate) before: String,
    pub(crate) name: String,
    pub(crate) after: &'static str,
    /// Whether it is about something that was not done.
    pub(crate) is_notice: bool,
    /// Whether the page offers to undo it.
    pub(crate) can_undo: bool,
}

impl Flash {
    /// Returns the words for the visitor.
    pub(crate) fn words(&self) -> Words {
        let of = |before: &str, name: &ShortName| Words {
            before: format!("{before} “"),
            name: name.0.clone(),
            after: "”",
            ..Words::default()
        };
        let text = |before: String| Words { before, ..Words::default() };
        let tasks = |number: usize| match number {
            1 => "1 task".to_owned(),
            _ => format!("{number} tasks"),
        };
        match self {
            Self::Added { name } => of("Added", name),
            Self::Completed { name } => of("Completed", name),
            Self::Reopened { name } => of("Reopened", name),
            Self::Renamed { name } => of("Renamed to", name),
            Self::Deleted { name, can_undo } => {
                Words { can_undo: *can_undo, ..of("Deleted", name) }
            }
            Self::CompletedAll { number: 0 } => {
                Words { is_notice: true, ..text("No task was left to complete".to_owned()) }
            }
            Self::CompletedAll { number } => text(format!("Completed {}", tasks(*number))),
            Self::Cleared { number: 0, .. } => {
                Words { is_notice: true, ..text("No task was completed".to_owned()) }
            }
            Self::Cleared { number, can_undo } => {
                Words { can_undo: *can_undo, ..text(format!("Deleted {}", tasks(*number))) }
            }
            Self::Restored { number } => text(format!("Brought back {}", tasks(*number))),
            Self::NothingToUndo => Words {
                is_notice: true,
                ..text(
                    "There is nothing to undo: it is undone already, or your session has ended."
                        .to_owned(),
                )
            },
            Self::AlreadyGone => {
                Words { is_notice: true, ..text("That task was already gone".to_owned()) }
            }
        }
    }
}

/// The name of a task in a message, cut after [`MAX_NAME_LENGTH`] characters.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct ShortName(String);

impl From<&str> for ShortName {
    fn from(name: &str) -> Self {
        Self(match name.char_indices().nth(MAX_NAME_LENGTH) {
            Some((end, _)) => format!("{}…", &name[..end]),
            None => name.to_owned(),
        })
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

    /// Sets the cookie so that the next page shows a message without data of its own, unless another message
    /// follows before it.
    pub(crate) fn set_message(&self, response: &mut HttpResponse, message: &Flash) {
        let mut cookie = self.0.clone();
        if let Some((value, _)) = IN_MARKER.iter().find(|(_, known)| known == message) {
            cookie.set_value(*value);
        }
        let _ = response.add_cookie(&cookie);
    }

    /// Returns the message of the marker itself.
    pub(crate) fn message(request: &HttpRequest) -> Option<Flash> {
        let marker = request.cookie(MARKER)?;
        let message = IN_MARKER.iter().find(|(value, _)| *value == marker.value());
        message.map(|(_, message)| message.clone())
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
        let shortened = |length| ShortName::from(&*"🦀".repeat(length)).0;
        assert_eq!(shortened(80), "🦀".repeat(80));
        assert_eq!(shortened(81), format!("{}…", "🦀".repeat(80)));
    }
}
