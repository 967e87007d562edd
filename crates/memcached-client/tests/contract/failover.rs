//! Servers that are killed, hang and come back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use memcached_client::{Client, Error, Failover, Item, Protocol, ServerState};
use test_support::{
    memcached::{Kind, Memcached, config_of},
    wait::{PATIENCE, eventually},
};

use crate::runtime;

/// Time beyond a deadline that is accepted because the machine may be busy.
const SLACK: Duration = Duration::from_secs(2);

/// Time-out of operations on servers that hang.
const TIMEOUT: Duration = Duration::from_millis(250);

/// Returns a key that lives on `server`.
fn key_on(client: &Client, server: &Memcached) -> String {
    (0..10_000)
        .map(|n| format!("key{n}"))
        .find(|k| *client.server_of(k).unwrap() == server.address())
        .unwrap()
}

async fn wait_until_up(client: &Client, key: &str) {
    eventually("the server is used again", async || client.get(key).await.is_ok()).await;
}

#[tokio::test]
async fn operations_on_a_killed_server_fail_at_once_until_it_is_back() {
    for protocol in [Protocol::Binary, Protocol::Text] {
        let mut server = Memcached::start(Kind::Plain);
        let client = server.client(protocol);
        client.set("k", "v").await.unwrap();
        server.kill();
        eventually("the client notices", async || client.get("k").await.is_err()).await;
        for _ in 0..1000 {
            assert!(matches!(client.get("k").await, Err(Error::ServerDown(_))), "{protocol:?}");
        }
        assert!(matches!(client.status()[0].state, ServerState::Down { .. }));
        assert!(server.run());
        wait_until_up(&client, "k").await;
        assert_eq!(client.status()[0].state, ServerState::Up);
        assert_eq!(client.status()[0].outages, 1);
    }
}

#[tokio::test]
async fn operations_on_a_hung_server_wait_only_once() {
    for protocol in [Protocol::Binary, Protocol::Text] {
        let server = Memcached::start(Kind::Plain);
        let client = server.hasty_client(protocol, TIMEOUT);
        eventually("the server is used", async || client.set("k", "v").await.is_ok()).await;
        server.signal("STOP");
        let begun = Instant::now();
        let waiting = (0..50).map(|_| client.get("k"));
        for answer in futures_util::future::join_all(waiting).await {
            assert!(answer.is_err_and(|error| error.is_outage()), "{protocol:?}");
        }
        assert!(begun.elapsed() < TIMEOUT + SLACK, "{:?}", begun.elapsed());
        for _ in 0..1000 {
            assert!(matches!(client.get("k").await, Err(Error::ServerDown(_))));
        }
        server.signal("CONT");
        wait_until_up(&client, "k").await;
        eventually("the stored value is returned", async || {
            client.get("k").await.is_ok_and(|found| found.is_some_and(|found| found.data == "v"))
        })
        .await;
    }
}

#[tokio::test]
async fn a_server_that_starts_late_is_used() {
    for protocol in [Protocol::Binary, Protocol::Text] {
        let mut server = Memcached::start(Kind::Plain);
        server.kill();
        let client = server.client(protocol);
        assert!(matches!(client.get("k").await, Err(Error::Connection { .. })), "{protocol:?}");
        assert!(matches!(client.get("k").await, Err(Error::ServerDown(_))), "{protocol:?}");
        assert!(server.run());
        wait_until_up(&client, "k").await;
    }
}

#[tokio::test]
async fn a_hung_connect_does_not_exceed_the_deadline_of_operations() {
    for protocol in [Protocol::Binary, Protocol::Text] {
        let server = Memcached::start(Kind::Plain);
        server.signal("STOP");
        let mut config = server.config(protocol);
        config.timeout = TIMEOUT;
        config.connect_timeout = 300 * SLACK;
        let (client, begun) = (Client::new(config), Instant::now());
        assert!(matches!(client.get("k").await, Err(Error::Timeout { .. })), "{protocol:?}");
        assert!(begun.elapsed() < TIMEOUT + SLACK, "{:?}", begun.elapsed());
        assert!(matches!(client.get("k").await, Err(Error::ServerDown(_))), "{protocol:?}");
        server.signal("CONT");
        wait_until_up(&client, "k").await;
    }
}

#[tokio::test]
async fn a_restarted_server_is_used_again() {
    let mut server = Memcached::start(Kind::Plain);
    let client = server.client(Protocol::Binary);
    client.set("k", "v").await.unwrap();
    server.restart();
    wait_until_up(&client, "k").await;
    assert_eq!(client.get("k").await.unwrap(), None);
}

