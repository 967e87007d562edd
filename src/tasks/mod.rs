//! The tasks, over database and cache. Handlers call [`Tasks`] and see neither connections nor keys.
//!
//! | layer | key | group | value | made of |
//! |---|---|---|---|---|
//! | query | `tasks.all` | | the first page of all tasks | the table |
//! | query | `tasks.page/FILTER/PAGE` | `tasks` | any other page | the table |
//! | fragment | `task-fragment/ID` | | the row of one task | the task, by which it is checked when read |
//! | view | `view//` | | the start page | queries and fragments |
//! | view | `view/`, path and query | `task-pages` | any other page | queries and fragments |
//!
//! A reader reserves a key before it reads the entry's input. A write deletes the two keys and the two
//! groups, inner layers first, and its row in the ledger remembers them until that is confirmed. So no page
//! is ever stale: see "Why entries stay fresh" in the README of `everfresh`. The start page has a key of its
//! own, so that it costs one get; a page in a group costs two, in one round trip.
//!
//! To cache another query, add a [`Memo`] in the group [`QUERIES`]. To cache another page, mark its route as
//! cached in `routes`.

pub(crate) mod changes;
pub(crate) mod handlers;
mod pages;
pub(crate) mod place;
mod redirect;
mod room;
mod schema;
mod table;
pub(crate) mod task;

use std::sync::Arc;

use actix_web::rt;
use diesel::QueryResult;
use everfresh::{
    AtHand, Backlog, Cache, DieselLedger, DieselWriter, Invalidation, Lifetime, Memo, fragment_key,
    group_key, view_key,
};
use thiserror::Error;

use self::{
    place::{Filter, Place},
    room::Room,
    table::{Renamed, TaskPage},
    task::{Task, TaskId, TaskName},
};
use crate::db::{Db, DbConnection, DbError};

/// The group of all queries but the first page.
const QUERIES: &str = "tasks";

/// The group of all pages but the start page.
const PAGES: &str = "task-pages";

/// The name of the fragment that shows one task, for the template and for its key.
pub(crate) const ROW_FRAGMENT: &str = "task-fragment";
/// The name of the fragment of all rows of a page.
pub(crate) const LIST_FRAGMENT: &str = "list-fragment";

/// Any other page than the first one of all tasks: by the path of its list, and its number.
type OtherPages = Memo<(&'static str, u64), TaskPage>;

/// The tasks, over database and cache. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    db: Db,
    /// The layer of queries; it stores nothing if that layer is off.
    queries: Cache,
    writer: DieselWriter<Db>,
    room: Arc<Room>,
    per_page: u64,
    first_page: Arc<Memo<(), TaskPage>>,
    other_pages: Arc<OtherPages>,
}

/// The reason that a task was not stored.
#[derive(Debug, Error)]
pub(crate) enum AddError {
    #[error("The list is full: it holds at most {max} tasks. Delete some first.")]
    Full { max: u64 },
    #[error(transparent)]
    Database(#[from] DbError),
}

/// Tasks that were deleted together.
pub(crate) struct Cleared {
    pub(crate) number: usize,
    /// The first of them.
    pub(crate) tasks: Vec<Task>,
}

/// The change that a write has made.
#[derive(Clone, Copy, Debug)]
enum Change {
    Made,
    Deleted(TaskId),
}

impl Tasks {
    /// The list holds about `max` tasks at most, `per_page` on each page. Starts the tasks that settle and
    /// replay the rows of the ledger, and forgets the groups once: an older version of the app, which may have
    /// run last, deletes the two keys and knows no groups.
    pub(crate) fn new(db: Db, cache: &Cache, queries: Cache, max: u64, per_page: u64) -> Self {
        // Pages of another length are other pages, under the same keys.
        let length = per_page.to_string();
        let first_page = Memo::new("tasks.all", Lifetime::Default);
        let other_pages = Memo::new("tasks.page", Lifetime::Default).in_groups(&[QUERIES]);
        let (groups, shared) = ([group_key(QUERIES), group_key(PAGES)], cache.clone());
        rt::spawn(async move { shared.invalidate(&Invalidation::of(groups)).await });
        Self {
            writer: cache.diesel_writer(db.clone()),
            db,
            queries,
            room: Arc::new(Room::new(max)),
            per_page,
            first_page: Arc::new(first_page.versioned_by(task::SCHEMA).versioned_by(&length)),
            other_pages: Arc::new(other_pages.versioned_by(task::SCHEMA).versioned_by(&length)),
        }
    }

