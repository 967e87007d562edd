//! Many visitors at once.

use std::{collections::BTreeSet, thread};
use test_support::{app::TestApp, on_every_database};

on_every_database![parallel_adds_and_deletes_lose_nothing];

const VISITORS: usize = 200;

fn parallel_adds_and_deletes_lose_nothing(app: &TestApp) {
    in_parallel(|n| {
        let added = app.browser().post_form("/", &[("name", &format!("task {n}"))]);
        assert_eq!(added.status, 303);
    });
    let page = app.browser().get("/");
    let names: BTreeSet<_> = page.task_names().into_iter().map(str::to_owned).collect();
    assert_eq!(names, (0..VISITORS).map(|n| format!("task {n}")).collect());

    let ids = page.task_ids();
    let (deleted, kept) = ids.split_at(VISITORS / 2);
    in_parallel(|n| {
        let browser = app.browser();
        let (status, path) = if n % 2 == 0 {
            (303, format!("/{}/delete", deleted[n / 2]))
        } else {
            (303, "/999999/delete".to_owned())
        };
        assert_eq!(browser.post(&path).status, status);
    });
    assert_eq!(app.browser().get("/").task_ids(), kept);
}

fn in_parallel(visit: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        for n in 0..VISITORS {
            let visit = &visit;
            scope.spawn(move || visit(n));
        }
    });
}