#[tokio::test]
async fn by_default_only_the_keys_of_a_dead_server_fail() {
    let mut servers: Vec<_> = (0..3).map(|_| Memcached::start(Kind::Plain)).collect();
    let client = Client::new(config_of(&servers));
    let keys: Vec<_> = servers.iter().map(|server| key_on(&client, server)).collect();
    for key in &keys {
        client.set(key, key).await.unwrap();
    }
    servers[1].kill();
    eventually("the client notices", async || client.get(&keys[1]).await.is_err()).await;
    for _ in 0..100 {
        assert!(matches!(client.get(&keys[1]).await, Err(Error::ServerDown(_))));
        assert!(client.get(&keys[0]).await.unwrap().is_some());
        let all = client.get_many(&keys).await;
        assert!(all[0].is_ok() && all[1].is_err() && all[2].is_ok(), "{all:?}");
    }
    servers[1].run();
    wait_until_up(&client, &keys[1]).await;
}

#[tokio::test]
async fn with_eject_the_keys_of_a_dead_server_move_for_a_short_time() {
    let mut servers: Vec<_> = (0..3).map(|_| Memcached::start(Kind::Plain)).collect();
    let mut config = config_of(&servers);
    config.failover = Failover::Eject;
    let client = Client::new(config);
    let key = key_on(&client, &servers[0]);
    servers[0].kill();
    eventually("the key moves", async || client.set(&key, "moved").await.is_ok()).await;
    assert_eq!(client.get(&key).await.unwrap().unwrap().data, "moved");
    eventually("the value on the other server has expired", async || {
        client.get(&key).await.unwrap().is_none()
    })
    .await;
    servers[0].run();
    eventually("the key has moved back", async || {
        client.set(&key, "home").await.is_ok() && servers[0].stat("curr_items") == 1
    })
    .await;
}

#[tokio::test]
async fn with_all_servers_down_every_operation_fails_at_once() {
    let mut servers: Vec<_> = (0..2).map(|_| Memcached::start(Kind::Plain)).collect();
    for failover in [Failover::Miss, Failover::Eject] {
        let mut config = config_of(&servers);
        config.failover = failover;
        let client = Client::new(config);
        let keys: Vec<_> = servers.iter().map(|server| key_on(&client, server)).collect();
        servers.iter_mut().for_each(Memcached::kill);
        eventually("all servers are down", async || {
            let all = client.get_many(&keys).await;
            all.iter().all(|answer| matches!(answer, Err(Error::ServerDown(_))))
        })
        .await;
        assert!(matches!(client.set(&keys[0], "v").await, Err(Error::ServerDown(_))));
        let items = [(&keys[0], Item::from("v"))];
        assert!(matches!(client.set_many(&items).await[0], Err(Error::ServerDown(_))));
        assert!(client.flush().await.iter().all(|(_, answer)| answer.is_err()));
        for server in &mut servers {
            assert!(server.run());
        }
        wait_until_up(&client, &keys[0]).await;
        wait_until_up(&client, &keys[1]).await;
    }
}

#[tokio::test]
async fn operations_end_by_their_deadline_during_hangs_and_restarts() {
    let mut server = Memcached::start(Kind::Plain);
    let client = server.hasty_client(Protocol::Binary, TIMEOUT);
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..20)
        .map(|n| {
            let (client, stop) = (client.clone(), stop.clone());
            tokio::spawn(async move {
                let mut longest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let _ = client.set(format!("k{n}"), "v").await;
                    let _ = client.get(format!("k{n}")).await;
                    longest = longest.max(begun.elapsed());
                    tokio::task::yield_now().await;
                }
                longest
            })
        })
        .collect();
    for _ in 0..3 {
        wait_until_up(&client, "k").await;
        server.signal("STOP");
        eventually("the server is down", async || client.get("k").await.is_err()).await;
        server.signal("CONT");
        wait_until_up(&client, "k").await;
        server.restart();
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        let longest = task.await.unwrap();
        assert!(longest < 2 * TIMEOUT + SLACK, "{longest:?}");
    }
}

#[tokio::test]
async fn the_hook_succeeds_before_a_server_is_used_again() {
    let mut server = Memcached::start(Kind::Plain);
    let runs = Arc::new(AtomicU32::new(0));
    let (counted, mut config) = (runs.clone(), server.config(Protocol::Binary));
    config.retry_timeout = Duration::from_millis(1);
    let client = Client::with_hook(config, move |client| {
        let runs = counted.clone();
        async move {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            // The hook can use the server already. It fails the first time.
            client.set("hook", &run.to_string()).await.is_ok() && run > 0
        }
    });
    client.set("k", "v").await.unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 0, "the hook does not run at the first connection");
    server.restart();
    wait_until_up(&client, "k").await;
    assert_eq!(runs.load(Ordering::Relaxed), 2, "the hook runs again after a failure");
    assert_eq!(client.get("hook").await.unwrap().unwrap().data, "1");
}

