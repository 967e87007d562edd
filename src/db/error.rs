//! Database errors, and which of them may go away by themselves.

use diesel::result::{DatabaseErrorKind, Error as QueryError};
use thiserror::Error;

use crate::config::database_url::one_line;

/// The reason that a query has no result. Never holds a password.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DbError {
    /// The database cannot be used at the moment.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    #[error("the database refused a query: {0}")]
    Query(QueryError),
    #[error("a migration failed: {0}")]
    Migration(String),
}

impl From<QueryError> for DbError {
    fn from(error: QueryError) -> Self {
        if is_full_disk(&error) {
            Self::Unavailable(format!(
                "{}; check the space on the disk of the database, and the limit of the size of files (`ulimit -f`)",
                one_line(&error.to_string())
            ))
        } else if is_transient(&error) {
            Self::Unavailable(one_line(&error.to_string()))
        } else {
            Self::Query(error)
        }
    }
}

/// Recognises a full disk by the messages of SQLite, PostgreSQL, MySQL and MariaDB.
fn is_full_disk(error: &QueryError) -> bool {
    // SQLite reports a write beyond the limit of a file's size (`ulimit -f`) as an I/O error.
    let messages = [
        "disk is full",
        "No space left on device",
        "File too large",
        "Got error 28",
        "is full",
        "disk I/O error",
    ];
    match error {
        QueryError::DatabaseError(_, info) => {
            messages.iter().any(|message| info.message().contains(message))
        }
        QueryError::RollbackErrorOnCommit { commit_error, .. } => is_full_disk(commit_error),
        _ => false,
    }
}

/// Returns whether the same query may succeed later.
pub(crate) fn is_transient(error: &QueryError) -> bool {
    use DatabaseErrorKind::{
        ClosedConnection, ReadOnlyTransaction, SerializationFailure, UnableToSendCommand,
    };
    match error {
        QueryError::BrokenTransactionManager => true,
        // A connection that ends during the commit cannot roll back either.
        QueryError::RollbackErrorOnCommit { commit_error, .. } => is_transient(commit_error),
        QueryError::DatabaseError(kind, info) => {
            // Diesel has no kind for these.
            let messages = [
                "database is locked",
                "lock timeout",
                "statement timeout",
                // MySQL and MariaDB:
                "Lock wait timeout",
                "Deadlock",
                "max_statement_time",
                "gone away",
                "Lost connection",
                "Server shutdown",
            ];
            matches!(
                kind,
                ClosedConnection | ReadOnlyTransaction | SerializationFailure | UnableToSendCommand
            ) || messages.iter().any(|message| info.message().contains(message))
        }
        _ => false,
    }
}
