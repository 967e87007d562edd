//! The table of tasks and its queries. Knows no HTTP and no cache.

use diesel::prelude::*;
use serde::{Deserialize, Serialize};

#[cfg(any(feature = "sqlite", feature = "postgres"))]
use super::schema::task_totals;
use super::{
    place::{Filter, Place},
    schema::task,
    task::{Task, TaskId, TaskName},
};
use crate::db::DbConnection;

/// The numbers of tasks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Totals {
    pub(crate) active: u64,
    pub(crate) completed: u64,
}

impl Totals {
    pub(crate) fn of(self, filter: Filter) -> u64 {
        match filter {
            Filter::All => self.active + self.completed,
            Filter::Active => self.active,
            Filter::Completed => self.completed,
        }
    }

    /// Returns the number of pages of a list, at least 1.
    pub(super) fn pages(self, filter: Filter, per_page: u64) -> u64 {
        self.of(filter).div_ceil(per_page).max(1)
    }

    fn of_counts(active: i64, completed: i64) -> Self {
        Self { active: active.unsigned_abs(), completed: completed.unsigned_abs() }
    }
}

/// One page of a list.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct TaskPage {
    pub(crate) tasks: Vec<Task>,
    pub(crate) totals: Totals,
    /// The number of this page, from 1.
    pub(crate) page: u64,
    /// The number of all pages of this list, at least 1.
    pub(crate) pages: u64,
}

/// What became of a new name.
pub(crate) enum Renamed {
    Done,
    /// Somebody else has changed the name meanwhile, to that of this task.
    Conflict(Task),
    Gone,
}

/// Returns the numbers of tasks.
pub(super) fn totals(conn: &mut DbConnection) -> QueryResult<Totals> {
    let (active, completed): (i64, i64) = match conn {
        #[cfg(feature = "mysql")]
        DbConnection::Mysql(conn) => {
            let count = |done: bool| task::table.filter(task::completed.eq(done)).count();
            (count(false).get_result(conn)?, count(true).get_result(conn)?)
        }
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        conn => {
            let totals = task_totals::table.select((task_totals::active, task_totals::completed));
            totals.first(conn)?
        }
    };
    Ok(Totals::of_counts(active, completed))
}

/// Returns a page of a list, oldest tasks first; the last one instead of a page beyond the end.
pub(super) fn page(conn: &mut DbConnection, place: Place, per_page: u64) -> QueryResult<TaskPage> {
    #[cfg(feature = "postgres")]
    if place.page == 1
        && matches!(conn, DbConnection::Postgres(_))
        && let Some((tasks, totals)) = first_tasks(conn, place.filter, per_page)?
    {
        let pages = totals.pages(place.filter, per_page);
        return Ok(TaskPage { tasks, totals, page: 1, pages });
    }
    let totals = totals(conn)?;
    let number = totals.of(place.filter);
    let pages = totals.pages(place.filter, per_page);
    let page = place.page.min(pages);
    let before = (page - 1) * per_page;
    let tasks = list(place.filter).order(task::id).limit(rows(per_page)).select(Task::as_select());
    let tasks = if number == 0 {
        Vec::new()
    } else if before == 0 {
        tasks.load(conn)?
    } else if let Some(first) = first_id(conn, place.filter, before, number)? {
        tasks.filter(task::id.ge(first)).load(conn)?
    } else {
        Vec::new()
    };
    Ok(TaskPage { tasks, totals, page, pages })
}

/// Returns the first tasks of a list and the numbers of tasks, in one round trip; `None` if there is no task in the
/// list.
#[cfg(feature = "postgres")]
fn first_tasks(
    conn: &mut DbConnection,
    filter: Filter,
    number: u64,
) -> QueryResult<Option<(Vec<Task>, Totals)>> {
    let active = task_totals::table.select(task_totals::active).single_value();
    let completed = task_totals::table.select(task_totals::completed).single_value();
    let tasks = list(filter).order(task::id).limit(rows(number));
    let found: Vec<(Task, Option<i64>, Option<i64>)> =
        tasks.select((Task::as_select(), active, completed)).load(conn)?;
    let Some(&(_, Some(active), Some(completed))) = found.first() else { return Ok(None) };
    let tasks = found.into_iter().map(|(task, ..)| task).collect();
    Ok(Some((tasks, Totals::of_counts(active, completed))))
}

/// Returns the id of the task after the first `before` of `number` tasks, one or more. Reads only an index, from the end
/// that is nearer.
fn first_id(
    conn: &mut DbConnection,
    filter: Filter,
    before: u64,
    number: u64,
) -> QueryResult<Option<i64>> {
    let after = number - before - 1;
    let (is_forward, offset) = if before <= after { (true, before) } else { (false, after) };
    let ids = list(filter).select(task::id).limit(1).offset(rows(offset));
    let ids = if is_forward { ids.order(task::id.asc()) } else { ids.order(task::id.desc()) };
    ids.first(conn).optional()
}