#[test]
fn another_runtime_takes_over_the_probe_of_one_that_has_ended() {
    let mut server = Memcached::start(Kind::Plain);
    server.kill();
    let client = server.client(Protocol::Binary);
    runtime().block_on(async {
        client.get("k").await.unwrap_err();
    });
    assert!(server.run());
    runtime().block_on(wait_until_up(&client, "k"));
}

#[test]
fn a_runtime_that_only_sends_operations_still_probes() {
    let mut server = Memcached::start(Kind::Plain);
    let (client, runtime) = (server.client(Protocol::Binary), runtime());
    runtime.block_on(client.set("k", "v")).unwrap();
    server.restart();
    let begun = Instant::now();
    while runtime.block_on(client.get("k")).is_err() {
        assert!(begun.elapsed() < PATIENCE, "timed out waiting until the server is used again");
    }
}

#[test]
fn another_runtime_takes_over_the_probe_of_one_that_is_stuck() {
    let mut server = Memcached::start(Kind::Plain);
    server.kill();
    let mut config = server.config(Protocol::Binary);
    config.connect_timeout = Duration::from_millis(100);
    let client = Client::new(config);
    let stuck = runtime();
    stuck.block_on(async { client.get("k").await.unwrap_err() });
    assert!(server.run());
    runtime().block_on(wait_until_up(&client, "k"));
}

#[tokio::test]
async fn a_hook_that_panics_runs_again_after_a_pause() {
    let mut server = Memcached::start(Kind::Plain);
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let client = Client::with_hook(server.config(Protocol::Binary), move |_| {
        let run = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            assert!(run > 1, "the hook panics twice on purpose");
            true
        }
    });
    client.set("k", "v").await.unwrap();
    server.restart();
    wait_until_up(&client, "k").await;
    assert_eq!(runs.load(Ordering::Relaxed), 3, "requests do not run the hook");
}

#[test]
fn operations_during_the_shutdown_of_a_runtime_do_not_block_it() {
    let server = Memcached::start(Kind::Plain);
    for is_open in [true, false] {
        let (client, runtime) = (server.client(Protocol::Binary), runtime());
        if is_open {
            runtime.block_on(client.set("k", "v")).unwrap();
        }
        let (handle, other_client) = (runtime.handle().clone(), client.clone());
        let (entered_sender, entered) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let _guard = handle.enter();
            entered_sender.send(()).unwrap();
            let mut polls = 0;
            for _ in 0..10_000 {
                let get = std::pin::pin!(other_client.get("k"));
                // Polled once, on a runtime that ends during the loop.
                let waker = futures_util::task::noop_waker();
                let _ = get.poll(&mut std::task::Context::from_waker(&waker));
                polls += 1;
            }
            polls
        });
        entered.recv().unwrap();
        drop(runtime);
        assert_eq!(thread.join().unwrap(), 10_000);
    }
}

#[test]
fn an_operation_on_a_runtime_that_has_ended_fails() {
    let server = Memcached::start(Kind::Plain);
    for protocol in [Protocol::Binary, Protocol::Meta] {
        let (client, ended) = (server.client(protocol), runtime());
        let handle = ended.handle().clone();
        drop(ended);
        let _guard = handle.enter();
        let outcome = client.get("k").now_or_never().expect("it does not wait");
        assert!(matches!(outcome, Err(Error::Connection { .. })), "{outcome:?}");
    }
}

#[test]
fn a_runtime_that_ends_closes_its_connections_and_keeps_counters() {
    let server = Memcached::start(Kind::Plain);
    for protocol in [Protocol::Binary, Protocol::Text] {
        let client = server.client(protocol);
        for _ in 0..5 {
            runtime().block_on(client.set("k", "v")).unwrap();
        }
        let closed = async || server.stat("curr_connections") == 1;
        runtime().block_on(eventually("the connections are closed", closed));
        assert_eq!(client.status()[0].sets, 5, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_busy_thread_is_not_an_outage() {
    let server = Memcached::start(Kind::Plain);
    let client = server.hasty_client(Protocol::Binary, TIMEOUT);
    eventually("the server is used", async || client.set("k", "v").await.is_ok()).await;
    let (gets, outages) = (server.stat("cmd_get"), client.status()[0].outages);
    let get = tokio::spawn({
        let client = client.clone();
        async move { client.get("k").await }
    });
    tokio::task::yield_now().await;
    // Block the thread for longer than the deadline, while the server answers.
    let begun = Instant::now();
    while begun.elapsed() < 2 * TIMEOUT || server.stat("cmd_get") == gets {
        assert!(begun.elapsed() < PATIENCE, "the server gets no request");
    }
    assert!(get.await.unwrap().unwrap().is_some());
    assert_eq!(client.status()[0].outages, outages);
}
