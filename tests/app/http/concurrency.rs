//! Many visitors at once.

use std::{collections::BTreeSet, thread};
use test_support::{app::TestApp, database::TestDatabase, on_every_database_url};

on_every_database_url![parallel_adds_and_deletes_are_all_applied];

const VISITORS: usize = 200;

fn parallel_adds_and_deletes_are_all_applied(database: &TestDatabase) {
    let app = TestApp::with(TestDatabase::at(&database.url), &[("TASKS_PER_PAGE", "1000")]);
    in_parallel(|n| {
        let added = app.browser().post_form("/", &[("name", &format!("task {n}"))]);
        assert_eq!(added.status, 303);
    });
    let page = app.browser().get("/");
    let names: BTreeSet<_> = page.task_names().into_iter().map(str::to_owned).collect();
    assert_eq!(names, (0..VISITORS).map(|n| format!("task {n}")).collect());

    // Half of the visitors delete a task each, the others one that does not exist.
    let ids = page.task_ids();
    let (deleted, remaining) = ids.split_at(VISITORS / 2);
    in_parallel(|n| {
        let id = if n % 2 == 0 { deleted[n / 2] } else { "999999" };
        assert_eq!(app.browser().post(&format!("/{id}/delete")).status, 303);
    });
    assert_eq!(app.browser().get("/").task_ids(), remaining);
}

fn in_parallel(visit: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        for n in 0..VISITORS {
            let visit = &visit;
            scope.spawn(move || visit(n));
        }
    });
}
