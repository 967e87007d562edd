//! The list, its forms and its messages, on every database.

use test_support::{app::TestApp, on_every_database};

use super::assert_error_page;

on_every_database![
    a_blank_or_missing_name_is_rejected_and_not_stored,
    a_cross_site_form_changes_no_task,
    a_lock_held_for_too_long_is_a_503_with_retry_after,
    a_deleted_task_disappears_and_the_next_page_says_so_once,
    a_name_may_hold_anything_that_can_be_read,
    a_name_of_500_characters_is_accepted,
    a_name_over_the_limit_is_rejected_and_shown_again_in_the_form,
    a_new_task_is_listed_and_the_next_page_says_so_once,
    a_query_that_the_page_does_not_use_is_ignored,
    an_internal_error_shows_the_error_page_without_its_cause,
    deleting_an_unknown_id_says_that_the_task_was_already_gone,
    control_characters_in_a_name_are_rejected,
    at_most_five_flash_messages_are_stored_and_the_oldest_are_dropped,
    head_answers_like_get_without_a_body,
    head_does_not_consume_a_message,
    ids_that_are_not_positive_64_bit_integers_are_not_found,
    the_empty_list_shows_only_the_form,
    the_health_probes_answer,
    the_tasks_are_listed_oldest_first,
    white_space_around_a_name_is_trimmed,
];

