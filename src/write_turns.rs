//! Who writes next.

use std::{sync::Arc, time::Duration};

use actix_web::rt::time::timeout;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{config::DatabaseKind, db::DbError};

/// How long a writer waits for its turn: with what a connection and SQLite's own lock may take, less
/// than a request's deadline.
const PATIENCE: Duration = Duration::from_secs(5);

/// SQLite has one writer at a time, and those who wait for it sleep, ever longer, and wake by chance.
/// So the writers of this process take turns, in the order in which they came.
#[derive(Clone, Debug)]
pub(crate) struct WriteTurns(Option<Arc<Mutex<()>>>);

impl WriteTurns {
    pub(crate) fn new(kind: DatabaseKind) -> Self {
        match kind {
            #[cfg(feature = "sqlite")]
            DatabaseKind::Sqlite => Self(Some(Arc::default())),
            #[cfg(any(feature = "postgres", feature = "mysql"))]
            _ => Self(None),
        }
    }

    /// Resolves when it is the caller's turn, which lasts until the guard is dropped. Nobody waits so
    /// long that the write would come after its visitor has been told that it failed.
    pub(crate) async fn wait(&self) -> Result<Option<OwnedMutexGuard<()>>, DbError> {
        let Some(turns) = &self.0 else { return Ok(None) };
        let too_late = |_| DbError::Unavailable("those who write before take too long".to_owned());
        let turn = timeout(PATIENCE, Arc::clone(turns).lock_owned()).await;
        turn.map(Some).map_err(too_late)
    }
}
