//! Contract suites: a test calls them with a cache, a ledger or a session store of its own.

#![allow(clippy::expect_used, clippy::missing_panics_doc, reason = "a failed check is a panic")]

use std::time::{Duration, Instant};

use crate::{
    cache::{Cache, lifetime::Lifetime},
    freshness::{invalidation::Invalidation, replay::Ledger},
};

/// The time after which the suite gives up waiting for a condition.
const WAIT_LIMIT: Duration = Duration::from_secs(20);

/// Whether a cache stores entries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keeps {
    /// The cache stores entries.
    Everything,
    /// The cache stores no entries: it is the null cache, or its backend cannot be reached.
    Nothing,
}

/// Runs every check on `cache`, which must be empty, and leaves it empty. Panics at the first check
/// that fails.
pub async fn backend_suite(cache: &Cache, keeps: Keeps) {
    let kept = keeps == Keeps::Everything;
    values_are_read_as_they_were_stored(cache, kept).await;
    a_stored_none_is_not_a_miss(cache, kept).await;
    batches_keep_their_order(cache, kept).await;
    add_stores_only_if_the_key_is_free(cache, kept).await;
    a_lifetime_ends(cache, kept).await;
    numbers_are_counted(cache, kept).await;
    a_computed_value_is_stored(cache, kept).await;
    a_value_deleted_during_its_computation_is_not_stored(cache).await;
    an_error_is_not_stored(cache, kept).await;
    missing_values_are_computed_together(cache, kept).await;
    clear_deletes_all_entries(cache, kept).await;
}

async fn get(cache: &Cache, key: &str) -> Option<String> {
    cache.get(key).await
}

fn if_kept(kept: bool, text: &str) -> Option<String> {
    kept.then(|| text.to_owned())
}

async fn values_are_read_as_they_were_stored(cache: &Cache, kept: bool) {
    assert_eq!(get(cache, "k").await, None, "the cache is empty at first");
    cache.set("k", &"one", Lifetime::Default).await;
    cache.set("k", &"two", Lifetime::Default).await;
    assert_eq!(get(cache, "k").await, if_kept(kept, "two"), "the last value is read");
    assert_eq!(cache.get::<u64>("k").await, None, "a value of another type is a miss");
    cache.delete("k").await;
    assert_eq!(get(cache, "k").await, None, "a deleted entry is gone");
}

async fn a_stored_none_is_not_a_miss(cache: &Cache, kept: bool) {
    cache.set("none", &None::<String>, Lifetime::Default).await;
    cache.set("empty", &Vec::<u64>::new(), Lifetime::Default).await;
    assert_eq!(cache.get::<Option<String>>("none").await, kept.then_some(None));
    assert_eq!(cache.get::<Vec<u64>>("empty").await, kept.then(Vec::new));
    cache.delete_many(&["none", "empty"]).await;
}

async fn batches_keep_their_order(cache: &Cache, kept: bool) {
    let stored = cache.set_many(&[("a", 1), ("b", 2)], Lifetime::Default).await;
    assert_eq!(stored.len(), 2);
    let found = cache.get_many::<i32>(&["b", "nothing", "a"]).await;
    assert_eq!(found, [Some(2), None, Some(1)].map(|value| value.filter(|_| kept)));
    cache.delete_many(&["a", "b"]).await;
    assert_eq!(cache.get_many::<i32>(&["a", "b"]).await, [None, None]);
}

async fn add_stores_only_if_the_key_is_free(cache: &Cache, kept: bool) {
    assert_eq!(cache.add("k", &"first", Lifetime::Default).await, kept);
    assert!(!cache.add("k", &"second", Lifetime::Default).await);
    assert_eq!(get(cache, "k").await, if_kept(kept, "first"));
    assert_eq!(cache.replace("k", &"third", Lifetime::Default).await, kept);
    assert_eq!(get(cache, "k").await, if_kept(kept, "third"));
    assert!(!cache.replace("nothing", &"value", Lifetime::Default).await);
    assert_eq!(cache.contains("k").await, kept);
    assert!(!cache.contains("nothing").await);
    cache.delete("k").await;
}

