//! A list for every day: tick off, correct, take back, filter. On every database.

use test_support::{
    app::TestApp,
    http::{Browser, Reply},
    on_every_database,
};

use super::send_from;

on_every_database![
    a_changed_name_that_somebody_else_has_changed_meanwhile_shows_both,
    a_completed_task_can_be_opened_again,
    a_filter_shows_only_its_tasks_and_marks_itself,
    a_list_without_tasks_shows_neither_filters_nor_counter,
    a_name_is_changed_and_the_new_one_obeys_the_same_rules,
    a_task_is_completed_once_however_often_it_is_ticked,
    all_tasks_are_completed_at_once,
    completed_tasks_are_deleted_at_once_and_brought_back,
    the_counter_says_how_many_tasks_are_left,
    undo_brings_a_deleted_task_back_and_twice_says_so,
    undo_does_not_harm_a_task_with_the_same_id,
    unknown_ids_are_already_gone,
];

/// The names of completed tasks on a page.
fn completed(page: &Reply) -> Vec<&str> {
    let rows = page.body.split("<li class=\"completed\">").skip(1);
    rows.map(|row| row.split("dir=\"auto\">").nth(1).unwrap().split('<').next().unwrap()).collect()
}

/// The number of a task, by its name.
fn id(browser: &Browser, name: &str) -> String {
    let page = browser.get("/");
    let at = page.task_names().iter().position(|found| *found == name).unwrap();
    page.task_ids()[at].to_owned()
}

fn a_task_is_completed_once_however_often_it_is_ticked(app: &TestApp) {
    let browser = app.with_tasks(&["one", "two"]);
    let path = format!("/{}/complete", id(&browser, "one"));
    for _ in 0..2 {
        assert!(send_from(&browser, "/", &path, "").starts_with("/#toggle-"));
        let page = browser.get("/");
        assert_eq!(page.flashes(), ["Completed “one”."]);
        assert_eq!((completed(&page), page.task_names()), (vec!["one"], vec!["one", "two"]));
    }
}

fn a_completed_task_can_be_opened_again(app: &TestApp) {
    let browser = app.with_tasks(&["one"]);
    let id = id(&browser, "one");
    browser.post(&format!("/{id}/complete"));
    browser.get("/");
    for _ in 0..2 {
        assert!(
            send_from(&browser, "/completed", &format!("/{id}/reopen"), "")
                .starts_with("/completed")
        );
        assert_eq!(browser.get("/completed").flashes(), ["Reopened “one”."]);
        assert_eq!(completed(&browser.get("/")), [""; 0]);
    }
}

