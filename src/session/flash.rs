//! Messages that the next page shows once, in a signed cookie.
//!
//! So a message needs no session and no cache: a write waits for neither, and a message survives the loss of
//! both. With the cookie a request bypasses the view cache, and the page that shows the messages removes it.

use actix_web::{
    HttpRequest, HttpResponse,
    cookie::{Cookie, CookieJar, SameSite},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::key_rotation::KeyRotation;

/// The name of the cookie.
pub(crate) const COOKIE: &str = "flash";

/// The largest number of messages, for a client that never loads a page.
const MAX_MESSAGES: usize = 5;

/// The longest part of a task's name in a message, in characters: at four bytes each, in Base64,
/// [`MAX_MESSAGES`] of them fit into a cookie of 4 KB.
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

/// Reads and writes the cookie with the messages.
#[derive(Clone)]
pub(crate) struct Messages {
    keys: KeyRotation,
    secure: bool,
}

impl Messages {
    /// Signs with `keys`; with `secure`, the cookie is for HTTPS only.
    pub(super) fn new(keys: KeyRotation, secure: bool) -> Self {
        Self { keys, secure }
    }

    /// Returns the messages that the visitor has not seen, oldest first. A cookie that this app has not
    /// signed, or that another version wrote differently, has none.
    pub(crate) fn read(&self, request: &HttpRequest) -> Vec<Flash> {
        let Some(cookie) = request.cookie(COOKIE) else { return Vec::new() };
        let verified =
            self.keys.all().find_map(|key| CookieJar::new().signed(key).verify(cookie.clone()));
        let json = verified.and_then(|cookie| URL_SAFE_NO_PAD.decode(cookie.value()).ok());
        json.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
    }

    /// Adds a message to those that the visitor has not seen.
    pub(crate) fn add(&self, message: Flash, request: &HttpRequest, response: &mut HttpResponse) {
        let mut messages = self.read(request);
        messages.push(message);
        let surplus = messages.len().saturating_sub(MAX_MESSAGES);
        let json = serde_json::to_vec(&messages[surplus..]).unwrap_or_default();
        let mut jar = CookieJar::new();
        jar.signed_mut(&self.keys.current).add(self.cookie(URL_SAFE_NO_PAD.encode(json)));
        for cookie in jar.delta() {
            // It can fail only for a cookie with invalid characters.
            let _ = response.add_cookie(cookie);
        }
    }

    /// Removes the cookie, if the request carries it.
    pub(crate) fn remove(&self, request: &HttpRequest, response: &mut HttpResponse) {
        if request.cookie(COOKIE).is_some() {
            let _ = response.add_removal_cookie(&self.cookie(String::new()));
        }
    }

    fn cookie(&self, value: String) -> Cookie<'static> {
        let cookie = Cookie::build(COOKIE, value).path("/").http_only(true);
        cookie.same_site(SameSite::Lax).secure(self.secure).finish()
    }
}

#[cfg(test)]
mod tests {
    use actix_web::{cookie::Key, test::TestRequest};

    use super::*;

    #[test]
    fn a_long_name_is_shortened_between_characters() {
        let shortened = |length| ShortName::from(&*"🦀".repeat(length)).0;
        assert_eq!(shortened(80), "🦀".repeat(80));
        assert_eq!(shortened(81), format!("{}…", "🦀".repeat(80)));
    }

    fn messages(current: &Key, previous: Option<&Key>) -> Messages {
        let (current, previous) = (current.clone(), previous.cloned());
        Messages::new(KeyRotation { cookie: "id", current, previous }, true)
    }

    /// The cookie after `added` were added one by one, without a page in between.
    fn cookie(messages: &Messages, added: &[Flash]) -> Option<Cookie<'static>> {
        added.iter().fold(None, |cookie, message| {
            let request = cookie.into_iter().fold(TestRequest::default(), TestRequest::cookie);
            let mut response = HttpResponse::Ok().finish();
            messages.add(message.clone(), &request.to_http_request(), &mut response);
            response.cookies().next().map(Cookie::into_owned)
        })
    }

    fn read(messages: &Messages, cookie: Cookie<'static>) -> Vec<Flash> {
        messages.read(&TestRequest::default().cookie(cookie).to_http_request())
    }

    #[test]
    fn the_last_five_messages_fit_into_a_cookie() {
        let messages = messages(&Key::generate(), None);
        let longest = Flash::Renamed { name: (&*"🦀".repeat(500)).into() };
        let cookie = cookie(&messages, &vec![longest.clone(); 7]).unwrap();
        assert!(cookie.to_string().len() < 4096, "{}", cookie.to_string().len());
        assert_eq!(read(&messages, cookie), vec![longest; 5]);
    }

    #[test]
    fn a_cookie_that_the_app_has_not_signed_has_no_messages() {
        let (ours, theirs) = (Key::generate(), Key::generate());
        let added = [Flash::Added { name: "Milk".into() }];
        let cookie = cookie(&messages(&ours, None), &added).unwrap();
        assert_eq!(read(&messages(&ours, None), cookie.clone()), added);
        assert_eq!(read(&messages(&theirs, Some(&ours)), cookie.clone()), added);
        assert_eq!(read(&messages(&theirs, None), cookie.clone()), []);
        let mut changed = cookie.clone();
        changed.set_value(cookie.value().replace('W', "X"));
        assert_ne!(changed.value(), cookie.value());
        assert_eq!(read(&messages(&ours, None), changed), []);
    }
}
