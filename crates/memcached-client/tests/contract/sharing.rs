//! Operations that share a connection: gets of one key share one request, and an operation that is alone, which reads
//! from the socket, delays no other.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use futures_util::{
    future::{join_all, join3},
    poll,
};
use memcached_client::{Client, Config, Deletion, Error, Protocol, Reservation};
use test_support::memcached::{Kind, Memcached};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    select,
    sync::Notify,
    task::{consume_budget, yield_now},
    time::{sleep, timeout},
};

use crate::{
    peers::{Peer, greet, read, response},
    runtime,
};

/// Returns the number of gets that the server has received.
async fn gets(client: &Client) -> u64 {
    let (_, stats) = client.stats().await.remove(0);
    let stats = stats.unwrap();
    stats.iter().find(|(name, _)| name == "cmd_get").unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn concurrent_gets_of_a_key_share_one_request() {
    let server = Memcached::start(Kind::Plain);
    let client = server.client(Protocol::Binary);
    client.set("k", b"value").await.unwrap();
    client.set("other", b"another").await.unwrap();
    let before = gets(&client).await;
    let keys = ["k", "other", "k", "missing", "k", "missing"];
    let found = join_all(keys.map(|key| client.get(key))).await;
    let found: Vec<_> = found.into_iter().map(|value| value.unwrap().map(|v| v.data)).collect();
    let found: Vec<_> = found.iter().map(Option::as_deref).collect();
    let (value, another) = (Some(&b"value"[..]), Some(&b"another"[..]));
    assert_eq!(found, [value, another, value, None, value, None]);
    assert_eq!(gets(&client).await - before, 3);
}

#[tokio::test]
async fn a_get_after_a_delete_does_not_share_an_earlier_get() {
    let server = Memcached::start(Kind::Plain);
    let client = server.client(Protocol::Binary);
    client.set("k", b"value").await.unwrap();
    let (before, deleted, after) =
        join3(client.get("k"), client.delete("k"), client.get("k")).await;
    assert!(before.unwrap().is_some());
    assert_eq!(deleted.unwrap(), Deletion::Deleted);
    assert_eq!(after.unwrap(), None);
}

#[tokio::test]
async fn a_shared_get_survives_the_drop_of_the_first_caller() {
    let server = Memcached::start(Kind::Plain);
    let client = server.client(Protocol::Binary);
    client.set("k", b"value").await.unwrap();
    let mut first = Box::pin(client.get("k"));
    let mut second = Box::pin(client.get("k"));
    // Both requests are pushed, but not answered.
    assert!(poll!(&mut first).is_pending());
    assert!(poll!(&mut second).is_pending());
    drop(first);
    assert_eq!(&second.await.unwrap().unwrap().data[..], b"value");
}

/// The number of operations, one after the other, after which the next one on the same connection is alone.
const BEFORE_ALONE: usize = 10;

/// Longer than any operation of these tests, and shorter than [`patient`]'s deadline.
const SOON: Duration = Duration::from_secs(10);

/// Returns a client for a server that has no operation in flight, whose next one is alone. It would not fail in the
/// time of a test.
async fn patient(mut config: Config) -> Client {
    config.timeout = 100 * SOON;
    let client = Client::new(config);
    for _ in 0..BEFORE_ALONE / 2 {
        client.set("a", b"first").await.unwrap();
        client.set("b", b"second").await.unwrap();
    }
    client
}

/// Every transport on which an operation may be alone.
async fn patient_clients() -> Vec<(Memcached, Client)> {
    let mut clients = Vec::new();
    for (kind, protocol) in [
        (Kind::Plain, Protocol::Binary),
        (Kind::Plain, Protocol::Meta),
        (Kind::Tls, Protocol::Binary),
        (Kind::Tls, Protocol::Meta),
    ] {
        let server = Memcached::start(kind);
        let client = patient(server.config(protocol)).await;
        clients.push((server, client));
    }
    clients
}

#[tokio::test]
async fn an_operation_that_was_alone_and_is_not_polled_again_delays_no_other() {
    for (_server, client) in patient_clients().await {
        let mut alone = Box::pin(client.get("a"));
        assert!(poll!(&mut alone).is_pending());
        let other = timeout(SOON, client.get("b")).await.expect("another task reads");
        assert_eq!(&other.unwrap().unwrap().data[..], b"second");
        assert_eq!(&alone.await.unwrap().unwrap().data[..], b"first");
    }
}

#[tokio::test]
async fn an_operation_that_was_alone_may_be_dropped() {
    for (_server, client) in patient_clients().await {
        for _ in 0..3 {
            for _ in 0..BEFORE_ALONE {
                client.get("b").await.unwrap();
            }
            let mut alone = Box::pin(client.get("a"));
            assert!(poll!(&mut alone).is_pending());
            drop(alone);
            let next = timeout(SOON, client.get("b")).await.expect("its response is read");
            assert_eq!(&next.unwrap().unwrap().data[..], b"second");
        }
    }
}

#[tokio::test]
async fn an_operation_that_is_polled_again_by_another_task_wakes_that_one() {
    for (_server, client) in patient_clients().await {
        let mut alone = Box::pin(async move { client.get("a").await });
        assert!(poll!(&mut alone).is_pending());
        let found = timeout(SOON, tokio::spawn(alone)).await.expect("the task is woken");
        assert_eq!(&found.unwrap().unwrap().unwrap().data[..], b"first");
    }
}

/// Answers a few requests, without a value.
async fn answer(stream: &mut TcpStream, requests: usize) {
    greet(stream).await;
    for _ in 0..requests {
        let Some(request) = read(stream).await else { return };
        stream.write_all(&response(&request, b"")).await.unwrap();
    }
}

/// Answers a few requests, then waits for `end` and ends the connection.
async fn answer_until(end: &Notify, mut stream: TcpStream, requests: usize) {
    answer(&mut stream, requests).await;
    end.notified().await;
    end_at_once(stream).await;
}

/// Ends a connection. A close would take effect later if another test has just forked, until its child calls `exec`.
async fn end_at_once(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
}

/// Yields until the other tasks have run and the runtime has polled its sockets.
async fn let_others_run() {
    for _ in 0..5 {
        yield_now().await;
    }
}

#[tokio::test]
async fn an_operation_that_is_alone_fails_at_its_deadline() {
    let peer =
        Peer::start(async |stream| answer_until(&Notify::new(), stream, BEFORE_ALONE).await).await;
    let mut config = peer.config();
    config.timeout = Duration::from_millis(50);
    let client = Client::new(config);
    for _ in 0..BEFORE_ALONE {
        assert!(client.get("k").await.unwrap().is_some());
    }
    // After the deadlines of these, the connection has no alarm.
    sleep(Duration::from_millis(100)).await;
    let outcome = timeout(SOON, client.get("k")).await.expect("it has a deadline");
    assert!(matches!(outcome, Err(Error::Timeout { .. })), "{outcome:?}");
}

#[tokio::test]
async fn an_operation_that_was_alone_and_is_polled_between_delays_no_other() {
    static GO: Notify = Notify::const_new();
    let peer = Peer::start(async |mut stream| {
        greet(&mut stream).await;
        for number in 0.. {
            if number == BEFORE_ALONE {
                GO.notified().await;
            }
            let Some(request) = read(&mut stream).await else { return };
            stream.write_all(&response(&request, b"")).await.unwrap();
        }
    });
    let peer = peer.await;
    let client = patient(peer.config()).await;
    let mut alone = Box::pin(client.get("a"));
    let mut other = Box::pin(client.get("b"));
    assert!(poll!(&mut alone).is_pending());
    assert!(poll!(&mut other).is_pending());
    let_others_run().await;
    assert!(poll!(&mut alone).is_pending());
    GO.notify_one();
    timeout(SOON, other).await.expect("another task reads").unwrap();
    alone.await.unwrap();
}

/// Counts how often it is woken.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn an_operation_that_was_alone_wakes_its_task_for_another_operation_of_the_same_task() {
    static GO: Notify = Notify::const_new();
    let peer = Peer::start(async |mut stream| {
        answer(&mut stream, BEFORE_ALONE).await;
        let both = [read(&mut stream).await.unwrap(), read(&mut stream).await.unwrap()];
        GO.notified().await;
        let both = both.map(|request| response(&request, b"")).concat();
        stream.write_all(&both).await.unwrap();
        read(&mut stream).await;
    });
    let peer = peer.await;
    let client = patient(peer.config()).await;
    let mut alone = pin!(client.get("a"));
    let mut other = pin!(client.get("b"));
    let counter = Arc::new(Counter::default());
    let waker = Waker::from(Arc::clone(&counter));
    let cx = &mut Context::from_waker(&waker);
    assert!(alone.as_mut().poll(cx).is_pending());
    assert!(other.as_mut().poll(cx).is_pending());
    let_others_run().await;
    GO.notify_one();
    // Both responses arrive, but the connection's task has not yet run.
    yield_now().await;
    assert!(other.as_mut().poll(cx).is_pending());
    let woken = counter.0.load(Ordering::Relaxed);
    let outcome = alone.as_mut().poll(cx);
    let_others_run().await;
    assert!(outcome.is_ready());
    assert!(counter.0.load(Ordering::Relaxed) > woken, "the response to the other has been read");
    assert!(other.as_mut().poll(cx).is_ready());
}

