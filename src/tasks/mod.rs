//! What is cached, under which key, and what a write makes wrong: the one file to read about it.
//!
//! | layer | key | holds | made of |
//! |---|---|---|---|
//! | query | `tasks.all` | all tasks | the table |
//! | fragment | `task-fragment/ID` | one task's row | the task, by which it is checked when it is read |
//! | view | `view//` | the page | the query and the fragments |
//!
//! A reader reserves a key before it reads what the entry is made of. A write deletes all keys that
//! it makes wrong, what others are made of first; until that is certain, its row in the ledger
//! remembers it. So no page is ever stale: see "Why entries stay fresh" in `everfresh`.

pub(crate) mod handlers;
pub(crate) mod ledger;
pub mod task;

use std::sync::{Arc, OnceLock};

use actix_web::rt;
use diesel::QueryResult;
use everfresh::{Cache, Invalidation, Lifetime, Memo, fragment_key, view_key};

use crate::{
    config::Layers,
    db::{Db, DbConnection, DbError, within_deadline},
    tasks::ledger::Settled,
    tasks::task::{Task, TaskId},
};

/// For those only who have the same `task.rs`: one with another field must not read `None` where
/// an older process has stored nothing.
const TASKS: Memo<(), Vec<Task>> =
    Memo::new("tasks.all", Lifetime::Default).versioned_by(include_str!("task.rs"));

/// As in `templates/index.html`.
const FRAGMENT: &str = "task-fragment";

/// The path of the page that shows the tasks.
pub(crate) const PAGE: &str = "/";

/// The layers of the cache. One that is switched off is neither read nor filled; a write deletes
/// the keys of all.
#[derive(Clone, Debug)]
pub(crate) struct TasksCache {
    cache: Cache,
    query: Cache,
    /// For [`crate::views::Views`].
    pub(crate) fragment: Cache,
    /// For the view cache that wraps the page.
    pub(crate) view: Cache,
    settled: Settled,
}

/// What a write has changed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Added,
    Deleted(TaskId),
}

impl Change {
    /// The keys that it makes wrong. A fragment is checked when it is read, but a deleted task's is
    /// of no use to anybody.
    fn invalidation(self) -> Invalidation {
        let mut inner = vec![TASKS.key(&())];
        if let Self::Deleted(id) = self {
            inner.push(fragment_key(FRAGMENT, [id.get()]));
        }
        Invalidation::of(inner).then([view_key(PAGE)])
    }
}

impl TasksCache {
    pub(crate) fn new(cache: Cache, layers: Layers, db: &Db) -> Self {
        let layer = |name, is_on| if is_on { cache.layer(name) } else { Cache::null().build() };
        Self {
            query: layer("query", layers.query),
            fragment: layer("fragment", layers.fragment),
            view: layer("view", layers.view),
            settled: Settled::start(db.clone()),
            cache,
        }
    }

    /// All layers together.
    pub(crate) fn whole(&self) -> &Cache {
        &self.cache
    }

    /// `ok`, `degraded` if a server does not answer, or `none` if there is no cache.
    pub(crate) async fn state(&self) -> &'static str {
        match self.cache.backend_name() {
            "none" => "none",
            _ if self.cache.ping().await => "ok",
            _ => "degraded",
        }
    }

    /// All tasks, oldest first.
    pub(crate) async fn list(&self, db: &Db) -> Result<Vec<Task>, DbError> {
        TASKS.call(&self.query, &(), async || db.run(task::list).await).await
    }

    /// Every write goes through here: `write` in a transaction, with a row in the ledger if it has
    /// changed anything; then what it makes wrong is deleted; when that is certain, the row goes soon.
    ///
    /// It goes on to its end also when nobody waits for it any more.
    pub(crate) async fn write<T, F>(&self, db: &Db, write: F) -> Result<T, DbError>
    where
        F: FnOnce(&mut DbConnection) -> QueryResult<(T, Option<Change>)> + Send + 'static,
        T: Send + 'static,
    {
        let (cache, settled, db) = (self.cache.clone(), self.settled.clone(), db.clone());
        let written = rt::spawn(async move { write_through(&cache, &settled, &db, write).await });
        let written =
            async { written.await.map_err(|error| DbError::Unavailable(error.to_string()))? };
        within_deadline(written).await
    }
}

async fn write_through<T, F>(
    cache: &Cache,
    settled: &Settled,
    db: &Db,
    write: F,
) -> Result<T, DbError>
where
    F: FnOnce(&mut DbConnection) -> QueryResult<(T, Option<Change>)> + Send + 'static,
    T: Send + 'static,
{
    let is_shared = cache.is_shared();
    // What is wrong if the transaction is committed; nothing, if it has not come so far.
    let attempted = Arc::new(OnceLock::new());
    let made_wrong = Arc::clone(&attempted);
    let written = db
        .write_to_end(move |conn| {
            let (value, change) = write(conn)?;
            let invalidation = change.map(Change::invalidation);
            let row = match &invalidation {
                Some(invalidation) if is_shared => Some(ledger::insert(conn, invalidation)?),
                _ => None,
            };
            if let Some(invalidation) = invalidation {
                let _ = made_wrong.set(invalidation);
            }
            Ok((value, row))
        })
        .await;
    // Also after an error: a connection that breaks while it commits may have committed.
    let is_certain = match attempted.get() {
        Some(invalidation) => cache.invalidate(invalidation).await,
        None => false,
    };
    let (value, row) = written?;
    if is_certain && let Some(row) = row {
        settled.remove(row);
    }
    Ok(value)
}
