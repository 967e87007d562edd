//! Servers that die, hang and come back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use memcached_client::{Client, Error, Failover, Item, Protocol, ServerState};
use test_support::{
    memcached::{Kind, Memcached, config_of},
    wait::{PATIENCE, eventually},
};

/// Beyond its deadline an operation may take as long as a busy machine needs to notice.
const SLACK: Duration = Duration::from_secs(2);

/// For operations on servers that hang.
const TIMEOUT: Duration = Duration::from_millis(250);

/// A key that lives on that server.
fn key_on(client: &Client, server: &Memcached) -> String {
    (0..10_000)
        .map(|n| format!("key{n}"))
        .find(|k| *client.server_of(k).unwrap() == server.address())
        .unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn is_back(client: &Client, key: &str) {
    eventually("the server is used again", async || client.get(key).await.is_ok()).await;
}

#[tokio::test]
async fn a_killed_server_costs_one_failure_and_then_nobody_waits_until_it_is_back() {
    for protocol in [Protocol::Binary, Protocol::Text] {
        let mut server = Memcached::start(Kind::Plain);
        let client = server.client(protocol);
        client.set("k", "v").await.unwrap();
        server.kill();
        eventually("it is noticed", async || client.get("k").await.is_err()).await;
        for _ in 0..1000 {
            assert!(matches!(client.get("k").await, Err(Error::ServerDown(_))), "{protocol:?}");
        }
        assert!(matches!(client.status()[0].state, ServerState::Down { .. }));
        assert!(server.run());
        is_back(&client, "k").await;
        assert_eq!(client.status()[0].state, ServerState::Up);
        assert_eq!(client.status()[0].outages, 1);
    }
}

#[tokio::test]
async fn a_hung_server_costs_one_deadline_and_then_nobody_waits_until_it_is_back() {
    for protocol in [Protocol::Binary, Protocol::Text] {
        let server = Memcached::start(Kind::Plain);
        let client = server.hasty_client(protocol, TIMEOUT);
        eventually("it is used", async || client.set("k", "v").await.is_ok()).await;
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
        is_back(&client, "k").await;
        eventually("what was stored is there", async || {
            client.get("k").await.is_ok_and(|found| found.is_some_and(|found| found.data == "v"))
        })
        .await;
    }
}

#[tokio::test]
async fn a_server_that_was_never_there_is_used_when_it_comes() {
    for protocol in [Protocol::Binary, Protocol::Text] {
        let mut server = Memcached::start(Kind::Plain);
        server.kill();
        let client = server.client(protocol);
        assert!(matches!(client.get("k").await, Err(Error::Connection { .. })), "{protocol:?}");
        assert!(matches!(client.get("k").await, Err(Error::ServerDown(_))), "{protocol:?}");
        assert!(server.run());
        is_back(&client, "k").await;
    }
}

#[tokio::test]
async fn a_server_that_hangs_before_the_first_connection_holds_nobody_past_the_deadline() {
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
        is_back(&client, "k").await;
    }
}

#[tokio::test]
async fn a_restarted_server_is_used_again_at_once() {
    let mut server = Memcached::start(Kind::Plain);
    let client = server.client(Protocol::Binary);
    client.set("k", "v").await.unwrap();
    server.restart();
    is_back(&client, "k").await;
    assert_eq!(client.get("k").await.unwrap(), None);
}

#[tokio::test]
async fn by_default_the_keys_of_a_dead_server_are_misses_and_the_others_go_on() {
    let mut servers: Vec<_> = (0..3).map(|_| Memcached::start(Kind::Plain)).collect();
    let client = Client::new(config_of(&servers));
    let keys: Vec<_> = servers.iter().map(|server| key_on(&client, server)).collect();
    for key in &keys {
        client.set(key, key).await.unwrap();
    }
    servers[1].kill();
    eventually("it is noticed", async || client.get(&keys[1]).await.is_err()).await;
    for _ in 0..100 {
        assert!(matches!(client.get(&keys[1]).await, Err(Error::ServerDown(_))));
        assert!(client.get(&keys[0]).await.unwrap().is_some());
        let all = client.get_many(&keys).await;
        assert!(all[0].is_ok() && all[1].is_err() && all[2].is_ok(), "{all:?}");
    }
    servers[1].run();
    is_back(&client, &keys[1]).await;
}

