//! Forged and damaged entries, written by other users of the memcached server.

use everfresh::{Cache, Lifetime};
use memcached_client::Protocol;
use test_support::database::TestDatabase;

use super::{block_on, cached_app};

const KEYS: [&str; 3] = ["view//", "tasks.all", "task-fragment/1"];

#[test]
fn write_access_to_memcached_can_neither_forge_nor_swap_a_page() {
    let (app, server) = cached_app(TestDatabase::sqlite(), &[("CACHE_KEY_PREFIX", "")]);
    app.with_tasks(&["Milk"]);
    app.settle();
    app.browser().get("/");
    let client = server.client(Protocol::Binary);
    let page = || app.browser().get("/");
    let stored = |key: &str| block_on(client.get(key)).unwrap().unwrap().data;

    // Well-formed entries of an app that does not know the secret.
    let forger = Cache::memcached(server.client(Protocol::Binary)).build();
    for key in KEYS {
        block_on(forger.set(key, &vec![("<script>", 1)], Lifetime::Forever));
        assert_eq!(page().task_names(), ["Milk"], "{key}");
    }

    // Genuine entries under the wrong keys.
    page();
    block_on(client.set("task-fragment/1", &stored("tasks.all")[..])).unwrap();
    block_on(client.set("view//", &stored("task-fragment/1")[..])).unwrap();
    assert_eq!(page().task_names(), ["Milk"]);

    // Genuine entries with a flipped bit.
    for key in ["tasks.all", "task-fragment/1", "view//"] {
        page();
        let mut bytes = stored(key).to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        block_on(client.set(key, &bytes[..])).unwrap();
        if key != "view//" {
            // An intact page would hide the damaged entry below it.
            block_on(client.delete("view//")).unwrap();
        }
        assert_eq!(page().task_names(), ["Milk"], "{key}");
    }
}
