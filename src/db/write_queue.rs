//! Serialises writers on SQLite.

use std::{sync::Arc, time::Duration};

use actix_web::rt::time::timeout;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::error::DbError;
use crate::config::DatabaseKind;

/// The longest time that a writer waits in the queue.
pub(crate) const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// A queue of the writers of this process, in the order in which they came.
///
/// SQLite has one writer at a time. Its own lock makes others sleep, ever longer, so that the order is
/// left to chance and some wait for seconds. Other databases need no queue.
#[derive(Clone, Debug)]
pub(crate) struct WriteQueue(Option<Arc<Mutex<()>>>);

impl WriteQueue {
    pub(crate) fn new(kind: DatabaseKind) -> Self {
        match kind {
            #[cfg(feature = "sqlite")]
            DatabaseKind::Sqlite => Self(Some(Arc::default())),
            #[cfg(any(feature = "postgres", feature = "mysql"))]
            _ => Self(None),
        }
    }

    /// Waits until the writers before have finished. The next one waits until the guard is dropped.
    pub(crate) async fn enter(&self) -> Result<Option<OwnedMutexGuard<()>>, DbError> {
        let Some(queue) = &self.0 else { return Ok(None) };
        let too_late = |_| {
            DbError::Unavailable("timed out waiting for other writes of this process".to_owned())
        };
        timeout(QUEUE_TIMEOUT, Arc::clone(queue).lock_owned()).await.map(Some).map_err(too_late)
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use std::cell::RefCell;

    use futures_util::future::join_all;

    use super::*;

    #[actix_web::test]
    async fn writers_come_in_the_order_in_which_they_entered() {
        let queue = WriteQueue::new(DatabaseKind::Sqlite);
        let steps = RefCell::new(Vec::new());
        let writers = (0..5).map(async |writer| {
            let _place = queue.enter().await.unwrap();
            // Yields, so that the next writer would interleave if it could.
            for _ in 0..3 {
                steps.borrow_mut().push(writer);
                actix_web::rt::task::yield_now().await;
            }
        });
        join_all(writers).await;
        let expected: Vec<_> = (0..5).flat_map(|writer| [writer; 3]).collect();
        assert_eq!(steps.into_inner(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_waits_too_long_gets_an_error() {
        let queue = WriteQueue::new(DatabaseKind::Sqlite);
        let _place = queue.enter().await.unwrap();
        assert!(matches!(queue.enter().await, Err(DbError::Unavailable(_))));
    }
}
