//! The table `cache_invalidations`: what writes have made wrong in the cache, until that is certain
//! to be gone.

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

/// Stores a row, in the transaction of the write; returns its id, which is random and never used
/// again.
pub(crate) fn insert(conn: &mut DbConnection, invalidation: &Invalidation) -> QueryResult<i64> {
    let id: i64 = rand::random();
    diesel::insert_into(cache_invalidations::table)
        .values((
            cache_invalidations::id.eq(id),
            cache_invalidations::keys.eq(invalidation.to_text()),
        ))
        .execute(conn)?;
    Ok(id)
}

/// Takes rows whose invalidation is certain out of the ledger, those of many writes in one
/// transaction. Nobody waits for it: a row that stays is replayed, which does no harm.
#[derive(Clone, Debug)]
pub(crate) struct Settled(UnboundedSender<i64>);

/// How long rows are gathered: long enough for a busy process, and far from
/// [`everfresh::REPLAY_AGE`], when other processes take a row for left.
const GATHERED: Duration = Duration::from_millis(10);

/// So many rows at once at most.
const TOGETHER: usize = 1000;

impl Settled {
    /// Works on the current Actix system until that stops.
    pub(crate) fn start(db: Db) -> Self {
        let (sender, mut settled) = mpsc::unbounded_channel();
        rt::spawn(async move {
            let mut rows = Vec::new();
            while settled.recv_many(&mut rows, TOGETHER).await > 0 {
                sleep(GATHERED).await;
                while rows.len() < TOGETHER
                    && let Ok(row) = settled.try_recv()
                {
                    rows.push(row);
                }
                let together = std::mem::take(&mut rows);
                if let Err(error) = db.write(move |conn| remove(conn, &together)).await {
                    log::warn!("rows stay in cache_invalidations for now: {error}");
                }
            }
        });
        Self(sender)
    }

    pub(crate) fn remove(&self, row: i64) {
        // Without a receiver the process is about to end.
        let _ = self.0.send(row);
    }
}

/// How many of them were there.
fn remove(conn: &mut DbConnection, rows: &[i64]) -> QueryResult<usize> {
    let rows = cache_invalidations::id.eq_any(rows.iter().copied());
    diesel::delete(cache_invalidations::table.filter(rows)).execute(conn)
}

/// How many rows there are, and how old the oldest is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backlog {
    pub(crate) rows: i64,
    pub(crate) oldest: Option<Duration>,
}

pub(crate) fn backlog(conn: &mut DbConnection) -> QueryResult<Backlog> {
    let now = conn.now_millis();
    let rows = cache_invalidations::table.count().get_result(conn)?;
    let ages = cache_invalidations::table.order(cache_invalidations::created_at);
    let age = sql::<BigInt>(&format!("{now} - created_at"));
    let oldest: Option<i64> = ages.select(age).first(conn).optional()?;
    let oldest = oldest.map(|millis| Duration::from_millis(millis.try_into().unwrap_or(0)));
    Ok(Backlog { rows, oldest })
}

/// The ledger for the replay, by age and then by id.
#[derive(Clone, Debug)]
pub(crate) struct DbLedger(pub(crate) Db);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    created_at: i64,
    id: i64,
}

impl Ledger for DbLedger {
    type Error = DbError;
    type Id = Row;

    async fn left(
        &self,
        after: Option<&Row>,
        age: Duration,
        limit: usize,
    ) -> Result<Vec<(Row, Invalidation)>, DbError> {
        let after = after.copied();
        let rows = self.0.run(move |conn| older_than(conn, after, age, limit)).await?;
        let rows = rows.into_iter().map(|(id, keys, created_at)| {
            // A text that is none is somebody else's doing, and would stay for ever.
            let invalidation = Invalidation::from_text(&keys).unwrap_or_default();
            (Row { created_at, id }, invalidation)
        });
        Ok(rows.collect())
    }

    async fn remove(&self, rows: &[Row]) -> Result<(), DbError> {
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        self.0.write(move |conn| remove(conn, &ids)).await.map(drop)
    }

    async fn merge(&self, rows: &[Row], into: &Invalidation) -> Result<(), DbError> {
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
    after: Option<Row>,
    age: Duration,
    limit: usize,
) -> QueryResult<Vec<(i64, String, i64)>> {
    use self::cache_invalidations::dsl::{cache_invalidations, created_at, id};

    let (now, age) = (conn.now_millis(), age.as_millis());
    // Of the future are rows from before a clock was set back.
    let is_old = sql::<Bool>(&format!("(created_at <= {now} - {age} OR created_at > {now})"));
    let after = after.unwrap_or(Row { created_at: i64::MIN, id: i64::MIN });
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
