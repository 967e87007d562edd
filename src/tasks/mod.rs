//! The tasks, over database and cache. Handlers call [`Tasks`] and see neither connections nor keys.
//!
//! | layer | key | value | made of |
//! |---|---|---|---|
//! | query | `tasks.all` | all tasks | the table |
//! | fragment | `task-fragment/ID` | the row of one task | the task, by which it is checked when read |
//! | view | `view/` and the path | a page | queries and fragments |
//!
//! A reader reserves a key before it reads the entry's input. A write deletes the keys of all entries
//! that it makes wrong, inner layers first, and its row in the ledger remembers them until that is
//! confirmed. So no page is ever stale: see "Why entries stay fresh" in the README of `everfresh`.
//!
//! To cache another query, add a [`Memo`] and its key to [`Tasks::query_keys`]. To cache another page,
//! mark its route as cached in `routes`.

pub(crate) mod handlers;
mod limits;
pub(crate) mod task;

use std::sync::Arc;

use diesel::QueryResult;
use everfresh::{
    Backlog, Cache, DieselLedger, DieselWriter, Invalidation, Lifetime, Memo, fragment_key,
    view_key,
};
use thiserror::Error;

use self::{
    limits::{RenderQueue, Room, Turn},
    task::{Task, TaskId, TaskName},
};
use crate::db::{Db, DbConnection, DbError};

/// The list of all tasks.
const LIST: Memo<(), Vec<Task>> =
    Memo::new("tasks.all", Lifetime::Default).versioned_by(task::SCHEMA);

/// The name of the fragment that shows one task, for the template and for its key.
pub(crate) const ROW_FRAGMENT: &str = "task-fragment";

/// The tasks, over database and cache. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    db: Db,
    /// The layer of queries; it stores nothing if that layer is off.
    queries: Cache,
    /// The paths of the pages that are cached.
    cached_pages: Vec<&'static str>,
    writer: DieselWriter<Db>,
    queue: Arc<RenderQueue>,
    room: Arc<Room>,
}

/// The tasks, and the turn of the request that may render them, if they are many.
pub(crate) struct ListedTasks {
    pub(crate) tasks: Vec<Task>,
    pub(crate) are_many: bool,
    _turn: Option<Turn>,
}

/// The reason that a task was not stored.
#[derive(Debug, Error)]
pub(crate) enum AddError {
    #[error("The list is full: it holds at most {max} tasks. Delete some first.")]
    Full { max: u64 },
    #[error(transparent)]
    Database(#[from] DbError),
}

/// A change of one task.
#[derive(Clone, Copy, Debug)]
enum Change {
    Added,
    Deleted(TaskId),
}

impl Tasks {
    /// The list holds about `max` tasks at most. Starts the tasks that settle and replay the rows of the
    /// ledger.
    pub(crate) fn new(
        db: Db,
        cache: &Cache,
        queries: Cache,
        cached_pages: impl Iterator<Item = &'static str>,
        max: u64,
    ) -> Self {
        let writer = cache.diesel_writer(db.clone());
        let (queue, room) = (Arc::default(), Arc::new(Room::new(max)));
        let cached_pages = cached_pages.collect();
        Self { db, queries, cached_pages, writer, queue, room }
    }

    /// Returns all tasks, oldest first.
    pub(crate) async fn list(&self) -> Result<ListedTasks, DbError> {
        let turn = self.queue.turn().await;
        let read = async || self.db.read(task::list).await;
        let tasks = LIST.call(&self.queries, &(), read).await?;
        Ok(ListedTasks { are_many: self.queue.remember(tasks.len()), tasks, _turn: turn })
    }

    /// Stores a new task.
    pub(crate) async fn add(&self, name: TaskName) -> Result<(), AddError> {
        if !self.room.take(async || self.db.read(task::count).await).await? {
            return Err(AddError::Full { max: self.room.max() });
        }
        self.write(move |conn| Ok((task::add(conn, &name)?, Some(Change::Added)))).await?;
        Ok(())
    }

    /// Deletes a task and returns it; `None` if there is no task with this id.
    pub(crate) async fn delete(&self, id: TaskId) -> Result<Option<Task>, DbError> {
        self.write(move |conn| {
            let deleted = task::delete(conn, id)?;
            let change = deleted.as_ref().map(|_| Change::Deleted(id));
            Ok((deleted, change))
        })
        .await
    }

    /// Returns the invalidations that are not confirmed yet.
    pub(crate) async fn invalidation_backlog(&self) -> Result<Backlog, DbError> {
        DieselLedger(self.db.clone()).backlog().await
    }

    /// The keys of all cached queries.
    fn query_keys() -> Vec<String> {
        vec![LIST.key(&())]
    }

    /// Derives the entries that a change makes wrong: every query, then every page. A fragment is
    /// checked against its task when it is read; that of a deleted task is of no more use.
    fn invalidation(&self, change: Change) -> Invalidation {
        let mut inner = Self::query_keys();
        if let Change::Deleted(id) = change {
            inner.push(fragment_key(ROW_FRAGMENT, [id.get()]));
        }
        Invalidation::of(inner).then(self.cached_pages.iter().map(|path| view_key(path)))
    }

    /// Runs a write and its invalidation to their end, even if the request is dropped meanwhile.
    /// `write` returns its change, or `None` if it changed no task.
    async fn write<T, F>(&self, write: F) -> Result<T, DbError>
    where
        F: FnOnce(&mut DbConnection) -> QueryResult<(T, Option<Change>)> + Send + 'static,
        T: Send + 'static,
    {
        let tasks = self.clone();
        let write = move |conn: &mut DbConnection| {
            let (value, change) = write(conn)?;
            Ok((value, change.map(|change| tasks.invalidation(change)).unwrap_or_default()))
        };
        self.db.within_deadline(self.writer.write(write)).await
    }
}
