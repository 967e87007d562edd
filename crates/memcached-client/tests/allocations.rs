//! The number of memory allocations per operation.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use memcached_client::Protocol;
use test_support::memcached::{Kind, Memcached};

/// Counts on the thread of the caller, which serves the connection too.
#[test]
fn a_get_of_a_hit_takes_at_most_two_allocations() {
    const GETS: u64 = 1000;
    let server = Memcached::start(Kind::Plain);
    let client = server.client(Protocol::Binary);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let gets = async {
        for _ in 0..GETS {
            assert_eq!(client.get("k").await.unwrap().unwrap().data.len(), 300);
        }
    };
    runtime.block_on(async {
        client.set("k", &[b'x'; 300]).await.unwrap();
        client.get("k").await.unwrap();
    });
    let counted = allocation_counter::measure(|| runtime.block_on(gets));
    let per_get = counted.count_total.div_ceil(GETS);
    assert!(per_get <= 2, "{} allocations for {GETS} gets", counted.count_total);
}
