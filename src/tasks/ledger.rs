//! The table `cache_invalidations`: the keys of entries that writes have made wrong, until their
//! deletion is confirmed.

use std::time::Duration;

use diesel::{
    dsl::sql,
    prelude::*,
    sql_types::{BigInt, Bool},
};
use everfresh::{Invalidation, Ledger};

use crate::db::{Db, DbConnection, DbError};

diesel::table! {
    cache_invalidations (id) {
        id -> BigInt,
        keys -> Text,
        created_at -> BigInt,
    }
}

/// Inserts a row in the transaction of a write. Its id is random and never used again.
pub(super) fn insert(conn: &mut DbConnection, invalidation: &Invalidation) -> QueryResult<RowId> {
    let id: i64 = rand::random();
    diesel::insert_into(cache_invalidations::table)
        .values((
            cache_invalidations::id.eq(id),
            cache_invalidations::keys.eq(invalidation.to_text()),
        ))
        .execute(conn)?;
    // The time is set by the database, and only the order of the replay needs it.
    Ok(RowId { created_at: 0, id })
}

/// Deletes rows and returns how many there were.
fn remove(conn: &mut DbConnection, rows: &[i64]) -> QueryResult<usize> {
    let rows = cache_invalidations::id.eq_any(rows.iter().copied());
    diesel::delete(cache_invalidations::table.filter(rows)).execute(conn)
}

/// The number of unconfirmed invalidations and the age of the oldest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backlog {
    pub(crate) rows: i64,
    pub(crate) oldest: Option<Duration>,
}

pub(super) fn backlog(conn: &mut DbConnection) -> QueryResult<Backlog> {
    let now = conn.now_millis();
    let rows = cache_invalidations::table.count().get_result(conn)?;
    let by_age = cache_invalidations::table.order(cache_invalidations::created_at);
    let age = sql::<BigInt>(&format!("{now} - created_at"));
    let oldest: Option<i64> = by_age.select(age).first(conn).optional()?;
    let oldest = oldest.map(|millis| Duration::from_millis(millis.try_into().unwrap_or(0)));
    Ok(Backlog { rows, oldest })
}

/// The ledger for the replay, ordered by age and id.
#[derive(Clone, Debug)]
pub(crate) struct DbLedger(pub(crate) Db);

/// The position of a row in the order of the replay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowId {
    created_at: i64,
    id: i64,
}

impl Ledger for DbLedger {
    type Error = DbError;
    type Id = RowId;

    async fn left(
        &self,
        after: Option<&RowId>,
        age: Duration,
        limit: usize,
    ) -> Result<Vec<(RowId, Invalidation)>, DbError> {
        let after = after.copied();
        let rows = self.0.read(move |conn| older_than(conn, after, age, limit)).await?;
        let rows = rows.into_iter().map(|(id, keys, created_at)| {
            // A text that the app has not written names no keys; the row is removed.
            let invalidation = Invalidation::from_text(&keys).unwrap_or_default();
            (RowId { created_at, id }, invalidation)
        });
        Ok(rows.collect())
    }

    async fn remove(&self, rows: &[RowId]) -> Result<(), DbError> {
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        self.0.write(move |conn| remove(conn, &ids)).await.map(drop)
    }

    async fn merge(&self, rows: &[RowId], into: &Invalidation) -> Result<(), DbError> {
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        let into = into.clone();
        let merge = move |conn: &mut DbConnection| match remove(conn, &ids)? {
            0 => Ok(()),
            _ => insert(conn, &into).map(drop),
        };
        self.0.write(merge).await
    }
}

fn older_than(
    conn: &mut DbConnection,
    after: Option<RowId>,
    age: Duration,
    limit: usize,
) -> QueryResult<Vec<(i64, String, i64)>> {
    use self::cache_invalidations::dsl::{cache_invalidations, created_at, id};

    let (now, age) = (conn.now_millis(), age.as_millis());
    // A row from the future was inserted before a clock was set back.
    let is_old = sql::<Bool>(&format!("(created_at <= {now} - {age} OR created_at > {now})"));
    let after = after.unwrap_or(RowId { created_at: i64::MIN, id: i64::MIN });
    cache_invalidations
        .filter(is_old)
        .filter(
            created_at
                .gt(after.created_at)
                .or(created_at.eq(after.created_at).and(id.gt(after.id))),
        )
        .order((created_at, id))
        .limit(limit.try_into().unwrap_or(i64::MAX))
        .load(conn)
}
