//! Replays the invalidations of writes that were not confirmed: because their process died, or because
//! a server could not be reached.

mod heartbeat;

use std::{fmt::Display, future::Future, time::Duration};

use self::heartbeat::Heartbeat;
use super::invalidation::Invalidation;
use crate::cache::Cache;
#[cfg(feature = "memcached")]
use crate::cache::key::full_key;

/// The pause between two replays.
pub const REPLAY_INTERVAL: Duration = Duration::from_millis(250);

/// The age at which a row of the ledger counts as left behind by its write.
pub const REPLAY_AGE: Duration = Duration::from_millis(250);

/// The largest number of rows that are read at once; most have their keys in common.
const BATCH_SIZE: usize = 1000;

/// The number of unconfirmed rows that are merged into one, so that a replay stays short while a
/// server is away for hours.
const MERGE_THRESHOLD: usize = 100;

/// The rows of invalidations, stored by the app in the database that its entries are made of.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a ledger",
    note = "for a database of Diesel, `Cache::diesel_writer` brings one; for others, implement `Ledger` over a table"
)]
pub trait Ledger: Send + Sync {
    /// The reason that the database cannot be read or written.
    type Error: Display + Send;
    /// Identifies a row. An id is never used again.
    type Id: Clone + Send + Sync;

    /// Returns at most `limit` rows older than `age`, in an order that does not change, starting
    /// after the row `after`.
    fn left(
        &self,
        after: Option<&Self::Id>,
        age: Duration,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(Self::Id, Invalidation)>, Self::Error>> + Send;

    /// Removes rows. A row that does not exist is no error.
    fn remove(&self, ids: &[Self::Id]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Replaces rows by one with `into`, in one transaction. If all of them are removed already, adds
    /// no row.
    fn merge(
        &self,
        ids: &[Self::Id],
        into: &Invalidation,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Replays the rows that are left in the ledger every [`REPLAY_INTERVAL`], for ever. A process that writes
/// does so already ([`Cache::writer`]); spawn it in processes that only read.
///
/// One of all processes reads the ledger, whatever their number: after each replay that has confirmed all rows
/// it adds one to a number in the cache, and the others replay when that number has not changed for a while,
/// or cannot be read. So if that process dies, hangs, or cannot reach a server, another one takes over within
/// half a second.
///
/// The first replay of a process includes rows of any age, because it may reach a server that the
/// writing process could not. An error of the ledger is logged once until it works again.
pub async fn replay<L: Ledger>(cache: Cache, ledger: L) {
    replay_for_ever(&cache, &ledger).await;
}

pub(super) async fn replay_for_ever<L: Ledger>(cache: &Cache, ledger: &L) {
    let (mut has_logged, mut age) = (false, Duration::ZERO);
    let mut heartbeat = Heartbeat::new(cache);
    loop {
        if age > Duration::ZERO && heartbeat.is_anothers(cache).await {
            tokio::time::sleep(REPLAY_INTERVAL).await;
            continue;
        }
        match replay_once(cache, ledger, std::mem::replace(&mut age, REPLAY_AGE)).await {
            Ok(all_confirmed) => {
                has_logged = false;
                // Without a beat the others replay, too: one of them may reach all servers.
                if all_confirmed {
                    heartbeat.beat(cache).await;
                }
            }
            Err(error) if !has_logged => {
                has_logged = true;
                log::warn!("invalidations cannot be replayed: {error}");
            }
            Err(_) => {}
        }
        tokio::time::sleep(REPLAY_INTERVAL).await;
    }
}

/// Replays all rows older than `age`, each with its levels in order, and removes those that are
/// confirmed. Returns whether all are.
///
/// A row that cannot be confirmed yet does not delay the others.
pub async fn replay_once<L: Ledger>(
    cache: &Cache,
    ledger: &L,
    age: Duration,
) -> Result<bool, L::Error> {
    let (mut all_confirmed, mut failed, mut after) = (true, None, None);
    loop {
        let rows = ledger.left(after.as_ref(), age, BATCH_SIZE).await?;
        let is_last = rows.len() < BATCH_SIZE;
        let (ids, invalidations): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let outcomes = cache.invalidate_together(&invalidations).await;
        after = ids.last().cloned();
        let (mut confirmed, mut unconfirmed, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for ((id, invalidation), is_confirmed) in ids.into_iter().zip(invalidations).zip(outcomes) {
            if is_confirmed {
                confirmed.push(id);
            } else {
                unconfirmed.push(id);
                left.push(invalidation);
            }
        }
        all_confirmed &= unconfirmed.is_empty();
        // An error of the ledger is returned at the end: the next rows can be deleted all the same.
        if !confirmed.is_empty() {
            failed = ledger.remove(&confirmed).await.err().or(failed);
        }
        if unconfirmed.len() >= MERGE_THRESHOLD {
            let union = Invalidation::union(&left);
            failed = ledger.merge(&unconfirmed, &union).await.err().or(failed);
        }
        if is_last {
            return failed.map_or(Ok(all_confirmed), Err);
        }
    }
}

/// Deletes the keys of all rows from the server that is about to be used again. Returns whether all
/// deletions are confirmed. The rows stay for [`replay`], which deletes in order on all servers.
#[cfg(feature = "memcached")]
pub(crate) async fn catch_up<L: Ledger>(
    client: &memcached_client::Client,
    prefix: &str,
    ledger: &L,
) -> bool {
    let is_here = |key: &String| client.server_of(key).ok() == client.returning();
    let mut after = None;
    loop {
        let Ok(rows) = ledger.left(after.as_ref(), Duration::ZERO, BATCH_SIZE).await else {
            return false;
        };
        let is_last = rows.len() < BATCH_SIZE;
        let levels = rows.iter().flat_map(|(_, invalidation)| &invalidation.levels);
        let keys: Vec<_> =
            levels.flatten().map(|key| full_key(prefix, key)).filter(is_here).collect();
        if client.delete_many(&keys).await.iter().any(Result::is_err) {
            return false;
        }
        if is_last {
            return true;
        }
        after = rows.into_iter().next_back().map(|(id, _)| id);
    }
}
