//! Making entries go when what they were made of has changed, also when this process dies half way
//! or a server cannot be reached.
//!
//! A write keeps, in its own transaction, a row with the keys that it makes wrong: its
//! [`Invalidation`]. After the commit it hands that to [`Cache::invalidate`], and removes the row
//! if all is certain. Rows that are left are replayed by [`replay`], in every process.

use std::{collections::BTreeSet, fmt::Display, future::Future, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{cache::Cache, cache::key::append_escaped};

/// How often left rows are looked for.
pub const REPLAY_INTERVAL: Duration = Duration::from_millis(250);

/// How old a row is before it counts as left by its write.
pub const REPLAY_AGE: Duration = Duration::from_millis(250);

/// Rows that are replayed at once: most have their keys in common.
const BATCH: usize = 1000;

/// So many rows that cannot be confirmed become one: while a server is away for hours, what is
/// left of all writes is not looked through again and again.
const MERGED: usize = 100;

/// The keys that a write makes wrong, level by level: what other entries are made of comes first.
///
/// ```
/// use everfresh::Invalidation;
///
/// let invalidation = Invalidation::of(["tasks.all"]).then(["view//"]);
/// assert_eq!(Invalidation::from_text(&invalidation.to_text()), Some(invalidation));
/// ```
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Invalidation {
    levels: Vec<Vec<String>>,
}

impl Invalidation {
    /// The innermost keys.
    #[must_use]
    pub fn of<K: Into<String>>(keys: impl IntoIterator<Item = K>) -> Self {
        Self::default().then(keys)
    }

    /// The keys of entries that are made of those named before.
    #[must_use]
    pub fn then<K: Into<String>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        let keys: Vec<_> = keys.into_iter().map(Into::into).collect();
        if !keys.is_empty() {
            self.levels.push(keys);
        }
        self
    }

    /// For a text column: a line per level, keys separated by blanks. What a key holds of these is
    /// percent-encoded.
    #[must_use]
    pub fn to_text(&self) -> String {
        let line =
            |keys: &Vec<String>| keys.iter().map(|k| escape(k)).collect::<Vec<_>>().join(" ");
        self.levels.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// All keys of several, each on its level.
    fn union(invalidations: &[Self]) -> Self {
        let depth = invalidations.iter().map(|i| i.levels.len()).max().unwrap_or(0);
        let level = |level| {
            let keys = invalidations.iter().filter_map(|i| i.levels.get(level)).flatten();
            keys.cloned().collect::<BTreeSet<_>>().into_iter().collect()
        };
        Self { levels: (0..depth).map(level).collect() }
    }

    /// Reads [`Invalidation::to_text`]; `None` if it is not such a text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let line = |line: &str| line.split(' ').map(unescape).collect::<Option<Vec<_>>>();
        let levels = text.split('\n').filter(|line| !line.is_empty()).map(line);
        Some(Self { levels: levels.collect::<Option<_>>()? })
    }
}

/// Stands for a key without a character.
const EMPTY: &str = "%";

fn escape(key: &str) -> String {
    if key.is_empty() {
        return EMPTY.to_owned();
    }
    let mut escaped = String::with_capacity(key.len());
    append_escaped(&mut escaped, key, None);
    escaped
}

fn unescape(text: &str) -> Option<String> {
    if text == EMPTY {
        return Some(String::new());
    }
    let mut parts = text.split('%');
    let mut key = parts.next()?.to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        key.push(char::from(u8::from_str_radix(digits, 16).ok()?));
        key.push_str(rest);
    }
    (!key.is_empty()).then_some(key)
}

/// Where the app keeps the rows: in the same database as what is cached.
pub trait Ledger: Send + Sync {
    /// Why it cannot be asked.
    type Error: Display + Send;
    /// What a row is named by; never used again for another.
    type Id: Clone + Send + Sync;

