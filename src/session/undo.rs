//! What a visitor has deleted last, kept in the session to be brought back.

use actix_session::{Session, SessionInsertError};
use serde::{Serialize, de::DeserializeOwned};

/// The session entry.
const KEY: &str = "undo";

/// The room in a session for deleted tasks, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UndoRoom(pub(crate) usize);

impl UndoRoom {
    /// The most tasks that are kept. A store that has room for more bytes keeps no more tasks.
    pub(crate) const MAX_TASKS: usize = 1000;

    /// Keeps what was deleted, in place of what was deleted before. Returns whether there is room for it.
    pub(crate) fn keep<T: Serialize>(
        self,
        session: &Session,
        deleted: &T,
    ) -> Result<bool, SessionInsertError> {
        session.insert(KEY, deleted)?;
        let fits = session.entries().get(KEY).is_some_and(|entry| entry.len() <= self.0);
        if !fits {
            session.remove(KEY);
        }
        Ok(fits)
    }
}

/// Returns what was deleted last.
pub(crate) fn kept<T: DeserializeOwned>(session: &Session) -> Option<T> {
    // An entry of another version that cannot be parsed is dropped.
    session.get(KEY).ok().flatten()
}

/// Removes the deleted tasks from the session, and ends a session without other entries.
pub(crate) fn forget(session: &Session) {
    session.remove(KEY);
    if session.entries().is_empty() {
        session.purge();
    }
}
