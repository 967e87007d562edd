//! A list that is longer than anybody reads, requested by many at once.

use std::{
    thread,
    time::{Duration, Instant},
};

use test_support::{app::TestApp, database::TestDatabase};

use crate::alone;

#[test]
fn probes_answer_within_a_second_while_many_render_a_long_list() {
    let _alone = alone();
    let app = TestApp::with(
        TestDatabase::sqlite(),
        &[("CACHE_BACKEND", "none"), ("TASKS_PER_PAGE", "1000")],
    );
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) \
        INSERT INTO task (name) SELECT 'Task ' || i FROM n";
    drop(app.database.execute(rows));
    thread::scope(|scope| {
        let visitors: Vec<_> = (0..20)
            .map(|visitor| {
                let app = &app;
                scope.spawn(move || {
                    for page in 1..=30 {
                        let path = format!("/?page={}", (visitor * 7 + page) % 30 + 1);
                        assert_eq!(app.browser().get(&path).status, 200);
                    }
                })
            })
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
