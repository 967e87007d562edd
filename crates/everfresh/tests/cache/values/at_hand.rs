//! Results that processes keep in decoded form.

use everfresh::{AtHand, Cache, Lifetime, Memo};
use memcached_client::Protocol;
use test_support::memcached::{Kind, Memcached};

const WORDS: Memo<u32, Vec<String>> = Memo::new("words", Lifetime::Forever);

/// A process that shares the server with others.
fn process(server: &Memcached) -> Cache {
    Cache::memcached(server.client(Protocol::Binary)).secret("a secret of all processes").build()
}

/// The result for one argument; `word` if it has to be computed.
async fn words(cache: &Cache, argument: u32, word: &str) -> AtHand<Vec<String>> {
    let compute = async || Ok::<_, ()>(vec![word.to_owned()]);
    let words = WORDS.at_hand(cache, &argument, compute).await.unwrap();
    // Its answer comes after those of the stores, which nothing waits for.
    cache.get::<u32>("another").await;
    words
}

#[tokio::test]
async fn a_result_is_kept_and_each_call_confirms_it() {
    let server = Memcached::start(Kind::Plain);
    let cache = process(&server);
    let first = words(&cache, 1, "old").await;
    let before = server.stat("get_hits");
    let second = words(&cache, 1, "new").await;
    assert!(std::ptr::eq(&raw const first[0], &raw const second[0]), "the same value");
    assert_eq!(server.stat("get_hits") - before, 1);
    assert!(WORDS.forget(&cache, &1).await);
    let third = words(&cache, 1, "new").await;
    assert_eq!(third[0], "new");
    assert_ne!(third.digest(), second.digest());
}

#[tokio::test]
async fn another_process_reads_the_result_and_keeps_it() {
    let server = Memcached::start(Kind::Plain);
    let first = words(&process(&server), 1, "word").await;
    let other = process(&server);
    let second = words(&other, 1, "computed again").await;
    assert_eq!((&second[..], second.digest()), (&first[..], first.digest()));
    let before = server.stat("get_hits");
    words(&other, 1, "computed again").await;
    assert_eq!(server.stat("get_hits") - before, 1, "its bytes are read once");
}

#[tokio::test]
async fn bytes_that_were_exchanged_are_not_used() {
    let server = Memcached::start(Kind::Plain);
    let cache = process(&server);
    for argument in [1, 2] {
        words(&cache, argument, &format!("word {argument}")).await;
    }
    let client = server.client(Protocol::Binary);
    let keys: Vec<_> = server.keys().into_iter().filter(|key| key.contains("%value/")).collect();
    let [one, two] = [&keys[0], &keys[1]];
    let bytes = client.get(one).await.unwrap().unwrap().data;
    client.set(two, &bytes[..]).await.unwrap();
    let damaged = [&bytes[..1], b"!"].concat();
    client.set(one, &damaged[..]).await.unwrap();
    let other = process(&server);
    for argument in [1, 2] {
        assert_eq!(words(&other, argument, "computed again").await[0], "computed again");
    }
}

#[tokio::test]
async fn a_process_that_keeps_nothing_reads_the_whole_result() {
    let server = Memcached::start(Kind::Plain);
    let cache = Cache::memcached(server.client(Protocol::Binary)).near(0).build();
    let first = words(&cache, 1, "word").await;
    let second = words(&cache, 1, "computed again").await;
    assert_eq!((&second[..], second.digest()), (&first[..], None));
    assert!(!std::ptr::eq(&raw const first[0], &raw const second[0]));
}
