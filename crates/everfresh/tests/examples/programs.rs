//! Examples that print what they show, and small servers.

use test_support::{http::Browser, program::Program};

use super::example;

fn assert_prints(name: &str, expected: &[&str]) {
    let output = example(name).env_clear().output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn minimal_computes_a_value_once_and_again_after_a_write() {
    assert_prints("minimal", &["reading the database", "Milk", "Milk", "Milk, Tea"]);
}

#[test]
fn memo_stores_a_result_for_each_list_of_arguments() {
    let expected = [
        "greeting Ada",
        "Hello, Ada!",
        "greeting Grace",
        "Hello, Grace!",
        "Hello, Ada!",
        "counting the letters of Ada",
        "3",
        "3",
        "counting the letters of Ada",
        "3",
        "greeting 1 of 2",
        "Hello, Ada! Hello, Mary!",
    ];
    assert_prints("memo", &expected);
}

#[test]
fn groups_forget_all_pages_of_a_list() {
    let expected = [
        "reading page 1",
        "page 1: Milk, Tea",
        "reading page 2",
        "page 2: Bread",
        "page 1: Milk, Tea",
        "page 2: Bread",
        "reading page 1",
        "page 1: Tea, Bread",
        "reading page 2",
        "page 2: ",
    ];
    assert_prints("groups", &expected);
}

#[test]
fn fragments_render_the_rows_that_have_changed() {
    let expected = ["Tea: 2 rows rendered", "Tea: 0 rows rendered", "Green tea: 1 rows rendered"];
    assert_prints("fragments", &expected);
}

#[test]
fn four_ways_show_their_risks() {
    let expected = [
        "deleted: title, version 2",
        "expiring: title, version 1, for an hour",
        "a key for each version: title, version 2",
        "updated in the wrong order: title, version 2",
    ];
    assert_prints("four_ways", &expected);
}

#[test]
fn a_stale_value_is_served_after_a_failure() {
    let expected =
        ["sunny", "sunny", "the service fails: sunny", "it answers: rain", "served stale: 1"];
    assert_prints("stale", &expected);
}

#[test]
fn a_write_through_the_ledger_is_seen_at_once() {
    let expected =
        ["reading the table", "Milk", "Milk", "reading the table", "Milk, Tea", "Milk, Tea"];
    assert_prints("ledger", &expected);
}

#[test]
fn a_backend_of_ones_own_passes_the_contract_suite() {
    let expected = ["the backend map passes the contract suite", "and is used"];
    assert_prints("custom_backend", &expected);
}

fn start(name: &str) -> (Program, Browser) {
    let mut command = example(name);
    command.env_clear().env("ADDRESS", "127.0.0.1:0");
    let program = Program::start(command);
    let browser = Browser::new(program.summary.trim().rsplit(' ').next().unwrap());
    (program, browser)
}

#[test]
fn a_page_is_cached_by_number_and_language() {
    let (_program, browser) = start("view");
    let german = [("Accept-Language", "de")];
    for _ in 0..2 {
        assert!(browser.get("/?page=02&utm=x").body.contains("lang=en><title>Page 2<"));
        assert!(browser.get_with("/?page=2", &german).body.contains("lang=de><title>Seite 2<"));
    }
    assert!(browser.get("/?page=2").cache_status().ends_with("hit"));
    assert!(!browser.get("/?page=3").cache_status().ends_with("hit"));
}

#[test]
fn a_session_counts_the_visits_of_one_visitor() {
    let (program, browser) = start("session");
    for visit in 1..=3 {
        assert_eq!(browser.get("/").body, format!("visit {visit}\n"));
    }
    let other = Browser::new(program.summary.trim().rsplit(' ').next().unwrap());
    assert_eq!(other.get("/").body, "visit 1\n");
}
