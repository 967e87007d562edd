//! Memoized functions: their arguments, their types, and the attribute.

use std::{
    io,
    sync::atomic::{AtomicU32, Ordering},
};

use everfresh::{Cache, Lifetime, Memo, memoize};
use memcached_client::Protocol;
use serde::Serialize;
use test_support::memcached::{Kind, Memcached};

fn cache() -> Cache {
    Cache::memory(1 << 20).build()
}

#[tokio::test]
async fn borrowed_arguments_find_what_was_stored_for_equal_ones() {
    const LENGTH: Memo<(u64, &str, Option<&[u8]>), usize> = Memo::new("length", Lifetime::Forever);
    let cache = cache();
    for name in [String::from("Ada"), "Ada".to_owned()] {
        let bytes = [1, 2];
        let arguments = (7, name.as_str(), Some(&bytes[..]));
        let length = LENGTH.get_with(&cache, &arguments, async || name.len()).await;
        assert_eq!(length, 3);
    }
    assert_eq!(cache.stats()["cache"].hits, 1);
}

#[tokio::test]
async fn a_newtype_of_the_app_is_an_argument() {
    #[derive(Serialize)]
    struct UserId(u128);
    const NAME: Memo<UserId, String> = Memo::new("name", Lifetime::Forever);
    let cache = cache();
    let name =
        async |id: u128| NAME.get_with(&cache, &UserId(id), async || format!("user {id}")).await;
    assert_eq!([name(1).await, name(2).await, name(1).await], ["user 1", "user 2", "user 1"]);
    assert_eq!(NAME.key(&UserId(1)), "name/1");
}

#[tokio::test]
async fn memos_of_one_name_and_different_types_do_not_read_each_others_results() {
    const NUMBER: Memo<u8, u8> = Memo::new("same", Lifetime::Forever);
    const WIDE: Memo<u8, u64> = Memo::new("same", Lifetime::Forever);
    // Each in a cache of its own, as in two processes: a debug build panics otherwise.
    let server = Memcached::start(Kind::Plain);
    let cache = || Cache::memcached(server.client(Protocol::Binary)).build();
    let (one, other) = (cache(), cache());
    assert_eq!(NUMBER.get_with(&one, &1, async || 7).await, 7);
    assert_eq!(WIDE.get_with(&other, &1, async || 8).await, 8);
    assert_eq!(NUMBER.get_with(&one, &1, async || 9).await, 9);
}

#[tokio::test]
#[cfg(debug_assertions)]
#[should_panic(expected = "two memos are named `same`")]
async fn a_debug_build_finds_memos_of_one_name_and_different_types() {
    const ONE: Memo<u8, u8> = Memo::new("same", Lifetime::Forever);
    const OTHER: Memo<u8, String> = Memo::new("same", Lifetime::Forever);
    let cache = cache();
    ONE.get_with(&cache, &1, async || 7).await;
    OTHER.get_with(&cache, &1, async || String::new()).await;
}

static CALLS: AtomicU32 = AtomicU32::new(0);

struct Db;

#[memoize(key(owner, page), lifetime = Lifetime::Forever, groups("tasks"))]
async fn tasks(cache: &Cache, db: &Db, owner: &str, page: u32) -> Result<Vec<String>, io::Error> {
    let Db = db;
    if page == 0 {
        return Err(io::Error::other("pages begin with 1"));
    }
    CALLS.fetch_add(1, Ordering::Relaxed);
    Ok(vec![format!("{owner} {page}")])
}

#[memoize(lifetime = Lifetime::Forever, name = "length")]
async fn consumed(cache: &Cache, text: String) -> usize {
    text.into_bytes().len()
}

#[tokio::test]
async fn a_memoized_function_is_called_once_for_each_key() {
    let cache = cache();
    for page in [1, 1, 2] {
        assert_eq!(tasks(&cache, &Db, "Ada", page).await.unwrap(), [format!("Ada {page}")]);
    }
    assert_eq!(CALLS.load(Ordering::Relaxed), 2);
    assert!(tasks(&cache, &Db, "Ada", 0).await.is_err());

    assert!(TASKS.forget(&cache, &("Ada", 1)).await);
    tasks(&cache, &Db, "Ada", 1).await.unwrap();
    assert_eq!(CALLS.load(Ordering::Relaxed), 3);

    cache.delete(&everfresh::group_key("tasks")).await;
    tasks(&cache, &Db, "Ada", 2).await.unwrap();
    assert_eq!(CALLS.load(Ordering::Relaxed), 4);
}

#[memoize(key(id), lifetime = Lifetime::Forever)]
async fn with_an_argument_named_key(cache: &Cache, key: u32, id: u32) -> (u32, u32) {
    (key, id)
}

#[tokio::test]
async fn an_argument_of_a_memoized_function_may_have_any_name() {
    assert_eq!(with_an_argument_named_key(&cache(), 1, 2).await, (1, 2));
}

#[tokio::test]
#[cfg(debug_assertions)]
#[should_panic(expected = "take a BTreeSet")]
async fn a_debug_build_finds_a_memo_of_an_unordered_set() {
    const TAGGED: Memo<std::collections::HashSet<u8>, u8> = Memo::new("tagged", Lifetime::Forever);
    TAGGED.get_with(&cache(), &[1, 2].into(), async || 7).await;
}

#[tokio::test]
async fn a_memoized_function_may_consume_its_arguments() {
    let cache = cache();
    assert_eq!(consumed(&cache, "four".to_owned()).await, 4);
    assert_eq!(CONSUMED.key(&"four".to_owned()), "length/four");
}