async fn a_lifetime_ends(cache: &Cache, kept: bool) {
    let second = Lifetime::For(Duration::from_secs(1));
    // memcached counts seconds by its own clock: a lifetime of one second may end at once.
    let begun = Instant::now();
    let is_touched = loop {
        cache.set("touched", &"v", second).await;
        let is_touched = cache.touch("touched", Lifetime::Forever).await;
        if is_touched || !kept || begun.elapsed() > WAIT_LIMIT {
            break is_touched;
        }
    };
    assert_eq!(is_touched, kept);
    cache.set("short", &"v", second).await;
    cache.set("zero", &"v", Lifetime::For(Duration::ZERO)).await;
    assert!(!cache.touch("nothing", Lifetime::Forever).await);
    assert_eq!(get(cache, "zero").await, None, "a lifetime of zero is not for ever");
    let waiting = tokio::time::timeout(WAIT_LIMIT, async {
        while get(cache, "short").await.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waiting.await.is_ok(), "an entry expires");
    assert_eq!(get(cache, "touched").await, if_kept(kept, "v"));
    cache.delete("touched").await;
}

async fn numbers_are_counted(cache: &Cache, kept: bool) {
    let n = cache.counter("n");
    assert_eq!(n.get().await, None);
    assert_eq!(n.increment(40).await, kept.then_some(40));
    assert_eq!(n.increment(2).await, kept.then_some(42));
    assert_eq!(n.get().await, kept.then_some(42));
    assert_eq!(n.decrement(50).await, kept.then_some(0), "a number is never below 0");
    assert_eq!(get(cache, "n").await, None, "a number is no other value");
    assert_eq!(n.set(u64::MAX).await, kept);
    assert_eq!(n.increment(1).await, kept.then_some(0), "a number wraps around");
    n.delete().await;
    assert_eq!(n.get().await, None);
    let from_seven = cache.counter("n").initial(7);
    assert_eq!(from_seven.decrement(2).await, kept.then_some(5));
    assert_eq!(from_seven.decrement(2).await, kept.then_some(3));
    let counted = cache.increment_counters(&[("n", 1), ("m", 5)], Lifetime::Default).await;
    assert_eq!(counted, [Some(4), Some(5)].map(|number| number.filter(|_| kept)));
    let read = cache.read_counters(&["m", "nothing", "n"]).await;
    assert_eq!(read, [Some(5), None, Some(4)].map(|number| number.filter(|_| kept)));
    let short = cache.counter("short").lifetime(Lifetime::For(Duration::from_secs(1)));
    short.increment(1).await;
    let waiting = tokio::time::timeout(WAIT_LIMIT, async {
        while short.get().await.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waiting.await.is_ok(), "a counter expires");
    for key in ["n", "m"] {
        cache.counter(key).delete().await;
    }
}

async fn a_computed_value_is_stored(cache: &Cache, kept: bool) {
    let compute = async |n: u64| {
        cache.get_or_compute("computed", Lifetime::Default, async || Ok::<_, ()>(n)).await
    };
    assert_eq!(compute(1).await, Ok(1));
    assert_eq!(compute(2).await, Ok(if kept { 1 } else { 2 }));
    cache.delete("computed").await;
    assert_eq!(compute(3).await, Ok(3));
    cache.delete("computed").await;
}

async fn a_value_deleted_during_its_computation_is_not_stored(cache: &Cache) {
    let compute = async || {
        cache.delete("raced").await;
        Ok::<_, ()>("read before the write")
    };
    let value = cache
        .get_or_compute("raced", Lifetime::Default, async || compute().await.map(str::to_owned));
    assert_eq!(value.await, Ok("read before the write".to_owned()));
    assert_eq!(get(cache, "raced").await, None, "a value that may be out of date is not stored");
}

async fn an_error_is_not_stored(cache: &Cache, kept: bool) {
    let fails = async || Err::<String, _>("no database");
    let failed = cache.get_or_compute("failed", Lifetime::Default, fails).await;
    assert_eq!(failed, Err("no database"));
    let works = async || Ok::<_, ()>("value".to_owned());
    assert_eq!(
        cache.get_or_compute("failed", Lifetime::Default, works).await.as_deref(),
        Ok("value")
    );
    assert_eq!(get(cache, "failed").await, if_kept(kept, "value"), "the lease was released");
    cache.delete("failed").await;
}

async fn missing_values_are_computed_together(cache: &Cache, kept: bool) {
    cache.set("a", &1, Lifetime::Default).await;
    let compute = async |missing: &[&str]| {
        assert_eq!(missing.len(), if kept { 2 } else { 3 });
        Ok::<_, ()>([("c", 3), ("a", 4)])
    };
    let values = cache.get_or_compute_many(&["a", "b", "c"], Lifetime::Default, compute).await;
    assert_eq!(values, Ok(vec![Some(if kept { 1 } else { 4 }), None, Some(3)]));
    assert_eq!(cache.get("c").await, kept.then_some(3));
    let renewed = cache.renew("a", Lifetime::Default, async || Ok::<_, ()>(5)).await;
    assert_eq!((renewed, cache.get("a").await), (Ok(5), kept.then_some(5)));
    cache.delete_many(&["a", "c"]).await;
}

async fn clear_deletes_all_entries(cache: &Cache, kept: bool) {
    cache.set("k", &"v", Lifetime::Default).await;
    assert_eq!(get(cache, "k").await, if_kept(kept, "v"));
    cache.clear().await;
    assert_eq!(get(cache, "k").await, None);
}

/// Runs every check of a ledger on `ledger`, which must be empty, and leaves it empty. `insert` inserts a
/// row, as in the transaction of a write. Panics at the first check that fails.
pub async fn ledger_suite<L: Ledger>(ledger: &L, insert: impl AsyncFn(Invalidation)) {
    let keys = ["two words", "it's", r"a\b", "50%", "line\nbreak", "\u{e9}", ""];
    let first = Invalidation::of(keys).then(["view//?page=2"]);
    assert_eq!(left(ledger, Duration::ZERO, 10).await.len(), 0, "the ledger is empty at first");
    insert(first.clone()).await;
    let rows = left(ledger, Duration::ZERO, 10).await;
    let (id, found) = rows.first().cloned().expect("the row was inserted");
    assert_eq!(found, first, "an invalidation is read as it was stored");
    let day = Duration::from_secs(24 * 60 * 60);
    assert_eq!(left(ledger, day, 10).await.len(), 0, "a young row is left to its write");

    ledger.remove(std::slice::from_ref(&id)).await.map_err(text).expect("the row is there");
    assert_eq!(left(ledger, Duration::ZERO, 10).await.len(), 0, "the row is removed");
    ledger.remove(&[id]).await.map_err(text).expect("a row that is gone is no error");

    let inserted: Vec<_> = (0..5).map(|n| Invalidation::of([format!("k{n}")])).collect();
    for invalidation in &inserted {
        insert(invalidation.clone()).await;
    }
    let rows = left(ledger, Duration::ZERO, 2).await;
    let mut found: Vec<_> = rows.iter().map(|(_, found)| found.clone()).collect();
    found.sort_by_key(Invalidation::to_text);
    assert_eq!(found, inserted, "each row is found once, over several reads");

    let merged = Invalidation::of(["merged"]);
    let (ids, _): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    ledger.merge(&ids, &merged).await.map_err(text).expect("rows can be merged");
    let rows = left(ledger, Duration::ZERO, 10).await;
    let (rest, found): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    assert_eq!(found, std::slice::from_ref(&merged), "one row takes the place of all");
    ledger.merge(&ids, &merged).await.map_err(text).expect("rows that are gone are no error");
    assert_eq!(left(ledger, Duration::ZERO, 10).await.len(), 1, "settled rows do not come back");
    ledger.remove(&rest).await.map_err(text).expect("the row is there");
    assert_eq!(left(ledger, Duration::ZERO, 10).await.len(), 0);
}

/// Reads all rows, at most `limit` at once.
async fn left<L: Ledger>(ledger: &L, age: Duration, limit: usize) -> Vec<(L::Id, Invalidation)> {
    let mut all: Vec<(L::Id, Invalidation)> = Vec::new();
    loop {
        let after = all.last().map(|(id, _)| id.clone());
        let rows = ledger.left(after.as_ref(), age, limit).await;
        let rows = rows.map_err(text).expect("the ledger can be read");
        assert!(rows.len() <= limit, "a read has a limit");
        let is_last = rows.len() < limit;
        all.extend(rows);
        if is_last {
            return all;
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Runs every check of a session store on `store`. Panics at the first check that fails.
///
/// `keeps` says whether the store can be reached; if not, it must answer with empty sessions.
#[cfg(feature = "session")]
pub async fn session_suite<S: actix_session::storage::SessionStore>(store: &S, keeps: Keeps) {
    use std::collections::HashMap;

    use actix_web::cookie::time;

    let kept = keeps == Keeps::Everything;
    let ttl = time::Duration::hours(1);
    let state = |text: &str| HashMap::from([("name".to_owned(), text.to_owned())]);
    let key = store.save(state("one"), &ttl).await.expect("a store never fails a request");
    assert!(key.as_ref().len() >= 32, "a session key cannot be guessed");
    assert_eq!(seen(store, &key, keeps).await, kept.then(|| state("one")));
    let other = store.save(state("other"), &ttl).await.expect("a store never fails a request");
    assert_ne!(key.as_ref(), other.as_ref());

    let key = store.update(key, state("two"), &ttl).await.expect("a store never fails a request");
    assert_eq!(seen(store, &key, keeps).await, kept.then(|| state("two")), "a change is read");
    store.update_ttl(&key, &ttl).await.expect("a store never fails a request");
    assert_eq!(
        seen(store, &key, keeps).await,
        kept.then(|| state("two")),
        "a longer lifetime changes no state"
    );
    assert_eq!(
        seen(store, &other, keeps).await,
        kept.then(|| state("other")),
        "other sessions stay as they are"
    );

    let mut without_store = state("three");
    without_store.insert(crate::session::UNAVAILABLE.to_owned(), "true".to_owned());
    let key = store.update(key, without_store, &ttl).await.expect("a store never fails a request");
    assert_eq!(
        seen(store, &key, keeps).await,
        kept.then(|| state("two")),
        "an outage overwrites nothing"
    );

    store.delete(&key).await.expect("a store never fails a request");
    assert_eq!(seen(store, &key, keeps).await, None, "a deleted entry is gone");
    let old = key.as_ref().to_owned();
    let key = store.update(key, state("late"), &ttl).await.expect("a store never fails a request");
    if kept {
        assert_ne!(key.as_ref(), old, "a deleted session does not come back under its key");
    }
    assert_eq!(seen(store, &key, keeps).await, kept.then(|| state("late")));
    assert_eq!(
        seen(store, &other, keeps).await,
        kept.then(|| state("other")),
        "other sessions stay as they are"
    );
}

/// Loads a session; `None` if the store does not have it or cannot be reached.
#[cfg(feature = "session")]
async fn seen<S: actix_session::storage::SessionStore>(
    store: &S,
    key: &actix_session::storage::SessionKey,
    keeps: Keeps,
) -> Option<std::collections::HashMap<String, String>> {
    let loaded = store.load(key).await.expect("a store never fails a request");
    if keeps == Keeps::Nothing {
        let loaded = loaded.as_ref().expect("an outage does not look like an ended session");
        assert!(loaded.contains_key(crate::session::UNAVAILABLE), "an outage can be told");
    }
    loaded.filter(|state| !state.contains_key(crate::session::UNAVAILABLE))
}