fn a_filter_shows_only_its_tasks_and_marks_itself(app: &TestApp) {
    let browser = app.with_tasks(&["one", "two", "three"]);
    browser.post(&format!("/{}/complete", id(&browser, "two")));
    for (path, names) in [
        ("/", &["one", "two", "three"][..]),
        ("/active", &["one", "three"]),
        ("/completed", &["two"]),
    ] {
        for _ in 0..2 {
            let page = app.browser().get(path);
            assert_eq!(page.task_names(), names, "{path}");
            assert!(page.body.contains(&format!(r#"<a href="{path}" aria-current="page">"#)));
            assert_eq!(page.body.matches(r#"aria-current="page""#).count(), 1);
        }
    }
    browser.post(&format!("/{}/reopen", id(&browser, "two")));
    assert_eq!(app.browser().get("/completed").task_names(), [""; 0]);
    assert!(app.browser().get("/completed").body.contains("No task is completed yet."));
}

fn the_counter_says_how_many_tasks_are_left(app: &TestApp) {
    let browser = app.with_tasks(&["one", "two"]);
    let says = |text: &str| {
        let page = app.browser().get("/");
        assert!(page.body.contains(&format!(">{text} left<")), "{}", page.body);
    };
    says("2 tasks");
    browser.post(&format!("/{}/complete", id(&browser, "one")));
    says("1 task");
    browser.post(&format!("/{}/delete", id(&browser, "two")));
    says("0 tasks");
    browser.post_form("/", &[("name", "three")]);
    says("1 task");
}

fn a_list_without_tasks_shows_neither_filters_nor_counter(app: &TestApp) {
    for path in ["/", "/active", "/completed"] {
        let page = app.browser().get(path);
        assert!(page.body.contains("Nothing to do yet.") && !page.body.contains("left"), "{path}");
        assert!(!page.body.contains("Complete all") && !page.body.contains("aria-current"));
    }
}

fn all_tasks_are_completed_at_once(app: &TestApp) {
    let browser = app.with_tasks(&["one", "two", "three"]);
    assert_eq!(send_from(&browser, "/active", "/complete-all", ""), "/active");
    let page = browser.get("/active");
    assert_eq!((page.flashes(), page.task_names()), (vec!["Completed 3 tasks.".into()], vec![]));
    assert!(page.body.contains("Everything is done."));
    assert_eq!(completed(&browser.get("/")), ["one", "two", "three"]);
    browser.post("/complete-all");
    assert_eq!(browser.get("/").flashes(), ["No task was left to complete."]);
}

fn completed_tasks_are_deleted_at_once_and_brought_back(app: &TestApp) {
    let browser = app.with_tasks(&["one", "two", "three"]);
    for name in ["one", "three"] {
        browser.post(&format!("/{}/complete", id(&browser, name)));
    }
    browser.get("/");
    let ids = browser.get("/").task_ids().join(" ");
    assert_eq!(send_from(&browser, "/completed", "/clear-completed", ""), "/completed");
    let page = browser.get("/");
    assert_eq!(page.flashes(), ["Deleted 2 tasks."]);
    assert_eq!(page.task_names(), ["two"]);
    assert!(page.body.contains(r#"action="/undo""#));
    browser.post("/undo");
    let page = browser.get("/");
    assert_eq!(page.flashes(), ["Brought back 2 tasks."]);
    assert_eq!((page.task_names(), page.task_ids().join(" ")), (vec!["one", "two", "three"], ids));
    assert_eq!(completed(&page), ["one", "three"]);
    browser.post("/complete-all");
    browser.post("/clear-completed");
    browser.post("/clear-completed");
    assert_eq!(browser.get("/").flashes().last().unwrap(), "No task was completed.");
}

fn undo_brings_a_deleted_task_back_and_twice_says_so(app: &TestApp) {
    let browser = app.with_tasks(&["one", "two"]);
    let id = id(&browser, "one");
    browser.get("/");
    browser.post(&format!("/{id}/delete"));
    let page = browser.get("/");
    assert_eq!((page.flashes(), page.task_names()), (vec!["Deleted “one”.".into()], vec!["two"]));
    assert_eq!(send_from(&browser, "/", "/undo", ""), "/");
    let page = browser.get("/");
    assert_eq!(page.flashes(), ["Brought back 1 task."]);
    assert_eq!((page.task_names(), page.task_ids()[0]), (vec!["one", "two"], id.as_str()));
    for visitor in [&browser, &app.browser()] {
        visitor.post("/undo");
        let flashes = visitor.get("/").flashes();
        assert!(
            flashes.len() == 1 && flashes[0].starts_with("There is nothing to undo"),
            "{flashes:?}"
        );
    }
    assert_eq!(browser.get("/").task_names(), ["one", "two"]);
}

fn undo_does_not_harm_a_task_with_the_same_id(app: &TestApp) {
    let browser = app.with_tasks(&["one"]);
    let id = id(&browser, "one");
    browser.get("/");
    browser.post(&format!("/{id}/delete"));
    // As SQLite may do:
    app.database.execute(&format!("INSERT INTO task (id, name) VALUES ({id}, 'other')"));
    browser.post("/undo");
    let page = browser.get("/");
    assert_eq!(page.flashes().last().unwrap(), "Brought back 1 task.");
    let mut names = page.task_names();
    names.sort_unstable();
    assert_eq!(names, ["one", "other"]);
}

fn a_name_is_changed_and_the_new_one_obeys_the_same_rules(app: &TestApp) {
    let browser = app.with_tasks(&["one"]);
    let id = id(&browser, "one");
    browser.get("/");
    let form = browser.get(&format!("/{id}/edit"));
    assert_eq!((form.status, form.header("cache-control").as_str()), (200, "no-store"));
    assert!(form.body.contains(r#"name="original" value="one""#), "{}", form.body);
    for (name, problem) in [
        (String::new(), "Task name is required."),
        ("x".repeat(501), "501 characters"),
        ("a\nb".to_owned(), "control characters"),
    ] {
        let fields = [("name", &*name), ("original", "one"), ("back", "/active")];
        let refused = browser.post_form(&format!("/{id}"), &fields);
        assert_eq!(refused.status, 422);
        assert!(refused.body.contains(problem) && refused.body.contains("value=\"/active\""));
    }
    let fields = [("name", " zwei "), ("original", "one"), ("back", "/active?page=2")];
    let changed = browser.post_form(&format!("/{id}"), &fields);
    assert_eq!(
        (changed.status, changed.header("location")),
        (303, format!("/active?page=2#toggle-{id}"))
    );
    let page = browser.get("/active");
    assert_eq!(
        (page.flashes(), page.task_names()),
        (vec!["Renamed to “zwei”.".into()], vec!["zwei"])
    );
    let elsewhere = [("name", "drei"), ("original", "zwei"), ("back", "https://other.example/")];
    let changed = browser.post_form(&format!("/{id}"), &elsewhere);
    assert_eq!(changed.header("location"), format!("/#toggle-{id}"));
}

fn a_changed_name_that_somebody_else_has_changed_meanwhile_shows_both(app: &TestApp) {
    let browser = app.with_tasks(&["one"]);
    let id = id(&browser, "one");
    let rename = |name: &str, original: &str| {
        app.browser().post_form(&format!("/{id}"), &[("name", name), ("original", original)])
    };
    assert_eq!(rename("theirs", "one").status, 303);
    for original in ["one", "Theirs", "theirs "] {
        let conflict = rename("mine", original);
        assert_eq!(conflict.status, 409, "{original:?}");
        assert!(conflict.body.contains(">theirs</strong>"), "{}", conflict.body);
        assert!(conflict.body.contains(r#"value="mine""#));
        assert!(
            conflict.body.contains(r#"name="original" value="theirs""#),
            "saved by the next try"
        );
    }
    assert_eq!(app.browser().get("/").task_names(), ["theirs"]);
    assert_eq!(rename("mine", "theirs").status, 303);
    assert_eq!(rename("mine", "one").status, 303, "both have meant the same");
    assert_eq!(app.browser().get("/").task_names(), ["mine"]);
}

fn unknown_ids_are_already_gone(app: &TestApp) {
    for (method, path) in
        [("POST", "/9/complete"), ("POST", "/9/reopen"), ("POST", "/9/delete"), ("GET", "/9/edit")]
    {
        let browser = app.browser();
        let reply = browser.send(method, path, &[("referer", "http://localhost/active")], "");
        assert_eq!((reply.status, reply.header("location").as_str()), (303, "/active"), "{path}");
        assert_eq!(browser.get("/active").flashes(), ["That task was already gone."], "{path}");
    }
    let browser = app.browser();
    assert_eq!(browser.post_form("/9", &[("name", "x"), ("original", "y")]).status, 303);
    assert_eq!(browser.get("/").flashes(), ["That task was already gone."]);
    for path in ["/0/complete", "/99999999999999999999/edit", "/x/reopen"] {
        let status = app.browser().post(path).status;
        assert!([404, 405].contains(&status), "{path}: {status}");
    }
}
