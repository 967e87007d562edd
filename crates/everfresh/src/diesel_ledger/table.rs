//! The table `cache_invalidations` and its queries.

use std::time::Duration;

use diesel::{
    QueryResult,
    dsl::{self, sql},
    expression::SqlLiteral,
    prelude::*,
    query_dsl::methods::{ExecuteDsl, LoadQuery},
    sql_types::{BigInt, Text, Untyped},
};

use crate::freshness::invalidation::Invalidation;

diesel::table! {
    cache_invalidations (id) {
        id -> BigInt,
        keys -> Text,
        created_at -> BigInt,
    }
}

/// A kind of database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
}

impl Dialect {
    /// Returns the SQL that makes the table of the ledger, to be included in a migration of the app. The
    /// same text is in the folder `migrations` of this crate. `DROP TABLE cache_invalidations` takes it back.
    #[must_use]
    pub fn migration(self) -> &'static str {
        match self {
            Self::Sqlite => include_str!("../../migrations/sqlite.sql"),
            Self::Postgres => include_str!("../../migrations/postgres.sql"),
            Self::Mysql => include_str!("../../migrations/mysql.sql"),
        }
    }

    /// SQL for the database's own clock, in milliseconds since 1970.
    fn now_millis(self) -> &'static str {
        match self {
            Self::Sqlite => "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
            Self::Postgres => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
            Self::Mysql => "CAST(UNIX_TIMESTAMP(CURRENT_TIMESTAMP(3)) * 1000 AS SIGNED)",
        }
    }

    /// The name of the column `keys`, which is a reserved word in MySQL.
    fn keys(self) -> &'static str {
        match self {
            Self::Sqlite | Self::Postgres => "keys",
            Self::Mysql => "`keys`",
        }
    }
}

/// The invalidations that are not confirmed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Backlog {
    /// The number of rows.
    pub rows: u64,
    /// The age of the oldest.
    pub oldest: Option<Duration>,
}

/// The position of a row in the order of the replay.
#[derive(Clone, Copy, Debug)]
pub struct RowId {
    created_at: i64,
    id: i64,
}

type Row = (dsl::Eq<cache_invalidations::id, i64>, dsl::Eq<cache_invalidations::keys, String>);
type Insert = dsl::Values<dsl::insert_into<cache_invalidations::table>, Row>;
type Rows = SqlLiteral<(BigInt, Text, BigInt)>;
type Count = SqlLiteral<(BigInt, BigInt)>;

/// A connection on which the queries of the ledger run: every connection of Diesel, and every enum of them
/// with `#[derive(MultiConnection)]`.
#[diagnostic::on_unimplemented(
    message = "the ledger cannot be kept over `{Self}`",
    note = "use a connection of Diesel to SQLite, PostgreSQL or MySQL"
)]
pub trait LedgerConnection: Connection + Sized {
    #[doc(hidden)]
    fn insert_row(&mut self, row: Row) -> QueryResult<usize>;
    #[doc(hidden)]
    fn load_rows(&mut self, sql: &str) -> QueryResult<Vec<(i64, String, i64)>>;
    #[doc(hidden)]
    fn load_count(&mut self, sql: &str) -> QueryResult<(i64, i64)>;
    #[doc(hidden)]
    fn execute_text(&mut self, sql: &str) -> QueryResult<usize>;
}

impl<C> LedgerConnection for C
where
    C: Connection,
    Insert: ExecuteDsl<C>,
    SqlLiteral<Untyped>: ExecuteDsl<C>,
    Rows: for<'q> LoadQuery<'q, C, (i64, String, i64)>,
    Count: for<'q> LoadQuery<'q, C, (i64, i64)>,
{
    fn insert_row(&mut self, row: Row) -> QueryResult<usize> {
        diesel::insert_into(cache_invalidations::table).values(row).execute(self)
    }

    fn load_rows(&mut self, text: &str) -> QueryResult<Vec<(i64, String, i64)>> {
        sql::<(BigInt, Text, BigInt)>(text).load(self)
    }

    fn load_count(&mut self, text: &str) -> QueryResult<(i64, i64)> {
        sql::<(BigInt, BigInt)>(text).get_result(self)
    }

    fn execute_text(&mut self, text: &str) -> QueryResult<usize> {
        sql::<Untyped>(text).execute(self)
    }
}

/// Inserts a row in the transaction of a write. Its id is random and never used again.
pub(super) fn insert(
    conn: &mut impl LedgerConnection,
    invalidation: &Invalidation,
) -> QueryResult<RowId> {
    let id: i64 = rand::random();
    conn.insert_row((
        cache_invalidations::id.eq(id),
        cache_invalidations::keys.eq(invalidation.to_text()),
    ))?;
    // The time is set by the database, and only the order of the replay needs it.
    Ok(RowId { created_at: 0, id })
}

/// Lets the present transaction commit without waiting for the disk, where the database can: if it is lost in a
/// crash, its rows are replayed once more, which does no harm.
pub(super) fn do_not_wait_for_disk(
    conn: &mut impl LedgerConnection,
    dialect: Dialect,
) -> QueryResult<()> {
    match dialect {
        Dialect::Postgres => conn.execute_text("SET LOCAL synchronous_commit = off").map(drop),
        Dialect::Sqlite | Dialect::Mysql => Ok(()),
    }
}

/// Deletes rows and returns how many there were.
pub(super) fn remove(conn: &mut impl LedgerConnection, rows: &[RowId]) -> QueryResult<usize> {
    if rows.is_empty() {
        return Ok(0);
    }
    let ids: Vec<_> = rows.iter().map(|row| row.id.to_string()).collect();
    let ids = ids.join(",");
    conn.execute_text(&format!("DELETE FROM cache_invalidations WHERE id IN ({ids})"))
}

/// Returns rows older than `age`, ordered by age and id.
pub(super) fn left(
    conn: &mut impl LedgerConnection,
    dialect: Dialect,
    after: Option<RowId>,
    age: Duration,
    limit: usize,
) -> QueryResult<Vec<(RowId, Invalidation)>> {
    let (keys, now, age) = (dialect.keys(), dialect.now_millis(), age.as_millis());
    let after = after.map_or_else(String::new, |RowId { created_at, id }| {
        format!("AND (created_at > {created_at} OR created_at = {created_at} AND id > {id})")
    });
    let rows = conn.load_rows(&format!(
        // A row from the future was inserted before a clock was set back.
        "SELECT id, {keys}, created_at FROM cache_invalidations \
         WHERE (created_at <= {now} - {age} OR created_at > {now}) {after} \
         ORDER BY created_at, id LIMIT {limit}"
    ))?;
    let rows = rows.into_iter().map(|(id, keys, created_at)| {
        // A text of another program names no keys; the row is removed.
        (RowId { created_at, id }, Invalidation::from_text(&keys).unwrap_or_default())
    });
    Ok(rows.collect())
}

pub(super) fn backlog(conn: &mut impl LedgerConnection, dialect: Dialect) -> QueryResult<Backlog> {
    let now = dialect.now_millis();
    let (rows, oldest) = conn.load_count(&format!(
        "SELECT COUNT(*), COALESCE(MAX({now} - created_at), 0) FROM cache_invalidations"
    ))?;
    let oldest = Duration::from_millis(oldest.try_into().unwrap_or(0));
    Ok(Backlog { rows: rows.try_into().unwrap_or(0), oldest: (rows > 0).then_some(oldest) })
}