#[tokio::test]
async fn when_told_to_eject_the_keys_move_to_a_neighbour_for_a_short_while() {
    let mut servers: Vec<_> = (0..3).map(|_| Memcached::start(Kind::Plain)).collect();
    let mut config = config_of(&servers);
    config.failover = Failover::Eject;
    let client = Client::new(config);
    let key = key_on(&client, &servers[0]);
    servers[0].kill();
    eventually("it moves", async || client.set(&key, "moved").await.is_ok()).await;
    assert_eq!(client.get(&key).await.unwrap().unwrap().data, "moved");
    eventually("the neighbour has let go of it", async || {
        client.get(&key).await.unwrap().is_none()
    })
    .await;
    servers[0].run();
    eventually("it has moved back", async || {
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
        eventually("all are out", async || {
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
        is_back(&client, &keys[0]).await;
        is_back(&client, &keys[1]).await;
    }
}

#[tokio::test]
async fn no_operation_takes_longer_than_its_deadline_whatever_happens_to_the_server() {
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
        is_back(&client, "k").await;
        server.signal("STOP");
        eventually("it is out", async || client.get("k").await.is_err()).await;
        server.signal("CONT");
        is_back(&client, "k").await;
        server.restart();
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        let longest = task.await.unwrap();
        assert!(longest < 2 * TIMEOUT + SLACK, "{longest:?}");
    }
}

#[tokio::test]
async fn what_must_come_first_is_done_before_a_server_is_used_again() {
    let mut server = Memcached::start(Kind::Plain);
    let runs = Arc::new(AtomicU32::new(0));
    let (counted, mut config) = (runs.clone(), server.config(Protocol::Binary));
    config.retry_timeout = Duration::from_millis(1);
    let client = Client::with_hook(config, move |client| {
        let runs = counted.clone();
        async move {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            // The hook can use the server before anybody else; the first time it fails.
            client.set("hook", &run.to_string()).await.is_ok() && run > 0
        }
    });
    client.set("k", "v").await.unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 0, "not at the first connection");
    server.restart();
    is_back(&client, "k").await;
    assert_eq!(runs.load(Ordering::Relaxed), 2, "again after it had failed");
    assert_eq!(client.get("hook").await.unwrap().unwrap().data, "1");
}

#[test]
fn a_probe_whose_runtime_has_ended_is_taken_up_by_another() {
    let mut server = Memcached::start(Kind::Plain);
    server.kill();
    let client = server.client(Protocol::Binary);
    runtime().block_on(async {
        client.get("k").await.unwrap_err();
    });
    assert!(server.run());
    runtime().block_on(is_back(&client, "k"));
}

#[test]
fn a_runtime_that_does_nothing_but_ask_finds_the_server_again() {
    let mut server = Memcached::start(Kind::Plain);
    let (client, runtime) = (server.client(Protocol::Binary), runtime());
    runtime.block_on(client.set("k", "v")).unwrap();
    server.restart();
    let begun = Instant::now();
    while runtime.block_on(client.get("k")).is_err() {
        assert!(begun.elapsed() < PATIENCE, "it is never found again");
    }
}

#[test]
fn a_probe_on_a_runtime_that_is_stuck_is_taken_over_by_another() {
    let mut server = Memcached::start(Kind::Plain);
    server.kill();
    let mut config = server.config(Protocol::Binary);
    config.connect_timeout = Duration::from_millis(100);
    let client = Client::new(config);
    let stuck = runtime();
    stuck.block_on(async { client.get("k").await.unwrap_err() });
    assert!(server.run());
    runtime().block_on(is_back(&client, "k"));
}

#[tokio::test]
async fn a_hook_that_panics_is_run_again_after_a_pause() {
    let mut server = Memcached::start(Kind::Plain);
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let client = Client::with_hook(server.config(Protocol::Binary), move |_| {
        let run = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            assert!(run > 1, "the hook panics twice, as it should");
            true
        }
    });
    client.set("k", "v").await.unwrap();
    server.restart();
    is_back(&client, "k").await;
    assert_eq!(runs.load(Ordering::Relaxed), 3, "and not once for each request meanwhile");
}

#[test]
fn what_is_asked_while_a_runtime_shuts_down_does_not_hold_it_up() {
    let server = Memcached::start(Kind::Plain);
    for is_open in [true, false] {
        let (client, runtime) = (server.client(Protocol::Binary), runtime());
        if is_open {
            runtime.block_on(client.set("k", "v")).unwrap();
        }
        let (handle, asking) = (runtime.handle().clone(), client.clone());
        let (say_inside, inside) = std::sync::mpsc::channel();
        let asker = std::thread::spawn(move || {
            let _inside = handle.enter();
            say_inside.send(()).unwrap();
            let mut answers = 0;
            for _ in 0..10_000 {
                let get = std::pin::pin!(asking.get("k"));
                // Polled once, on a runtime that is there at first and then no more.
                let waker = futures_util::task::noop_waker();
                let _ = get.poll(&mut std::task::Context::from_waker(&waker));
                answers += 1;
            }
            answers
        });
        inside.recv().unwrap();
        drop(runtime);
        assert_eq!(asker.join().unwrap(), 10_000);
    }
}

#[test]
fn a_runtime_that_has_ended_leaves_no_connection_behind_and_what_it_counted_stays() {
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
async fn a_busy_thread_is_not_taken_for_a_dead_server() {
    let server = Memcached::start(Kind::Plain);
    let client = server.hasty_client(Protocol::Binary, TIMEOUT);
    eventually("it is used", async || client.set("k", "v").await.is_ok()).await;
    let (gets, outages) = (server.stat("cmd_get"), client.status()[0].outages);
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.get("k").await }
    });
    tokio::task::yield_now().await;
    // The thread has other things to do for longer than an operation may take, while the server
    // answers.
    let begun = Instant::now();
    while begun.elapsed() < 2 * TIMEOUT || server.stat("cmd_get") == gets {
        assert!(begun.elapsed() < PATIENCE, "it is not asked");
    }
    assert!(asking.await.unwrap().unwrap().is_some());
    assert_eq!(client.status()[0].outages, outages);
}
