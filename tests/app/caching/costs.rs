//! The cost of a page: the gets that memcached counts, and round trips.

use test_support::{
    app::TestApp, counting_proxy::CountingProxy, database::TestDatabase, memcached::Memcached,
    on_every_database_url,
};

use super::{Gets, cached_app, count_gets, flush, insert_tasks};

on_every_database_url![every_set_of_layers_costs_the_listed_gets];

/// Gets per page view, as (hits, misses), by cache layers and number of tasks.
/// docs/reference.md shows an excerpt.
///
/// The columns are in the order of the requests that [`assert_costs`] sends:
///
/// 1. cold: the first request, with an empty cache
/// 2. reload: the second request
/// 3. added: the first request after a task was added
/// 4. message: the page with the message, which bypasses the view layer
/// 5. reload: another request by a visitor without cookies
/// 6. deleted: the first request after the added task was deleted
#[rustfmt::skip]
const COSTS: [(&str, usize, [Gets; 6]); 18] = [
    // layers, tasks                cold     reload   added    message  reload   deleted
    ("query",                 0,  [(0, 1),  (1, 0),  (0, 1),  (1, 0),  (1, 0),  (0, 1)]),
    ("query",                 1,  [(0, 1),  (1, 0),  (0, 1),  (1, 0),  (1, 0),  (0, 1)]),
    ("query",                 50, [(0, 1),  (1, 0),  (0, 1),  (1, 0),  (1, 0),  (0, 1)]),
    ("query,fragment",        0,  [(0, 1),  (1, 0),  (0, 2),  (1, 0),  (1, 0),  (0, 1)]),
    ("query,fragment",        1,  [(0, 2),  (1, 0),  (0, 1),  (1, 0),  (1, 0),  (0, 1)]),
    ("query,fragment",        50, [(0, 50), (1, 0),  (0, 1),  (1, 0),  (1, 0),  (0, 1)]),
    ("query,fragment,view",   0,  [(0, 2),  (1, 0),  (0, 2),  (1, 0),  (1, 0),  (0, 2)]),
    ("query,fragment,view",   1,  [(0, 2),  (1, 0),  (0, 2),  (1, 0),  (1, 0),  (0, 2)]),
    ("query,fragment,view",   50, [(0, 51), (1, 0),  (0, 2),  (1, 0),  (1, 0),  (0, 2)]),
    ("fragment",              0,  [(0, 0),  (0, 0),  (0, 1),  (0, 0),  (0, 0),  (0, 0)]),
    ("fragment",              1,  [(0, 1),  (0, 0),  (0, 0),  (0, 0),  (0, 0),  (0, 0)]),
    ("fragment",              50, [(0, 49), (0, 0),  (0, 0),  (0, 0),  (0, 0),  (0, 0)]),
    ("view",                  0,  [(0, 1),  (1, 0),  (0, 1),  (0, 0),  (1, 0),  (0, 1)]),
    ("view",                  1,  [(0, 1),  (1, 0),  (0, 1),  (0, 0),  (1, 0),  (0, 1)]),
    ("view",                  50, [(0, 1),  (1, 0),  (0, 1),  (0, 0),  (1, 0),  (0, 1)]),
    ("none",                  0,  [(0, 0),  (0, 0),  (0, 0),  (0, 0),  (0, 0),  (0, 0)]),
    ("none",                  1,  [(0, 0),  (0, 0),  (0, 0),  (0, 0),  (0, 0),  (0, 0)]),
    ("none",                  50, [(0, 0),  (0, 0),  (0, 0),  (0, 0),  (0, 0),  (0, 0)]),
];

/// The same with `CACHE_NEAR_BYTES=0`, for the layers where it makes a difference.
#[rustfmt::skip]
const COSTS_WITHOUT_NEAR: [(&str, usize, [Gets; 6]); 9] = [
    // layers, tasks                cold     reload   added    message  reload   deleted
    ("query,fragment",        0,  [(0, 1),  (1, 0),  (0, 3),  (2, 0),  (2, 0),  (0, 1)]),
    ("query,fragment",        1,  [(0, 3),  (2, 0),  (2, 2),  (2, 0),  (2, 0),  (2, 1)]),
    ("query,fragment",        50, [(0, 52), (2, 0),  (51, 2), (2, 0),  (2, 0),  (51, 1)]),
    ("query,fragment,view",   0,  [(0, 2),  (1, 0),  (0, 4),  (2, 0),  (1, 0),  (0, 2)]),
    ("query,fragment,view",   1,  [(0, 4),  (1, 0),  (2, 3),  (2, 0),  (1, 0),  (2, 2)]),
    ("query,fragment,view",   50, [(0, 53), (1, 0),  (51, 3), (2, 0),  (1, 0),  (51, 2)]),
    ("fragment",              0,  [(0, 0),  (0, 0),  (0, 2),  (1, 0),  (1, 0),  (0, 0)]),
    ("fragment",              1,  [(0, 2),  (1, 0),  (2, 1),  (1, 0),  (1, 0),  (2, 0)]),
    ("fragment",              50, [(0, 51), (1, 0),  (51, 1), (1, 0),  (1, 0),  (51, 0)]),
];

