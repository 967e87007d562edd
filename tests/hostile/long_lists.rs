//! A list that is longer than anybody reads, requested by many at once.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use test_support::{app::TestApp, database::TestDatabase};

use crate::alone;

/// Visitors who request pages, one after the other.
const VISITORS: usize = 20;

#[test]
fn a_probe_waits_for_few_of_many_long_pages() {
    let _alone = alone();
    let app = TestApp::with(
        TestDatabase::sqlite(),
        &[("CACHE_BACKEND", "none"), ("TASKS_PER_PAGE", "1000")],
    );
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) \
        INSERT INTO task (name) SELECT 'Task ' || i FROM n";
    drop(app.database.execute(rows));
    let pages = AtomicUsize::new(0);
    thread::scope(|scope| {
        let visitors: Vec<_> = (0..VISITORS)
            .map(|visitor| {
                let (app, pages) = (&app, &pages);
                scope.spawn(move || {
                    for page in 1..=30 {
                        let path = format!("/?page={}", (visitor * 7 + page) % 30 + 1);
                        assert_eq!(app.browser().get(&path).status, 200);
                        pages.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let mut probes = 0;
        while visitors.iter().any(|visitor| !visitor.is_finished()) {
            let before = pages.load(Ordering::Relaxed);
            assert_eq!(app.browser().get("/healthz").status, 200);
            let waited = pages.load(Ordering::Relaxed) - before;
            assert!(waited <= 2 * VISITORS, "{waited} pages were sent before the answer");
            probes += 1;
        }
        assert!(probes > 10, "{probes} probes while the pages were rendered");
    });
}