    /// At most `limit` rows that are older than `age`, in one order that does not change, and only
    /// those that come after the row `after` in it.
    fn left(
        &self,
        after: Option<&Self::Id>,
        age: Duration,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(Self::Id, Invalidation)>, Self::Error>> + Send;

    /// Removes rows. That one is gone already is no error.
    fn remove(&self, ids: &[Self::Id]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Removes rows and stores `into` in their place, in one transaction; only removes if all of
    /// them are gone already.
    fn merge(
        &self,
        ids: &[Self::Id],
        into: &Invalidation,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

impl Cache {
    /// Deletes the entries, each level before the next: all in one round trip if they are on one
    /// server, which keeps the order, else each level confirmed before the next is sent. Whether all
    /// of it is certain; if it is not, the row must stay.
    ///
    /// A level that cannot be confirmed does not hold up the others: what a server that is away
    /// holds must not keep pages on another one stale. The replay puts it all in order.
    pub async fn invalidate(&self, invalidation: &Invalidation) -> bool {
        let all: Vec<_> =
            invalidation.levels.iter().flatten().map(|key| self.full_key(key)).collect();
        if self.backend().keeps_order(&all) {
            return self.delete_full(&all).await.into_iter().all(|is_certain| is_certain);
        }
        let mut certain = true;
        for keys in &invalidation.levels {
            let keys: Vec<_> = keys.iter().map(String::as_str).collect();
            certain &= self.delete_many(&keys).await;
        }
        certain
    }
}

impl Cache {
    /// Likewise of several invalidations, which mostly have keys in common: the first levels of all,
    /// then the second ones, and so on. Whether each is certain.
    async fn invalidate_together(&self, invalidations: &[Invalidation]) -> Vec<bool> {
        let union = Invalidation::union(invalidations);
        let mut uncertain = BTreeSet::new();
        for keys in &union.levels {
            let keys: Vec<_> = keys.iter().map(String::as_str).collect();
            let outcomes = self.delete_each(&keys).await;
            uncertain.extend(keys.iter().zip(outcomes).filter(|(_, ok)| !ok).map(|(key, _)| *key));
        }
        let is_certain = |invalidation: &Invalidation| {
            let mut keys = invalidation.levels.iter().flatten();
            keys.all(|key| !uncertain.contains(key.as_str()))
        };
        invalidations.iter().map(is_certain).collect()
    }
}

/// Replays every [`REPLAY_INTERVAL`] what is left in the ledger, from now on and for ever: spawn
/// it. It begins with all that is there, whatever its age: this process may find a server that
/// those who wrote could not reach. An error of the ledger is logged once until it works again.
pub async fn replay<L: Ledger>(cache: Cache, ledger: L) {
    let (mut has_complained, mut age) = (false, Duration::ZERO);
    loop {
        match replay_once(&cache, &ledger, std::mem::replace(&mut age, REPLAY_AGE)).await {
            Ok(_) => has_complained = false,
            Err(error) if !has_complained => {
                has_complained = true;
                log::warn!("invalidations cannot be replayed: {error}");
            }
            Err(_) => {}
        }
        tokio::time::sleep(REPLAY_INTERVAL).await;
    }
}

/// Replays all that has been left for longer than `age`, each row in its order, and removes what
/// is certain then. Whether nothing is left.
///
/// What cannot be made certain yet holds up nothing else.
pub async fn replay_once<L: Ledger>(
    cache: &Cache,
    ledger: &L,
    age: Duration,
) -> Result<bool, L::Error> {
    let (mut nothing_left, mut failed, mut after) = (true, None, None);
    loop {
        let rows = ledger.left(after.as_ref(), age, BATCH).await?;
        let is_last = rows.len() < BATCH;
        let (ids, invalidations): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let outcomes = cache.invalidate_together(&invalidations).await;
        after = ids.last().cloned();
        let (mut certain, mut uncertain, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for ((id, invalidation), is_certain) in ids.into_iter().zip(invalidations).zip(outcomes) {
            if is_certain {
                certain.push(id);
            } else {
                uncertain.push(id);
                left.push(invalidation);
            }
        }
        nothing_left &= uncertain.is_empty();
        if !certain.is_empty() {
            failed = ledger.remove(&certain).await.err().or(failed);
        }
        if uncertain.len() >= MERGED {
            let union = Invalidation::union(&left);
            failed = ledger.merge(&uncertain, &union).await.err().or(failed);
        }
        if is_last {
            return failed.map_or(Ok(nothing_left), Err);
        }
    }
}

/// Deletes from the server that is about to be used again what is left in the ledger. Whether all
/// of it is certain; the rows stay for [`replay`], which deletes in order on all servers.
#[cfg(feature = "memcached")]
pub(crate) async fn catch_up<L: Ledger>(
    client: &memcached_client::Client,
    prefix: &str,
    ledger: &L,
) -> bool {
    let is_here = |key: &String| client.server_of(key).ok() == client.returning();
    let mut after = None;
    loop {
        let Ok(rows) = ledger.left(after.as_ref(), Duration::ZERO, BATCH).await else {
            return false;
        };
        let is_last = rows.len() < BATCH;
        let levels = rows.iter().flat_map(|(_, invalidation)| &invalidation.levels);
        let keys: Vec<_> =
            levels.flatten().map(|key| [prefix, key].concat()).filter(is_here).collect();
        if client.delete_many(&keys).await.iter().any(Result::is_err) {
            return false;
        }
        if is_last {
            return true;
        }
        after = rows.into_iter().next_back().map(|(id, _)| id);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_read_as_it_was_written_whatever_the_keys_hold(
            levels in prop::collection::vec(prop::collection::vec(any::<String>(), 1..4), 0..4),
        ) {
            let invalidation = Invalidation { levels };
            prop_assert_eq!(Invalidation::from_text(&invalidation.to_text()), Some(invalidation));
        }

        #[test]
        fn a_union_has_each_key_on_the_levels_that_it_had(
            levels in prop::collection::vec(prop::collection::vec(any::<String>(), 0..4), 0..4),
            others in prop::collection::vec(prop::collection::vec(any::<String>(), 0..4), 0..4),
        ) {
            let pair = [Invalidation { levels }, Invalidation { levels: others }];
            let union = Invalidation::union(&pair);
            for invalidation in &pair {
                for (keys, all) in invalidation.levels.iter().zip(&union.levels) {
                    prop_assert!(keys.iter().all(|key| all.contains(key)));
                }
                prop_assert!(invalidation.levels.len() <= union.levels.len());
            }
            let keys = |i: &Invalidation| i.levels.iter().flatten().count();
            prop_assert!(keys(&union) <= keys(&pair[0]) + keys(&pair[1]));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[%a-f0-9 \n\u{e9}]{0,20}") {
            let _ = Invalidation::from_text(&text);
        }
    }
}
