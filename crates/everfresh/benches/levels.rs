//! The cost of a hit at each level of the cache, in this process and on memcached:
//!
//! ```sh
//! cargo bench -p everfresh --all-features
//! ```
//!
//! The benchmark starts its own memcached. It runs on one thread, with one operation in flight.
//! Each candidate runs for several rounds, in alternation with the others. The environment
//! variables TURNS (default 5) and MILLISECONDS (default 200) set the number of rounds and the
//! length of each. The figures are medians, in microseconds per operation; on a busy machine only
//! their ratios are meaningful.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::unwrap_used)]

use std::{
    env,
    time::{Duration, Instant},
};

use actix_web::{
    App, HttpResponse,
    test::{TestRequest, call_service, init_service},
    web,
};
use bytes::Bytes;
use everfresh::{Cache, Lifetime, Memo, Templates, ViewCache};
use memcached_client::{Client, Protocol};
use serde::Serialize;
use tera::{Context, Tera};
use test_support::memcached::{Kind, Memcached};
use tokio::runtime::Runtime;

/// The length of a value, in bytes.
const VALUE_LENGTH: usize = 300;
const ROWS: u32 = 100;
const MEMO: Memo<u64, String> = Memo::new("memo", Lifetime::Forever);

/// A row, and how dear it is: each tag of it is another loop, condition, filter and two values.
const ROW: &str = "<li id=\"row-{{ row.id }}\">{{ row.name }}{% for tag in row.tags %}\
    {% if tag.is_new %}<b>{{ tag.name | upper }}</b>{% else %}<i>{{ tag.name }}</i>{% endif %}\
    {% endfor %}</li>";

#[derive(Serialize)]
struct Row {
    id: u32,
    name: String,
    tags: Vec<Tag>,
}

#[derive(Serialize)]
struct Tag {
    name: String,
    is_new: bool,
}

impl Row {
    fn new(id: u32, tags: u32) -> Self {
        let tag = |n| Tag { name: format!("tag number {n}"), is_new: n % 2 == 0 };
        Self { id, name: format!("row number {id}"), tags: (0..tags).map(tag).collect() }
    }
}

/// An operation to measure.
struct Candidate<'a> {
    name: &'static str,
    /// Repeats the operation for about the given time. Returns the number of operations and the
    /// time that they took.
    run: Box<dyn Fn(Duration) -> (u32, Duration) + 'a>,
}

