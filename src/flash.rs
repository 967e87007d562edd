//! Messages that the next page shows once, kept in the session.

use actix_session::{Session, SessionInsertError};
use serde::{Deserialize, Serialize};

use crate::task::TaskName;

const KEY: &str = "flash";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_shortened_between_characters() {
        assert_eq!(shortened(&"🦀".repeat(80)), "🦀".repeat(80));
        assert_eq!(shortened(&"🦀".repeat(81)), format!("{}…", "🦀".repeat(80)));
    }
}
