//! Tests of the thread on which a page is rendered.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{ThreadId, available_parallelism, current},
    time::{Duration, Instant},
};

use everfresh::{Cache, Templates};
use futures_util::future::join_all;
use tera::{Context, Kwargs, State, Tera};
use test_support::wait::eventually;

const LONG: Duration = Duration::from_millis(2);
const PAGE: &str = "{{ work() }}x";
const WITH_FRAGMENT: &str = "{% cache none, \"x\", of=1 %}x{% endcache %}";

/// Templates with a page that calls `work`. Another one has a fragment: templates without any need no renderer.
fn page(work: impl Fn() + Send + Sync + 'static) -> Templates {
    let mut tera = Tera::default();
    tera.register_function("work", move |_: Kwargs, _: &State| {
        work();
        ""
    });
    Templates::new(tera, [("page.html", PAGE), ("other.html", WITH_FRAGMENT)]).unwrap()
}

fn caches() -> [Cache; 2] {
    [Cache::memory(1 << 20).build(), Cache::null().build()]
}

async fn render(templates: &Templates, cache: &Cache) {
    assert_eq!(templates.render(cache, "page.html", &Context::new()).await.unwrap(), "x");
}

/// Takes the processor for at least `time`.
fn spin(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Renders a page twice. Returns the threads.
async fn threads(cache: &Cache, time: Duration) -> Vec<ThreadId> {
    let threads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&threads);
    let templates = page(move || {
        spin(time);
        seen.lock().unwrap().push(current().id());
    });
    for _ in 0..2 {
        render(&templates, cache).await;
    }
    let mut threads = threads.lock().unwrap();
    std::mem::take(&mut threads)
}

#[tokio::test]
async fn a_page_that_took_long_is_rendered_on_another_thread_the_next_time() {
    for cache in caches() {
        let threads = threads(&cache, LONG).await;
        assert_eq!(threads[0], current().id());
        assert_ne!(threads[1], current().id());
    }
}

#[tokio::test]
async fn the_thread_serves_others_while_a_long_page_is_rendered() {
    for cache in caches() {
        let (go, gone): (Sender<()>, Receiver<()>) = channel();
        let gone = Mutex::new(gone);
        let templates = page(move || {
            spin(LONG);
            gone.lock().unwrap().recv_timeout(Duration::from_secs(10)).unwrap();
        });
        go.send(()).unwrap();
        render(&templates, &cache).await;
        // Ends only if the second future runs while the first one renders.
        tokio::join!(render(&templates, &cache), async { go.send(()).unwrap() });
    }
}

#[tokio::test]
async fn at_most_as_many_long_pages_as_there_are_cores_are_rendered_at_once() {
    let cores = available_parallelism().unwrap().get();
    let counts = Arc::new(Mutex::new((0, 0)));
    let seen = Arc::clone(&counts);
    let templates = page(move || {
        let mut counts = seen.lock().unwrap();
        *counts = (counts.0 + 1, counts.1.max(counts.0 + 1));
        drop(counts);
        spin(LONG);
        seen.lock().unwrap().0 -= 1;
    });
    let cache = Cache::null().build();
    render(&templates, &cache).await;
    join_all((0..8 * cores).map(|_| render(&templates, &cache))).await;
    let (_, most) = *counts.lock().unwrap();
    assert!((1..=cores).contains(&most), "{most} at once");
}

#[tokio::test]
async fn a_panic_on_another_thread_is_one_of_the_caller() {
    let calls = Mutex::new(0);
    let templates = page(move || {
        spin(LONG);
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        assert!(*calls == 1, "the second one");
    });
    let cache = Cache::null().build();
    render(&templates, &cache).await;
    let rendering = tokio::spawn(async move { render(&templates, &cache).await });
    assert!(rendering.await.unwrap_err().is_panic());
}

#[tokio::test]
async fn a_page_whose_reader_has_gone_is_rendered_to_its_end() {
    let (go, gone): (Sender<()>, Receiver<()>) = channel();
    let (gone, done) = (Mutex::new(gone), Arc::new(Mutex::new(0)));
    let count = Arc::clone(&done);
    let templates = page(move || {
        spin(LONG);
        gone.lock().unwrap().recv_timeout(Duration::from_secs(10)).unwrap();
        *count.lock().unwrap() += 1;
    });
    let cache = Cache::null().build();
    go.send(()).unwrap();
    render(&templates, &cache).await;
    let reader = tokio::time::timeout(LONG, render(&templates, &cache)).await;
    assert!(reader.is_err());
    go.send(()).unwrap();
    eventually("the page is rendered", async || *done.lock().unwrap() == 2).await;
}
