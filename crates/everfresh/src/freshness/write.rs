//! A write and its invalidation in one call.

use std::{
    fmt,
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    time::sleep,
};

use super::{
    invalidation::Invalidation,
    replay::{Ledger, replay_for_ever},
};
use crate::cache::Cache;

/// The time for which rows are collected before they are removed: each removal is a transaction, which would
/// cost a single write as much as its own. Far from [`REPLAY_AGE`](super::replay::REPLAY_AGE), after which
/// other processes replay a row.
const BATCH_WINDOW: Duration = Duration::from_millis(100);

/// The largest number of rows removed in one transaction.
const MAX_BATCH: usize = 1000;

/// Runs writes to their end, and deletes the entries that they make wrong. Cloning is cheap.
///
/// What a write has to do, in this order: in one transaction, change the data and store a row with the
/// [`Invalidation`]; then delete the entries, also if the commit has failed, because a connection that
/// breaks meanwhile may have committed; answer; and remove the row if all deletions are confirmed. All
/// that must happen also if the visitor does not wait for the answer.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// # use std::{convert::Infallible, time::Duration};
/// # use everfresh::Ledger;
///
/// use everfresh::{Cache, Invalidation};
/// # #[derive(Clone, Default)]
/// # struct Rows(Arc<Mutex<Vec<u32>>>);
/// # impl Ledger for Rows {
/// #     type Error = Infallible;
/// #     type Id = u32;
/// #     async fn left(&self, _: Option<&u32>, _: Duration, _: usize)
/// #         -> Result<Vec<(u32, Invalidation)>, Infallible> { Ok(Vec::new()) }
/// #     async fn remove(&self, ids: &[u32]) -> Result<(), Infallible> {
/// #         self.0.lock().unwrap().retain(|row| !ids.contains(row));
/// #         Ok(())
/// #     }
/// #     async fn merge(&self, _: &[u32], _: &Invalidation) -> Result<(), Infallible> { Ok(()) }
/// # }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let ledger = Rows::default();
/// let cache = Cache::memory(1 << 20).build();
/// let writer = cache.writer(ledger.clone());
///
/// let id = writer.write(move |attempt| async move {
///     // In the app, a transaction:
///     let id = 7;
///     let row = attempt.announce(Invalidation::of(["tasks"]), |_invalidation| {
///         ledger.0.lock().unwrap().push(1);
///         Ok::<_, Infallible>(1)
///     })?;
///     Ok::<_, Infallible>((id, row))
/// });
/// assert_eq!(id.await, Ok(7));
/// # }
/// ```
pub struct Writer<R> {
    cache: Cache,
    confirmed: UnboundedSender<R>,
}

/// The part of a write in its transaction.
#[derive(Clone, Debug)]
pub struct Attempt {
    invalidation: Arc<OnceLock<Invalidation>>,
    is_shared: bool,
}

impl Attempt {
    /// Announces the entries that the transaction makes wrong: call it last, before the commit. `store`
    /// stores a row with the invalidation in the same transaction; it is called only if other processes
    /// share the cache, which else dies with this one. Returns what `store` returns, for the result of the
    /// transaction.
    ///
    /// If `store` fails, nothing is announced, and the transaction is to be rolled back. A transaction that
    /// changes nothing announces nothing, or an empty invalidation. Only the first call counts.
    pub fn announce<R, E>(
        &self,
        invalidation: Invalidation,
        store: impl FnOnce(&Invalidation) -> Result<R, E>,
    ) -> Result<Option<R>, E> {
        let row = self.needs_row(&invalidation).then(|| store(&invalidation)).transpose()?;
        // From here on, the transaction may be committed.
        let _ = self.invalidation.set(invalidation);
        Ok(row)
    }

    /// Like [`Attempt::announce`], for a transaction whose statements are futures.
    pub async fn announce_async<R, E, F>(
        &self,
        invalidation: Invalidation,
        store: impl FnOnce(Invalidation) -> F,
    ) -> Result<Option<R>, E>
    where
        F: Future<Output = Result<R, E>>,
    {
        let row = if self.needs_row(&invalidation) {
            Some(store(invalidation.clone()).await?)
        } else {
            None
        };
        let _ = self.invalidation.set(invalidation);
        Ok(row)
    }

    fn needs_row(&self, invalidation: &Invalidation) -> bool {
        self.is_shared && !invalidation.is_empty()
    }
}

impl Cache {
    /// Starts a [`Writer`], and the tasks of its ledger: one removes the rows of confirmed invalidations,
    /// those of many writes together; the other [replays](crate::replay()) the rows that are left, also those
    /// of other processes, if the cache is shared. They end with the last clone of the writer, or with the
    /// runtime: rows that are left are replayed, which does no harm.
    ///
    /// Panics outside of a Tokio runtime.
    pub fn writer<L: Ledger + 'static>(&self, ledger: L) -> Writer<L::Id>
    where
        L::Id: 'static,
    {
        let (confirmed, rows) = mpsc::unbounded_channel();
        let (cache, ledger) = (self.clone(), Arc::new(ledger));
        let replay = cache.is_shared().then(|| {
            let (cache, ledger) = (cache.clone(), Arc::clone(&ledger));
            tokio::spawn(async move { replay_for_ever(&cache, &*ledger).await })
        });
        tokio::spawn(async move {
            remove_confirmed(&*ledger, rows).await;
            if let Some(replay) = replay {
                replay.abort();
            }
        });
        Writer { cache, confirmed }
    }
}

impl<R: Send + 'static> Writer<R> {
    /// Runs a transaction and its invalidation to their end, even if the returned future is dropped. The
    /// transaction returns its result, and the id of its row if it has stored one.
    ///
    /// When this returns, the entries are deleted, or the row is in the ledger.
    pub async fn write<T, E, F>(&self, transaction: impl FnOnce(Attempt) -> F) -> Result<T, E>
    where
        F: Future<Output = Result<(T, Option<R>), E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let invalidation = Arc::new(OnceLock::new());
        let is_shared = self.cache.is_shared();
        let attempt = Attempt { invalidation: Arc::clone(&invalidation), is_shared };
        let (written, writer) = (transaction(attempt), self.clone());
        let to_its_end = tokio::spawn(async move {
            let written = written.await;
            // Also after an error: a connection that breaks during the commit may have committed.
            let is_confirmed = match invalidation.get() {
                Some(invalidation) => writer.cache.invalidate(invalidation).await,
                None => false,
            };
            let (value, row) = written?;
            if let Some(row) = row.filter(|_| is_confirmed) {
                // Without a receiver the process is about to end, and the row is replayed.
                let _ = writer.confirmed.send(row);
            }
            Ok(value)
        });
        match to_its_end.await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is being shut down, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

async fn remove_confirmed<L: Ledger>(ledger: &L, mut confirmed: UnboundedReceiver<L::Id>) {
    let mut rows = Vec::new();
    while confirmed.recv_many(&mut rows, MAX_BATCH).await > 0 {
        sleep(BATCH_WINDOW).await;
        while rows.len() < MAX_BATCH
            && let Ok(row) = confirmed.try_recv()
        {
            rows.push(row);
        }
        if let Err(error) = ledger.remove(&rows).await {
            log::warn!("rows stay in the ledger for now: {error}");
        }
        rows.clear();
    }
}

impl<R> Clone for Writer<R> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), confirmed: self.confirmed.clone() }
    }
}

impl<R> fmt::Debug for Writer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("cache", &self.cache).finish_non_exhaustive()
    }
}
