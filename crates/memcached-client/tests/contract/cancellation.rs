//! Operations that are dropped half way disturb no other.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use memcached_client::{Client, Item, Protocol};
use test_support::memcached::{Kind, Memcached};

/// Deterministic, so that a failure can be repeated (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Polls `future` up to so many times, then drops it. How often it was, and whether it was done.
async fn give_up_after<F: Future>(polls: u64, future: F) -> (u64, bool) {
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

async fn check(client: Client, task: u64, rounds: u64) -> BTreeMap<(&'static str, u64), u64> {
    let mut random = Random(task);
    let mut dropped = BTreeMap::new();
    let keys: Vec<_> = (0..8).map(|n| format!("task{task}/{n}")).collect();
    for key in &keys {
        client.set(key, key).await.unwrap();
    }
    for round in 0..rounds {
        let key = &keys[usize::try_from(random.below(8)).unwrap()];
        let polls = random.below(7);
        let (name, (polled, done)) = match random.below(6) {
            0 => ("get", give_up_after(polls, client.get(key)).await),
            1 => ("get_many", give_up_after(polls, client.get_many(&keys)).await),
            2 => ("set", give_up_after(polls, client.set(key, key)).await),
            3 => {
                let items: Vec<_> = keys.iter().map(|key| (key, Item::from(key))).collect();
                ("set_many", give_up_after(polls, client.set_many(&items)).await)
            }
            4 => ("get_with_cas", give_up_after(polls, client.get_with_cas(key)).await),
            _ => ("missing", give_up_after(polls, client.get("nothing")).await),
        };
        if !done {
            *dropped.entry((name, polled)).or_insert(0) += 1;
        }
        let key = &keys[usize::try_from(round % 8).unwrap()];
        let value = client.get(key).await.unwrap().expect("it has been stored");
        assert_eq!(value.data, key.as_bytes(), "the answer to another question");
    }
    dropped
}

async fn the_next_answer_is_right(protocol: Protocol, rounds: u64) {
    const TASKS: u64 = 20;
    let server = Memcached::start(Kind::Plain);
    let client = server.client(protocol);
    let tasks: Vec<_> =
        (0..TASKS).map(|task| tokio::spawn(check(client.clone(), task, rounds / TASKS))).collect();
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
    assert!(dropped.len() >= 6, "operations were dropped at several places: {dropped:?}");
    assert_eq!(client.status()[0].outages, 0, "nothing was taken for an outage");
}

#[tokio::test]
async fn after_a_dropped_operation_the_next_answer_is_right_binary() {
    the_next_answer_is_right(Protocol::Binary, 100_000).await;
}

#[tokio::test]
async fn after_a_dropped_operation_the_next_answer_is_right_text() {
    the_next_answer_is_right(Protocol::Text, 20_000).await;
}
