//! A wiki in two processes that share a database and memcached: nothing is stale, and no visitor is served
//! the page of another.

use tempfile::TempDir;
use test_support::{
    http::{Browser, Reply},
    memcached::{Kind, Memcached},
    program::Program,
    wait::wait_until,
};

use super::example;

/// Everything that shows several articles.
const LISTS: [&str; 11] = [
    "/",
    "/?page=00",
    "/?page=1",
    "/?q=",
    "/?q=milk&page=1",
    "/?utm=1",
    "/feed",
    "/feed?q=MILK",
    "/api",
    "/api?q=",
    "/api?q=milk",
];

/// Searches that find nothing, and pages without articles.
const EMPTY: [&str; 3] = ["/?q=zzz", "/api?q=zzz", "/?page=99"];

struct Wikis {
    processes: [(Program, String); 2],
    server: Memcached,
    _folder: TempDir,
}

impl Wikis {
    fn start() -> Self {
        let server = Memcached::start(Kind::Plain);
        let folder = tempfile::tempdir().unwrap();
        let start = || {
            let mut command = example("wiki");
            command
                .env_clear()
                .env("MEMCACHE_SERVERS", server.address().to_string())
                .env("WIKI_DATABASE", folder.path().join("wiki.sqlite3"))
                .env("WIKI_ADDRESS", "127.0.0.1:0");
            let program = Program::start(command);
            let url = program.summary.trim().rsplit(' ').next().unwrap().to_owned();
            (program, url)
        };
        let processes = [start(), start()];
        Self { processes, server, _folder: folder }
    }

    /// Returns a visitor without cookies, of one of the two processes.
    fn visitor(&self, process: usize) -> Browser {
        Browser::new(&self.processes[process % 2].1)
    }

    fn save(&self, process: usize, name: &str, text: &str) {
        let saved = self.visitor(process).post_form(&format!("/wiki/{name}"), &[("text", text)]);
        assert_eq!(saved.status, 303);
    }
}

fn is_hit(reply: &Reply) -> bool {
    reply.cache_status().ends_with("hit")
}

/// Waits until a page is served from the cache: a process that has just started may forget it once more, when it
/// replays the ledger.
fn wait_until_cached(visitor: &Browser, target: &str) {
    wait_until(&format!("{target} is cached"), || is_hit(&visitor.get(target)));
}

#[test]
fn every_listing_search_feed_and_json_is_fresh_after_each_edit() {
    let wikis = Wikis::start();
    for edit in 0..12 {
        let (text, page) = (format!("milk, edit {edit}"), "/wiki/Dairy");
        wikis.save(edit, "Dairy", &text);
        for process in 0..2 {
            let visitor = wikis.visitor(edit + process);
            for target in LISTS.into_iter().chain([page]) {
                let reply = visitor.get(target);
                assert!(reply.body.contains(&text), "edit {edit}: {target} shows {}", reply.body);
                wait_until_cached(&visitor, target);
            }
            for target in EMPTY {
                assert!(!visitor.get(target).body.contains("milk"), "{target}");
                wait_until_cached(&visitor, target);
            }
        }
    }
}

#[test]
fn a_search_that_found_nothing_finds_a_new_article() {
    let wikis = Wikis::start();
    for target in ["/?q=zzz", "/api?q=zzz", "/feed?q=zzz"] {
        assert!(!wikis.visitor(0).get(target).body.contains("Zoo"));
    }
    wikis.save(1, "Zoo", "zzz");
    for target in ["/?q=zzz", "/api?q=zzz", "/feed?q=zzz"] {
        assert!(wikis.visitor(0).get(target).body.contains("Zoo"), "{target}");
    }
}

#[test]
fn a_comment_is_shown_at_once_and_the_lists_stay_cached() {
    let wikis = Wikis::start();
    wikis.save(0, "Dairy", "milk");
    wikis.visitor(0).get("/");
    for (comment, process) in [("first", 0), ("second", 1)] {
        let form = [("text", comment)];
        let added = wikis.visitor(process).post_form("/wiki/Dairy/comments", &form);
        assert_eq!((added.status, added.header("location").as_str()), (303, "/wiki/Dairy"));
        for process in 0..2 {
            assert!(wikis.visitor(process).get("/wiki/Dairy").body.contains(comment));
        }
    }
    assert!(is_hit(&wikis.visitor(1).get("/")));
}

#[test]
fn a_visitor_with_a_name_is_greeted_and_nobody_else_by_that_name() {
    let wikis = Wikis::start();
    wikis.save(0, "Dairy", "milk");
    let ada = wikis.visitor(0);
    assert_eq!(ada.post_form("/log-in", &[("text", "Ada")]).status, 303);
    for target in ["/", "/?q=milk", "/wiki/Dairy"] {
        assert!(ada.get(target).body.contains("I am Ada"), "{target}");
        assert!(is_hit(&ada.get(target)), "her own page is cached");
        for process in 0..2 {
            let stranger = wikis.visitor(process);
            assert!(!stranger.get(target).body.contains("Ada"), "{target}");
            let tracked = stranger.get_with(target, &[("cookie", "_ga=1")]);
            assert!(is_hit(&tracked) && !tracked.body.contains("Ada"), "{target}");
        }
    }
}

#[test]
fn head_is_answered_like_get_also_before_the_page_is_cached() {
    let wikis = Wikis::start();
    wikis.save(0, "Dairy", "milk");
    for target in LISTS.into_iter().chain(["/wiki/Dairy"]) {
        let visitor = wikis.visitor(0);
        let head = visitor.send("HEAD", target, &[], "");
        let get = visitor.get(target);
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{target}");
        for name in ["content-type", "content-length", "etag", "cache-control"] {
            assert_eq!(head.header(name), get.header(name), "{name} of {target}");
        }
        wikis.save(1, "Dairy", "milk");
    }
}

#[test]
fn without_memcached_the_pages_are_slower_and_after_its_return_they_are_fresh() {
    let wikis = Wikis::start();
    wikis.save(0, "Dairy", "milk");
    let visitors = [wikis.visitor(0), wikis.visitor(1)];
    let show = |text| visitors.iter().all(|visitor| visitor.get("/").body.contains(text));
    assert!(show("milk"));
    wikis.server.signal("STOP");
    wikis.save(0, "Dairy", "butter");
    assert!(show("butter"));
    // The server still has the old page. It is used again only after the invalidation was replayed.
    wikis.server.signal("CONT");
    wait_until("the page is cached again", || {
        visitors.iter().all(|visitor| {
            let reply = visitor.get("/");
            assert!(reply.body.contains("butter"), "{}", reply.body);
            is_hit(&reply)
        })
    });
}
