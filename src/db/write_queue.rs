//! Who writes next.

use std::{sync::Arc, time::Duration};

use actix_web::rt::time::timeout;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{config::DatabaseKind, db::DbError};

/// How long a writer waits for its turn: with what a connection and SQLite's own lock may take, less
/// than a request's deadline.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

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

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use std::cell::RefCell;

    use futures_util::future::join_all;

    use super::*;

    #[actix_web::test]
    async fn writers_come_in_the_order_in_which_they_asked() {
        let turns = WriteTurns::new(DatabaseKind::Sqlite);
        let came = RefCell::new(Vec::new());
        let writers = (0..5).map(async |writer| {
            let _turn = turns.wait().await.unwrap();
            // The next one is not let in meanwhile.
            for _ in 0..3 {
                came.borrow_mut().push(writer);
                actix_web::rt::task::yield_now().await;
            }
        });
        join_all(writers).await;
        let expected: Vec<_> = (0..5).flat_map(|writer| [writer; 3]).collect();
        assert_eq!(came.into_inner(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_who_waits_too_long_is_told_so() {
        let turns = WriteTurns::new(DatabaseKind::Sqlite);
        let _turn = turns.wait().await.unwrap();
        assert!(matches!(turns.wait().await, Err(DbError::Unavailable(_))));
    }
}