fn the_empty_list_shows_only_the_form(app: &TestApp) {
    let page = app.browser().get("/");
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.body.contains("New Task"));
    assert!(page.body.contains(r#"name="name""#));
    assert!(page.body.contains(r#"placeholder="Task Name""#));
    assert!(page.body.contains(">Add Task</button>"));
    assert!(!page.body.contains("Current Tasks"));
}

fn the_tasks_are_listed_oldest_first(app: &TestApp) {
    let page = app.with_tasks(&["one", "two", "three"]).get("/");
    assert!(page.body.contains("Current Tasks"));
    assert_eq!(page.task_names(), ["one", "two", "three"]);
    assert_eq!(page.task_ids(), ["1", "2", "3"]);
}

fn a_new_task_is_listed_and_the_next_page_says_so_once(app: &TestApp) {
    let browser = app.browser();
    let reply = browser.post_form("/", &[("name", "Milk")]);
    assert_eq!((reply.status, reply.header("location").as_str()), (303, "/"));
    let page = browser.get("/");
    assert_eq!(page.task_names(), ["Milk"]);
    assert_eq!(page.flashes(), ["Added “Milk”."]);
    assert_eq!(page.header("cache-control"), "no-store");
    assert_eq!(browser.get("/").flashes(), [""; 0]);
    assert_eq!(app.browser().get("/").flashes(), [""; 0], "the message is for one visitor");
}

fn a_deleted_task_disappears_and_the_next_page_says_so_once(app: &TestApp) {
    let browser = app.with_tasks(&["one", "two"]);
    let reply = browser.post("/1/delete");
    assert_eq!((reply.status, reply.header("location").as_str()), (303, "/"));
    let page = browser.get("/");
    assert_eq!(page.task_names(), ["two"]);
    assert_eq!(page.flashes(), ["Deleted “one”."]);
    assert_eq!(browser.get("/").flashes(), [""; 0]);
}

fn deleting_an_unknown_id_says_that_the_task_was_already_gone(app: &TestApp) {
    let browser = app.with_tasks(&["one"]);
    for id in ["2", "9223372036854775807"] {
        assert_eq!(browser.post(&format!("/{id}/delete")).status, 303);
        let page = browser.get("/");
        assert_eq!(page.flashes(), ["That task was already gone."]);
        assert_eq!(page.task_names(), ["one"]);
    }
}

/// Path segments that are not ids; `%D9%A3` is the Arabic-Indic digit three.
const INVALID_IDS: [&str; 10] =
    ["0", "-1", "+1", "1.0", "abc", "1e0", "9223372036854775808", "%31%00", "%D9%A3", "1/1"];

fn ids_that_are_not_positive_64_bit_integers_are_not_found(app: &TestApp) {
    let browser = app.with_tasks(&["one"]);
    for id in INVALID_IDS {
        assert_eq!(browser.post(&format!("/{id}/delete")).status, 404, "{id}");
    }
    assert_eq!(browser.get("/").task_names(), ["one"]);
}

/// Form bodies with a blank name or without one.
const BLANK_FORMS: [&str; 8] =
    ["", "name=", "name=+++", "name=%20%09%0D%0A", "task=two", "name", "=", "&&&"];

fn a_blank_or_missing_name_is_rejected_and_not_stored(app: &TestApp) {
    let browser = app.with_tasks(&["one"]);
    for body in BLANK_FORMS {
        let page = browser.post_body("/", body);
        assert_eq!(page.status, 422, "{body}");
        assert!(page.body.contains("Task name is required."), "{body}");
        assert_eq!(page.task_names(), ["one"], "{body}");
    }
    assert_eq!(browser.post("/").status, 422, "without a content type");
    assert_eq!(browser.get("/").task_names(), ["one"]);
}

fn a_name_over_the_limit_is_rejected_and_shown_again_in_the_form(app: &TestApp) {
    let browser = app.browser();
    let name = "ä".repeat(501);
    let page = browser.post_form("/", &[("name", &name)]);
    assert_eq!(page.status, 422);
    assert!(page.body.contains("501 characters, and the limit is 500"));
    assert!(page.body.contains(&format!(r#"value="{name}""#)));
    assert_eq!(browser.get("/").task_names(), [""; 0]);
}

fn a_name_of_500_characters_is_accepted(app: &TestApp) {
    let browser = app.browser();
    let name = "🦀".repeat(500);
    assert_eq!(browser.post_form("/", &[("name", &name)]).status, 303);
    let page = browser.get("/");
    assert_eq!(page.task_names(), [name]);
    assert_eq!(page.flashes(), [format!("Added “{}…”.", "🦀".repeat(80))]);
}

/// Percent-encoded control characters.
const CONTROL_CHARACTERS: [&str; 8] =
    ["%00", "%01", "%0A", "%0D%0A", "%09", "%1B", "%7F", "%C2%85"];

fn control_characters_in_a_name_are_rejected(app: &TestApp) {
    let browser = app.browser();
    for c in CONTROL_CHARACTERS {
        let page = browser.post_body("/", &format!("name=a{c}b"));
        assert_eq!(page.status, 422, "{c}");
        assert!(page.body.contains("control characters"), "{c}");
    }
    assert_eq!(browser.post_body("/", "name=%00").status, 422);
    assert_eq!(browser.get("/").task_names(), [""; 0]);
}

fn white_space_around_a_name_is_trimmed(app: &TestApp) {
    assert_eq!(
        app.with_tasks(&[" \t two  words \u{3000}\n"]).get("/").task_names(),
        ["two  words"]
    );
}

const ODD_NAMES: [&str; 5] = [
    r#"<script>alert("1")</script> & 'q'"#,
    "{{ 7 * 7 }} {% raw %}",
    "'; DROP TABLE task; --",
    "شراء الحليب",
    "👩‍👧‍👦",
];

fn a_name_may_hold_anything_that_can_be_read(app: &TestApp) {
    let page = app.with_tasks(&ODD_NAMES).get("/");
    let unescaped: Vec<_> = page.task_names().iter().map(|name| unescape(name)).collect();
    assert_eq!(unescaped, ODD_NAMES);
    assert!(!page.body.contains("<script"));
}

fn unescape(text: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&#x27;", "'")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
        .replace("&amp;", "&")
}

fn at_most_five_flash_messages_are_stored_and_the_oldest_are_dropped(app: &TestApp) {
    let browser = app.browser();
    for n in 1..=9 {
        let name = format!("{n}{}", "\"".repeat(499));
        assert_eq!(browser.post_form("/", &[("name", &name)]).status, 303);
    }
    let flashes = browser.get("/").flashes();
    assert_eq!(flashes.len(), 5);
    assert!(flashes[4].starts_with("Added “9"), "{flashes:?}");
}

fn head_answers_like_get_without_a_body(app: &TestApp) {
    let browser = app.with_tasks(&["one"]);
    for path in ["/", "/healthz", "/readyz", "/nowhere"] {
        let (get, head) = (browser.get(path), browser.send("HEAD", path, &[], ""));
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.body, "", "{path}");
        for name in ["content-type", "content-length", "cache-control"] {
            assert_eq!(head.header(name), get.header(name), "{path} {name}");
        }
    }
}

fn head_does_not_consume_a_message(app: &TestApp) {
    let browser = app.browser();
    browser.post_form("/", &[("name", "Milk")]);
    assert_eq!(browser.send("HEAD", "/", &[], "").header("set-cookie"), "");
    assert_eq!(browser.get("/").flashes(), ["Added “Milk”."]);
}

fn a_lock_held_for_too_long_is_a_503_with_retry_after(app: &TestApp) {
    let browser = app.with_tasks(&["one"]);
    let _lock = app.database.lock();
    let reply = browser.post_form("/", &[("name", "two")]);
    assert_eq!((reply.status, reply.header("retry-after").as_str()), (503, "5"));
    assert_error_page(&reply);
}

fn a_query_that_the_page_does_not_use_is_ignored(app: &TestApp) {
    assert_eq!(app.with_tasks(&["one"]).get("/?x=1&name=two").task_names(), ["one"]);
}

fn the_health_probes_answer(app: &TestApp) {
    let browser = app.browser();
    let health = browser.get("/healthz");
    assert_eq!((health.status, health.body.as_str()), (200, "ok"));
    let ready = browser.get("/readyz");
    assert_eq!(ready.status, 200);
    assert_eq!(ready.header("content-type"), "application/json");
    assert!(ready.body.contains(r#""database":"ok""#));
}

fn an_internal_error_shows_the_error_page_without_its_cause(app: &TestApp) {
    let browser = app.browser();
    app.database.clear();
    for reply in [browser.get("/"), browser.post_form("/", &[("name", "Milk")])] {
        assert_eq!(reply.status, 500);
        assert_error_page(&reply);
        for internal in ["table", "relation", "SELECT", "INSERT", "diesel"] {
            assert!(!reply.body.contains(internal), "{internal}: {}", reply.body);
        }
    }
}

fn a_cross_site_form_changes_no_task(app: &TestApp) {
    let browser = app.with_tasks(&["one"]);
    let headers =
        [("sec-fetch-site", "cross-site"), ("content-type", "application/x-www-form-urlencoded")];
    for (path, body) in [("/", "name=two"), ("/1/delete", "")] {
        let reply = browser.send("POST", path, &headers, body);
        assert_eq!(reply.status, 403, "{path}");
        assert_error_page(&reply);
    }
    assert_eq!(browser.get("/").task_names(), ["one"]);
}