#[test]
fn an_operation_that_was_alone_and_ends_with_the_budget_of_its_task_delays_no_other() {
    let server = Memcached::start(Kind::Plain);
    let runtime = runtime();
    let client = runtime.block_on(patient(server.config(Protocol::Binary)));
    // Tokio's budget is 128 now.
    for spent in 100..150 {
        runtime.block_on(async {
            let mut alone = pin!(client.get("a"));
            let counter = Arc::new(Counter::default());
            let waker = Waker::from(Arc::clone(&counter));
            assert!(alone.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            while counter.0.load(Ordering::Relaxed) == 0 {
                yield_now().await;
            }
            for _ in 0..spent {
                let _ = poll!(pin!(consume_budget()));
            }
            alone.await.unwrap();
        });
        let other = runtime.block_on(async {
            // The time-out comes first: a response that is only read because of it is too late.
            select! { biased; () = sleep(SOON) => None, other = client.get("b") => Some(other) }
        });
        assert!(other.expect("the response wakes a task").unwrap().is_some());
    }
}

#[tokio::test]
async fn a_large_entry_is_found_by_a_reservation_that_is_alone() {
    for (_server, client) in patient_clients().await {
        for length in [32 * 1024, 40_000, 100_000, 500_000] {
            for _ in 0..3 {
                client.set("large", &vec![b'x'; length]).await.unwrap();
                let reserve = client.get_or_reserve("large", "placeholder");
                let outcome = timeout(SOON, reserve).await.expect("all of the response is read");
                let Reservation::Found(found) = outcome.unwrap() else { panic!("it is there") };
                assert_eq!(found.data.len(), length);
            }
        }
    }
}

#[tokio::test]
async fn a_restart_after_an_operation_that_was_alone_is_no_outage() {
    for (mut server, client) in patient_clients().await {
        assert!(client.get("a").await.unwrap().is_some());
        server.restart();
        let_others_run().await;
        let found = timeout(SOON, client.get("a")).await.expect("another connection is opened");
        assert!(found.unwrap().is_none());
        assert_eq!(client.status()[0].outages, 0);
    }
}

#[tokio::test]
async fn a_caller_that_is_alone_sleeps_if_the_rest_of_a_large_value_does_not_arrive() {
    static REST: Notify = Notify::const_new();
    let peer = Peer::start(async |mut stream| {
        answer(&mut stream, BEFORE_ALONE).await;
        let Some(request) = read(&mut stream).await else { return };
        let large = response(&request, &vec![b'x'; 500_000]);
        let (begin, rest) = large.split_at(50_000);
        stream.write_all(begin).await.unwrap();
        REST.notified().await;
        stream.write_all(rest).await.unwrap();
    });
    let peer = peer.await;
    let mut config = peer.config();
    config.timeout = 100 * SOON;
    let client = Client::new(config);
    for _ in 0..BEFORE_ALONE {
        client.get("k").await.unwrap();
    }
    let counter = Arc::new(Counter::default());
    let waker = Waker::from(counter.clone());
    let cx = &mut Context::from_waker(&waker);
    let mut get = pin!(client.get("large"));
    for _ in 0..100 {
        assert!(get.as_mut().poll(cx).is_pending());
        let_others_run().await;
    }
    let woken = counter.0.load(Ordering::Relaxed);
    assert!((1..50).contains(&woken), "it is woken {woken} times");
    REST.notify_one();
    let found = timeout(SOON, get).await.expect("the rest is read").unwrap().unwrap();
    assert_eq!(found.data.len(), 500_000);
}

#[tokio::test]
async fn a_connection_that_is_closed_together_with_a_response_is_replaced() {
    let peer = Peer::start(async |mut stream| {
        answer(&mut stream, BEFORE_ALONE + 1).await;
        end_at_once(stream).await;
    });
    let peer = peer.await;
    let client = Client::new(peer.config());
    for _ in 0..5 * BEFORE_ALONE {
        assert!(client.get("k").await.unwrap().is_some());
    }
    assert_eq!(client.status()[0].outages, 0);
}

#[tokio::test]
async fn a_connection_that_is_closed_after_an_operation_that_was_alone_is_replaced() {
    static END: Notify = Notify::const_new();
    let peer = Peer::start(async |stream| answer_until(&END, stream, BEFORE_ALONE + 1).await).await;
    let client = Client::new(peer.config());
    for is_dropped in [false, true, false, true] {
        for _ in 0..BEFORE_ALONE {
            assert!(client.get("k").await.unwrap().is_some());
        }
        let mut last = Box::pin(client.get("k"));
        assert!(poll!(&mut last).is_pending());
        if is_dropped {
            drop(last);
        } else {
            assert!(last.await.unwrap().is_some());
        }
        let_others_run().await;
        END.notify_one();
        let_others_run().await;
    }
    assert!(client.get("k").await.unwrap().is_some());
    assert_eq!(client.status()[0].outages, 0);
}