fn every_set_of_layers_costs_the_listed_gets(database: &TestDatabase) {
    for (near, rows) in [("1MiB", &COSTS[..]), ("0", &COSTS_WITHOUT_NEAR)] {
        for (layers, tasks, costs) in rows {
            database.clear();
            let again = TestDatabase::at(&database.url);
            // One worker: what it stores beside an answer is there for the next request.
            let settings =
                [("CACHE_LAYERS", *layers), ("CACHE_NEAR_BYTES", near), ("WEB_CONCURRENCY", "1")];
            let (app, server) = cached_app(again, &settings);
            insert_tasks(&app.database, *tasks);
            let case = format!("{tasks} tasks, layers {layers}, near {near}");
            assert_costs(&app, &server, &case, *costs);
            if layers.contains("view") {
                assert_304_costs_one_hit(&app, &server);
            }
        }
    }
}

fn assert_costs(app: &TestApp, server: &Memcached, case: &str, costs: [Gets; 6]) {
    let [cold, reload, after_adding, with_message, reload_with_added, after_deleting] = costs;
    let assert_cost = |step: &str, cost: Gets, request: &dyn Fn()| {
        assert_eq!(count_gets(server, request), cost, "{step}, {case}");
    };
    let view_page = || assert_eq!(app.browser().get("/").status, 200);

    assert_cost("cold", cold, &view_page);
    assert_cost("reload", reload, &view_page);
    assert_cost("an unused query string", reload, &|| {
        app.browser().get("/?x=1");
    });
    assert_cost("HEAD", reload, &|| {
        app.browser().send("HEAD", "/", &[], "");
    });

    let author = app.browser();
    assert_eq!(author.post_form("/", &[("name", "new")]).status, 303);
    app.settle();
    assert_cost("after adding", after_adding, &view_page);
    assert_cost("with the message", with_message, &|| {
        assert_eq!(author.get("/").flashes(), ["Added “new”."]);
    });
    assert_cost("reload after adding", reload_with_added, &view_page);

    let page = app.browser().get("/");
    let last = page.task_ids().last().unwrap().to_string();
    assert_eq!(author.post(&format!("/{last}/delete")).status, 303);
    app.settle();
    assert_cost("after deleting", after_deleting, &view_page);
    assert_cost("reload after deleting", reload, &view_page);
}

fn assert_304_costs_one_hit(app: &TestApp, server: &Memcached) {
    let tag = app.browser().get("/").header("etag");
    let gets = count_gets(server, || {
        let reply = app.browser().send("GET", "/", &[("if-none-match", &tag)], "");
        assert_eq!(reply.status, 304);
    });
    assert_eq!(gets, (1, 0), "304");
}

#[test]
fn any_other_page_costs_two_gets_in_one_round_trip() {
    let proxy = CountingProxy::start();
    let address = proxy.address();
    let settings = [("MEMCACHIER_SERVERS", address.as_str()), ("TASKS_PER_PAGE", "2")];
    let app = TestApp::with(TestDatabase::sqlite(), &settings);
    app.with_tasks(&["one", "two", "three"]);
    app.browser().post("/1/complete");
    app.settle();
    for page in ["/active", "/completed", "/?page=1", "/?page=2", "/completed?page=9"] {
        (0..2).for_each(|_| drop(app.browser().get(page)));
        proxy.round_trips();
        let gets = count_gets(proxy.server(), || {
            assert_eq!(app.browser().get(page).cache_status(), "hit", "{page}");
        });
        assert_eq!((gets, proxy.round_trips()), ((2, 0), 1), "{page}");
    }
}

#[test]
fn a_change_of_one_task_stores_its_row_and_no_other_fragment() {
    let (app, server) = cached_app(TestDatabase::sqlite(), &[]);
    insert_tasks(&app.database, 5);
    app.browser().get("/");
    let fills = || {
        let metrics = app.browser().get("/metrics").body;
        let line = r#"tasklist_cache_fills_total{layer="fragment"} "#;
        metrics.split(line).nth(1).unwrap().lines().next().unwrap().parse::<u64>().unwrap()
    };
    let rename = [("name", "other"), ("original", "task 3")];
    // Neither the list nor the row is asked for: both are of a new value. Those of before the first change are still
    // in the process.
    let (changed, known) = (((0, 2), 1), ((0, 2), 0));
    let cases =
        [("/3/complete", &[][..], changed), ("/3/reopen", &[], known), ("/3", &rename, changed)];
    for (path, fields, cost) in cases {
        let before = fills();
        assert_eq!(app.browser().post_form(path, fields).status, 303, "{path}");
        app.settle();
        let gets = count_gets(&server, || drop(app.browser().get("/")));
        assert_eq!((gets, fills() - before), cost, "{path}");
    }
}

#[test]
fn pages_of_a_thousand_tasks_are_served_in_full_with_few_round_trips() {
    let proxy = CountingProxy::start();
    let address = proxy.address();
    let settings = [("MEMCACHIER_SERVERS", address.as_str()), ("TASKS_PER_PAGE", "1000")];
    let app = TestApp::with(TestDatabase::sqlite(), &settings);
    insert_tasks(&app.database, 2_500);
    for (page, number) in [("/", 1000), ("/?page=2", 1000), ("/?page=3", 500)] {
        flush(proxy.server());
        proxy.round_trips();
        for _ in 0..3 {
            let page = app.browser().get(page);
            assert_eq!((page.status, page.task_names().len()), (200, number));
        }
        let round_trips = proxy.round_trips();
        assert!(round_trips < 60, "{round_trips} for three times {page}");
    }
    assert_eq!(app.browser().get("/?page=3").header("cache-status"), "everfresh; hit");
}
