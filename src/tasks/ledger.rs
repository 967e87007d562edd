//! The table `cache_invalidations`: the keys of entries that writes have made wrong, until their
//! deletion is confirmed.

use std::time::Duration;

use actix_web::rt::{self, time::sleep};
use diesel::{
    dsl::sql,
    prelude::*,
    sql_types::{BigInt, Bool},
};
use everfresh::{Invalidation, Ledger};
use tokio::sync::mpsc::{self, UnboundedSender};

use crate::db::{Db, DbConnection, DbError};

diesel::table! {
    cache_invalidations (id) {
        id -> BigInt,
        keys -> Text,
        created_at -> BigInt,
    }
}

/// Inserts a row in the transaction of a write. Returns its id, which is random and never used again.
pub(super) fn insert(conn: &mut DbConnection, invalidation: &Invalidation) -> QueryResult<i64> {
    let id: i64 = rand::random();
    diesel::insert_into(cache_invalidations::table)
        .values((
            cache_invalidations::id.eq(id),
            cache_invalidations::keys.eq(invalidation.to_text()),
        ))
        .execute(conn)?;
    Ok(id)
}

/// Removes the rows of confirmed invalidations, those of many writes in one transaction. Requests do
/// not wait for it: a row that is left is replayed, which does no harm.
#[derive(Clone, Debug)]
pub(super) struct LedgerCleaner(UnboundedSender<i64>);

/// The time for which rows are collected before they are removed: long enough for a busy process, and
/// far from [`everfresh::REPLAY_AGE`], after which other processes replay a row.
const BATCH_WINDOW: Duration = Duration::from_millis(10);

/// The largest number of rows removed in one transaction.
const MAX_BATCH: usize = 1000;

impl LedgerCleaner {
    /// Starts a task that ends with the current Actix system.
    pub(super) fn start(db: Db) -> Self {
        let (sender, mut confirmed) = mpsc::unbounded_channel();
        rt::spawn(async move {
            let mut rows = Vec::new();
            while confirmed.recv_many(&mut rows, MAX_BATCH).await > 0 {
                sleep(BATCH_WINDOW).await;
                while rows.len() < MAX_BATCH
                    && let Ok(row) = confirmed.try_recv()
                {
                    rows.push(row);
                }
                let batch = std::mem::take(&mut rows);
                if let Err(error) = db.write(move |conn| remove(conn, &batch)).await {
                    log::warn!("rows stay in cache_invalidations for now: {error}");
                }
            }
        });
        Self(sender)
    }

    pub(super) fn remove(&self, row: i64) {
        // Without a receiver the process is about to end, and the row is replayed.
        let _ = self.0.send(row);
    }
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
