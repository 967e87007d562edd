//! Dropped operations do not affect others.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use memcached_client::{Client, Item, Protocol};
use test_support::memcached::{Kind, Memcached};

/// Random numbers from Knuth's MMIX generator, which is deterministic so that failures can be
/// repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Polls `future` at most `polls` times, then drops it. Returns how often it was polled, and whether
/// it was complete.
async fn drop_after<F: Future>(polls: u64, future: F) -> (u64, bool) {
    let mut future = pin!(future);
    let mut polled = 0;
    poll_fn(|cx| {
        if polled == polls {
            return Poll::Ready((polled, false));
        }
        polled += 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready((polled, true)),
            Poll::Pending => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    })
    .await
}

/// Drops random operations at random points. After each one, checks that a lookup returns the value of
/// its own key. Returns how often each operation was dropped after each number of polls.
async fn drop_and_check(
    client: Client,
    task: u64,
    rounds: u64,
) -> BTreeMap<(&'static str, u64), u64> {
    let mut random = Random(task);
    let mut dropped = BTreeMap::new();
    let keys: Vec<_> = (0..8).map(|n| format!("task{task}/{n}")).collect();
    for key in &keys {
        client.set(key, key).await.unwrap();
    }
    for round in 0..rounds {
        let key = &keys[usize::try_from(random.below(8)).unwrap()];
        let polls = random.below(7);
        let (name, (polled, done)) = match random.below(7) {
            0 => ("get", drop_after(polls, client.get(key)).await),
            1 => ("get_many", drop_after(polls, client.get_many(&keys)).await),
            2 => ("set", drop_after(polls, client.set(key, key)).await),
            3 => {
                let items: Vec<_> = keys.iter().map(|key| (key, Item::from(key))).collect();
                ("set_many", drop_after(polls, client.set_many(&items)).await)
            }
            4 => ("get_or_reserve", drop_after(polls, client.get_or_reserve(key, key)).await),
            5 => ("get_with_cas", drop_after(polls, client.get_with_cas(key)).await),
            _ => ("missing", drop_after(polls, client.get("nothing")).await),
        };
        if !done {
            *dropped.entry((name, polled)).or_insert(0) += 1;
        }
        let key = &keys[usize::try_from(round % 8).unwrap()];
        let value = client.get(key).await.unwrap().expect("the value was stored");
        assert_eq!(value.data, key.as_bytes(), "the reply belongs to another request");
    }
    dropped
}

async fn drop_operations(kind: Kind, protocol: Protocol, tasks: u64, rounds: u64) {
    let server = Memcached::start(kind);
    let client = server.client(protocol);
    let tasks: Vec<_> = (0..tasks)
        .map(|task| tokio::spawn(drop_and_check(client.clone(), task, rounds / tasks)))
        .collect();
    let mut dropped = BTreeMap::new();
    for task in tasks {
        for (place, count) in task.await.unwrap() {
            *dropped.entry(place).or_insert(0) += count;
        }
    }
    println!(
        "{protocol:?}: {rounds} rounds, dropped at {} places (operation, polls): {dropped:?}",
        dropped.len()
    );
    assert!(dropped.len() >= 6, "operations must be dropped at several places: {dropped:?}");
    assert_eq!(client.status()[0].outages, 0, "a dropped operation is not an outage");
}

#[tokio::test]
async fn binary_replies_are_right_after_operations_were_dropped() {
    drop_operations(Kind::Plain, Protocol::Binary, 20, 100_000).await;
}

#[tokio::test]
async fn meta_replies_are_right_after_operations_were_dropped() {
    drop_operations(Kind::Plain, Protocol::Meta, 20, 100_000).await;
}

#[tokio::test]
async fn text_replies_are_right_after_operations_were_dropped() {
    drop_operations(Kind::Plain, Protocol::Text, 20, 100_000).await;
}

#[tokio::test]
async fn replies_are_right_after_operations_that_were_alone_were_dropped() {
    for kind in [Kind::Plain, Kind::UnixSocket, Kind::Tls] {
        for protocol in [Protocol::Binary, Protocol::Meta] {
            drop_operations(kind, protocol, 1, 5000).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replies_are_right_after_operations_on_several_threads_were_dropped() {
    for protocol in [Protocol::Binary, Protocol::Meta] {
        for tasks in [2, 4, 20] {
            drop_operations(Kind::Plain, protocol, tasks, 10_000).await;
        }
    }
}