    /// Returns the function that tells the groups of a page in the view cache, by its key.
    pub(crate) fn groups_of_pages() -> impl Fn(&str) -> Vec<String> + Send + Sync {
        let start_page = view_key(Place::default().filter.path());
        move |key| if key == start_page { vec![] } else { vec![PAGES.to_owned()] }
    }

    /// Returns a page of a list, oldest tasks first; the last one instead of a page beyond the end.
    pub(crate) async fn page(&self, place: Place) -> Result<AtHand<TaskPage>, DbError> {
        let per_page = self.per_page;
        let read = async || self.db.read(move |conn| table::page(conn, place, per_page)).await;
        if place == Place::default() {
            return self.first_page.at_hand(&self.queries, &(), read).await;
        }
        let key = (place.filter.path(), place.page);
        self.other_pages.at_hand(&self.queries, &key, read).await
    }

    /// Returns a task; `None` if there is no task with this id.
    pub(crate) async fn find(&self, id: TaskId) -> Result<Option<Task>, DbError> {
        self.db.read(move |conn| table::find(conn, id)).await
    }

    /// Stores a new task, and returns the page of a list that shows it. If another task is added in the same moment, it
    /// may be the page before that one.
    pub(crate) async fn add(&self, name: TaskName, list: Filter) -> Result<Place, AddError> {
        let count = async || self.db.read(table::totals).await;
        if !self.room.take(async || Ok(count().await?.of(Filter::All))).await? {
            return Err(AddError::Full { max: self.room.max() });
        }
        let per_page = self.per_page;
        let add = move |conn: &mut DbConnection| {
            table::add(conn, name.as_str(), false)?;
            let page = table::totals(conn)?.pages(list, per_page);
            let shown = Place { filter: list, page };
            Ok((shown, Some(Change::Made)))
        };
        Ok(self.write(add).await?)
    }

    /// Completes a task, or opens it again, and returns it; `None` if there is no task with this id.
    pub(crate) async fn set_completed(
        &self,
        id: TaskId,
        completed: bool,
    ) -> Result<Option<Task>, DbError> {
        self.write(move |conn| {
            let changed = table::set_completed(conn, id, completed)?;
            let change = changed.as_ref().map(|_| Change::Made);
            Ok((changed, change))
        })
        .await
    }

    /// Changes the name of a task, if it is still the `original` one.
    pub(crate) async fn rename(
        &self,
        id: TaskId,
        original: String,
        name: TaskName,
    ) -> Result<Renamed, DbError> {
        self.write(move |conn| {
            let renamed = table::rename(conn, id, &original, &name)?;
            let change = matches!(renamed, Renamed::Done).then_some(Change::Made);
            Ok((renamed, change))
        })
        .await
    }

    /// Deletes a task and returns it; `None` if there is no task with this id.
    pub(crate) async fn delete(&self, id: TaskId) -> Result<Option<Task>, DbError> {
        self.write(move |conn| {
            let deleted = table::delete(conn, id)?;
            let change = deleted.as_ref().map(|_| Change::Deleted(id));
            Ok((deleted, change))
        })
        .await
    }

    /// Completes all tasks, and returns how many were active.
    pub(crate) async fn complete_all(&self) -> Result<usize, DbError> {
        self.write(|conn| {
            let number = table::complete_all(conn)?;
            Ok((number, (number > 0).then_some(Change::Made)))
        })
        .await
    }

    /// Deletes all completed tasks, and returns the first `kept` of them.
    pub(crate) async fn clear_completed(&self, kept: usize) -> Result<Cleared, DbError> {
        self.write(move |conn| {
            let (number, tasks) = table::clear_completed(conn, kept)?;
            Ok((Cleared { number, tasks }, (number > 0).then_some(Change::Made)))
        })
        .await
    }

    /// Stores deleted tasks again.
    pub(crate) async fn restore(&self, tasks: Vec<Task>) -> Result<(), DbError> {
        self.write(move |conn| Ok((table::restore(conn, &tasks)?, Some(Change::Made)))).await
    }

    /// Returns the invalidations that are not confirmed yet.
    pub(crate) async fn invalidation_backlog(&self) -> Result<Backlog, DbError> {
        DieselLedger(self.db.clone()).backlog().await
    }

    /// Derives the entries that a change makes wrong: every query, then every page. A fragment is
    /// checked against its task when it is read; that of a deleted task is of no more use.
    fn invalidation(&self, change: Change) -> Invalidation {
        let mut inner = vec![self.first_page.key(&()), group_key(QUERIES)];
        if let Change::Deleted(id) = change {
            inner.push(fragment_key(ROW_FRAGMENT, [id.get()]));
        }
        Invalidation::of(inner).then([view_key(Place::default().filter.path()), group_key(PAGES)])
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