/// All tasks of a list.
fn list<'a>(filter: Filter) -> task::BoxedQuery<'a, <DbConnection as Connection>::Backend> {
    let tasks = task::table.into_boxed();
    match filter {
        Filter::All => tasks,
        Filter::Active => tasks.filter(task::completed.eq(false)),
        Filter::Completed => tasks.filter(task::completed.eq(true)),
    }
}

/// A number of rows, as SQL has it.
fn rows(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// Returns a task; `None` if there is no task with this id.
pub(super) fn find(conn: &mut DbConnection, id: TaskId) -> QueryResult<Option<Task>> {
    task::table.find(id.get()).select(Task::as_select()).first(conn).optional()
}

/// Stores a new task.
pub(super) fn add(conn: &mut DbConnection, name: &str, completed: bool) -> QueryResult<()> {
    let values = (task::name.eq(name), task::completed.eq(completed));
    diesel::insert_into(task::table).values(values).execute(conn)?;
    Ok(())
}

/// Completes a task or opens it again. Returns it; `None` if there is no task with this id.
///
/// This function and those below run several statements, at least on MySQL, so call them in a transaction.
pub(super) fn set_completed(
    conn: &mut DbConnection,
    id: TaskId,
    completed: bool,
) -> QueryResult<Option<Task>> {
    let change = diesel::update(task::table.find(id.get())).set(task::completed.eq(completed));
    match conn {
        #[cfg(feature = "sqlite")]
        DbConnection::Sqlite(conn) => {
            change.returning(Task::as_returning()).get_result(conn).optional()
        }
        #[cfg(feature = "postgres")]
        DbConnection::Postgres(conn) => {
            change.returning(Task::as_returning()).get_result(conn).optional()
        }
        #[cfg(feature = "mysql")]
        conn @ DbConnection::Mysql(_) => {
            change.execute(conn)?;
            find(conn, id)
        }
    }
}

/// Changes a name, if it is still `original` or has become the new one already.
pub(super) fn rename(
    conn: &mut DbConnection,
    id: TaskId,
    original: &str,
    name: &TaskName,
) -> QueryResult<Renamed> {
    // An update without a change: other transactions wait before they change the task.
    diesel::update(task::table.find(id.get())).set(task::name.eq(task::name)).execute(conn)?;
    let Some(found) = find(conn, id)? else { return Ok(Renamed::Gone) };
    if found.name != original && found.name != name.as_str() {
        return Ok(Renamed::Conflict(found));
    }
    let change = diesel::update(task::table.find(id.get())).set(task::name.eq(name.as_str()));
    change.execute(conn)?;
    Ok(Renamed::Done)
}

/// Deletes a task and returns it; `None` if there is no task with this id.
pub(super) fn delete(conn: &mut DbConnection, id: TaskId) -> QueryResult<Option<Task>> {
    let found = find(conn, id)?;
    let removed = diesel::delete(task::table.find(id.get())).execute(conn)?;
    Ok(found.filter(|_| removed > 0))
}

/// Completes all tasks, and returns how many were active.
pub(super) fn complete_all(conn: &mut DbConnection) -> QueryResult<usize> {
    let active = task::table.filter(task::completed.eq(false));
    diesel::update(active).set(task::completed.eq(true)).execute(conn)
}

/// Deletes all completed tasks. Returns how many there were, and the first `kept` of them.
pub(super) fn clear_completed(
    conn: &mut DbConnection,
    kept: usize,
) -> QueryResult<(usize, Vec<Task>)> {
    let completed = || task::table.filter(task::completed.eq(true));
    let first = completed().order(task::id).limit(kept.try_into().unwrap_or(i64::MAX));
    let first = first.select(Task::as_select()).load(conn)?;
    Ok((diesel::delete(completed()).execute(conn)?, first))
}

/// Stores tasks again: with their old ids where these are free, else at the end. A task that is there
/// already, because it was restored a moment ago, is not stored twice.
pub(super) fn restore(conn: &mut DbConnection, tasks: &[Task]) -> QueryResult<()> {
    for wanted in tasks {
        let taken =
            task::table.find(wanted.id).select(task::name).first::<String>(conn).optional()?;
        match taken {
            None => {
                diesel::insert_into(task::table).values(wanted).execute(conn)?;
            }
            Some(name) if name == wanted.name => {}
            Some(_) => add(conn, &wanted.name, wanted.completed)?,
        }
    }
    Ok(())
}
