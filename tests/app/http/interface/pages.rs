//! The pages of a long list, on every database.

use test_support::{app::TestApp, database::TestDatabase, on_every_database_url};

use super::send_from;

on_every_database_url![
    a_page_shows_its_part_of_the_list_and_links_to_the_others,
    who_adds_a_task_comes_to_the_page_that_shows_it,
];

fn paged(database: &TestDatabase, tasks: usize) -> TestApp {
    let app = TestApp::with(TestDatabase::at(&database.url), &[("TASKS_PER_PAGE", "3")]);
    let names: Vec<_> = (1..=tasks).map(|n| format!("('t{n}', {})", n % 2 == 0)).collect();
    drop(
        app.database
            .execute(&format!("INSERT INTO task (name, completed) VALUES {}", names.join(","))),
    );
    app
}

fn a_page_shows_its_part_of_the_list_and_links_to_the_others(database: &TestDatabase) {
    let app = paged(database, 8);
    for (url, names, page) in [
        ("/", "t1 t2 t3", "Page 1 of 3"),
        ("/?page=2", "t4 t5 t6", "Page 2 of 3"),
        ("/?page=3", "t7 t8", "Page 3 of 3"),
        ("/?page=1000000000", "t7 t8", "Page 3 of 3"),
        ("/?page=0", "t1 t2 t3", "Page 1 of 3"),
        ("/?page=x", "t1 t2 t3", "Page 1 of 3"),
        ("/active?page=2", "t7", "Page 2 of 2"),
        ("/completed", "t2 t4 t6", "Page 1 of 2"),
        ("/completed?page=2", "t8", "Page 2 of 2"),
    ] {
        let found = app.browser().get(url);
        assert_eq!(found.task_names().join(" "), names, "{url}");
        assert!(found.body.contains(page), "{url}: {}", found.body);
    }
    let middle = app.browser().get("/?page=2").body;
    for link in
        [r#"href="/" rel="first""#, r#"href="/" rel="prev""#, r#"href="/?page=3" rel="next""#]
    {
        assert!(middle.contains(link), "{link}: {middle}");
    }
    assert!(!app.browser().get("/").body.contains("rel=\"prev\""));
    assert!(!app.browser().get("/?page=3").body.contains("rel=\"next\""));
}

fn who_adds_a_task_comes_to_the_page_that_shows_it(database: &TestDatabase) {
    let app = paged(database, 8);
    let browser = app.browser();
    for (from, to, shown) in [
        ("/", "/?page=3", "t7 t8 new"),
        ("/completed", "/?page=4", "new"),
        ("/active", "/active?page=3", "new"),
    ] {
        assert_eq!(send_from(&browser, from, "/", "name=new"), to);
        let page = browser.get(to);
        assert_eq!(
            (page.task_names().join(" ").as_str(), page.flashes().len()),
            (shown, 1),
            "{to}"
        );
    }
    let refused = browser.send(
        "POST",
        "/",
        &[
            ("referer", "http://localhost/active?page=2"),
            ("content-type", "application/x-www-form-urlencoded"),
        ],
        "name=",
    );
    assert_eq!((refused.status, refused.task_names().join(" ").as_str()), (422, "t7 new new"));
}
