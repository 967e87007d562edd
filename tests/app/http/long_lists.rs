//! Lists that are longer than anybody reads.

use std::{
    thread,
    time::{Duration, Instant},
};

use test_support::{app::TestApp, database::TestDatabase, on_every_database_url};

on_every_database_url![a_full_list_takes_no_more_tasks_and_says_so];

fn a_full_list_takes_no_more_tasks_and_says_so(database: &TestDatabase) {
    let app = TestApp::with(TestDatabase::at(&database.url), &[("MAX_TASKS", "2")]);
    let browser = app.with_tasks(&["one", "two"]);
    let full = browser.post_form("/", &[("name", "three")]);
    assert_eq!(full.status, 409);
    assert!(full.body.contains("The list is full: it holds at most 2 tasks. Delete some first."));
    assert!(full.body.contains(r#"value="three""#), "the name can be sent again");
    assert_eq!(full.task_names(), ["one", "two"]);
    browser.post(&format!("/{}/delete", full.task_ids()[0]));
    assert_eq!(browser.post_form("/", &[("name", "three")]).status, 303);
}

#[test]
fn probes_answer_within_a_second_while_many_render_a_long_list() {
    let app = TestApp::with(TestDatabase::sqlite(), &[("CACHE_BACKEND", "none")]);
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) \
        INSERT INTO task (name) SELECT 'Task ' || i FROM n";
    drop(app.database.execute(rows));
    thread::scope(|scope| {
        let visitors: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| assert_eq!(app.browser().get("/").status, 200)))
            .collect();
        let mut probes = 0;
        while visitors.iter().any(|visitor| !visitor.is_finished()) {
            let start = Instant::now();
            assert_eq!(app.browser().get("/healthz").status, 200);
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
            probes += 1;
        }
        assert!(probes > 10, "{probes} probes while the pages were rendered");
    });
}
