//! Lists that are longer than anybody reads.

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