impl<'a> Candidate<'a> {
    fn new(name: &'static str, runtime: &'a Runtime, once: impl AsyncFn() + 'a) -> Self {
        let run = move |round: Duration| {
            let begun = Instant::now();
            let mut operations = 0;
            while begun.elapsed() < round {
                runtime.block_on(async {
                    for _ in 0..20 {
                        once().await;
                    }
                });
                operations += 20;
            }
            (operations, begun.elapsed())
        };
        Self { name, run: Box::new(run) }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Measures the candidates. Prints the median time of each, divided by the number of `parts` in one
/// operation, and its ratio to the time of the first.
fn compare(title: &str, parts: u32, candidates: &[Candidate<'_>]) {
    let rounds = setting("TURNS", 5);
    let round = Duration::from_millis(setting("MILLISECONDS", 200));
    let mut figures = vec![Vec::new(); candidates.len()];
    for _ in 0..rounds {
        for (candidate, figures) in candidates.iter().zip(&mut figures) {
            let (operations, took) = (candidate.run)(round);
            figures.push(took.as_secs_f64() * 1e6 / f64::from(operations) / f64::from(parts));
        }
    }
    println!("\n{title}");
    let mut first = None;
    for (candidate, figures) in candidates.iter().zip(&mut figures) {
        figures.sort_by(f64::total_cmp);
        let median = figures[figures.len() / 2];
        let ratio = median / *first.get_or_insert(median);
        println!("  {:44}{median:>10.2} µs{ratio:>8.2}", candidate.name);
    }
}

fn main() {
    let server = Memcached::start(Kind::Plain);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = server.client(Protocol::Binary);
    let memory = Cache::memory(64 << 20).build();
    let memcached = Cache::memcached(client.clone()).build();
    values(&runtime, &client, &memory, &memcached);
    let without_near = Cache::memcached(client.clone()).near(0).build();
    fragments(&runtime, &memory, &memcached, &without_near);
    pages(&runtime, &memory, &memcached);
}

fn values(runtime: &Runtime, client: &Client, memory: &Cache, memcached: &Cache) {
    let moka = moka::sync::Cache::<String, Bytes>::new(1000);
    moka.insert("k".to_owned(), vec![b'x'; VALUE_LENGTH].into());
    let value = "x".repeat(VALUE_LENGTH);
    runtime.block_on(async {
        client.set("bare", value.as_bytes()).await.unwrap();
        for cache in [memory, memcached] {
            cache.set("k", &value, Lifetime::Forever).await;
            MEMO.call(cache, &7, async || Ok::<_, ()>(value.clone())).await.unwrap();
        }
    });
    let get = |cache: &Cache| {
        let cache = cache.clone();
        async move || drop(cache.get::<String>("k").await.unwrap())
    };
    let memo = |cache: &Cache| {
        let cache = cache.clone();
        async move || drop(MEMO.call(&cache, &7, async || Err(())).await.unwrap())
    };
    let next = std::sync::atomic::AtomicU64::new(100);
    let fill = |cache: &Cache| {
        let (cache, next, value) = (cache.clone(), &next, &value);
        async move || {
            let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let compute = async || Ok::<_, ()>(value.clone());
            drop(MEMO.call(&cache, &n, compute).await.unwrap());
        }
    };
    compare(
        "a value of 300 bytes, in this process",
        1,
        &[
            Candidate::new("moka", runtime, async || drop(moka.get("k").unwrap())),
            Candidate::new("get", runtime, get(memory)),
            Candidate::new("a memoized function", runtime, memo(memory)),
            Candidate::new("a memoized function, computed and stored", runtime, fill(memory)),
        ],
    );
    compare(
        "a value of 300 bytes, on memcached",
        1,
        &[
            Candidate::new("the client's get", runtime, async || {
                drop(client.get("bare").await.unwrap().unwrap());
            }),
            Candidate::new("get", runtime, get(memcached)),
            Candidate::new("a memoized function", runtime, memo(memcached)),
            Candidate::new("a memoized function, computed and stored", runtime, fill(memcached)),
        ],
    );
}

fn fragments(runtime: &Runtime, memory: &Cache, memcached: &Cache, without_near: &Cache) {
    let plain = format!("{{% for row in rows %}}{ROW}{{% endfor %}}");
    let rows = format!(
        "{{% for row in rows %}}{{% cache none, \"row\", row.id, of=row %}}{ROW}{{% endcache %}}\
         {{% endfor %}}"
    );
    let list = format!("{{% cache none, \"list\", of=version %}}{rows}{{% endcache %}}");
    let templates = |text: &str| Templates::new(Tera::default(), [("page.html", text)]).unwrap();
    let [plain, rows, list] = [&plain, &rows, &list].map(|text| templates(text));
    for tags in [0, 1, 3, 8, 20] {
        let mut context = Context::new();
        context.insert("rows", &(0..ROWS).map(|id| Row::new(id, tags)).collect::<Vec<_>>());
        // As if the rows were a value at hand: its digest.
        context.insert("version", &format!("{tags:032x}"));
        let render = |cache: &Cache, templates: &Templates| {
            let (cache, templates, context) = (cache.clone(), templates.clone(), context.clone());
            async move || drop(templates.render(&cache, "page.html", &context).await.unwrap())
        };
        compare(
            &format!("a row with {tags} tags, on a page of 100"),
            ROWS,
            &[
                Candidate::new("rendered without the tag", runtime, render(memory, &plain)),
                Candidate::new("rows from this process", runtime, render(memory, &rows)),
                Candidate::new("rows from memcached", runtime, render(without_near, &rows)),
                Candidate::new("rows near, shared by memcached", runtime, render(memcached, &rows)),
                Candidate::new("the list around them, near", runtime, render(memcached, &list)),
            ],
        );
    }
}

fn pages(runtime: &Runtime, memory: &Cache, memcached: &Cache) {
    for (title, size) in [("a page of 6 kB", 6_000), ("a page of 500 kB", 500_000)] {
        let body = Bytes::from(vec![b'x'; size]);
        let page = move || {
            let body = body.clone();
            async move { HttpResponse::Ok().content_type("text/html").body(body) }
        };
        macro_rules! site {
            ($cache:expr) => {{
                let views = ViewCache::builder($cache.clone()).build();
                let resource = web::resource(format!("/{size}")).wrap(views);
                runtime.block_on(init_service(App::new().service(resource.to(page.clone()))))
            }};
        }
        let request = || TestRequest::get().uri(&format!("/{size}")).to_request();
        let (limit, here, there) = (site!(Cache::null().build()), site!(memory), site!(memcached));
        compare(
            title,
            1,
            &[
                Candidate::new("a handler without a cache", runtime, async || {
                    drop(call_service(&limit, request()).await);
                }),
                Candidate::new("from this process", runtime, async || {
                    drop(call_service(&here, request()).await);
                }),
                Candidate::new("confirmed by memcached", runtime, async || {
                    drop(call_service(&there, request()).await);
                }),
            ],
        );
    }
}
