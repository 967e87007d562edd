//! Each route and each kind of error of the HTTP interface.

mod everyday;
mod pages;
mod responses;
mod tasks;

use test_support::http::{Browser, Reply};

/// Checks that a reply is an error page in the style of the app, with the request's id.
fn assert_error_page(reply: &Reply) {
    assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(reply.header("cache-control"), "no-store");
    assert!(reply.body.contains("/static/style-"), "without the stylesheet: {}", reply.body);
    let id = reply.body.split("<code>").nth(1).and_then(|rest| rest.split('<').next());
    assert_eq!(id.map(str::len), Some(16), "without a request id: {}", reply.body);
}

/// Sends a form from a page, as browsers do. Returns where it leads.
fn send_from(browser: &Browser, page: &str, path: &str, fields: &str) -> String {
    let headers = [
        ("referer", &*format!("http://localhost{page}")),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let reply = browser.send("POST", path, &headers, fields);
    assert_eq!(reply.status, 303, "{}", reply.body);
    reply.header("location")
}
