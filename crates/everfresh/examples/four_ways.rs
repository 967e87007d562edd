//! Four ways to keep entries fresh, and what each risks.
//!
//! ```sh
//! cargo run -p everfresh --example four_ways
//! ```

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::time::Duration;

use everfresh::{Cache, Lifetime, Memo};

/// The version of the data is an argument.
const TITLE_OF: Memo<u32, String> = Memo::new("title", Lifetime::Forever);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let cache = Cache::memory(1 << 20).build();
    let title = |version: u32| format!("title, version {version}");

    // 1. Delete: right after the write. Leases keep a reader that was faster from storing the old value.
    cache.get_with("deleted", Lifetime::Forever, async || title(1)).await;
    cache.delete("deleted").await;
    let found = cache.get_with("deleted", Lifetime::Forever, async || title(2)).await;
    println!("deleted: {found}");

    // 2. Expiry: the old value is served until its time is over.
    let hour = Lifetime::For(Duration::from_secs(3600));
    cache.get_with("expiring", hour, async || title(1)).await;
    let found = cache.get_with("expiring", hour, async || title(2)).await;
    println!("expiring: {found}, for an hour");

    // 3. A key for each version: the version must be read fresh, and old entries stay until they are evicted.
    TITLE_OF.get_with(&cache, &1, async || title(1)).await;
    let found = TITLE_OF.get_with(&cache, &2, async || title(2)).await;
    println!("a key for each version: {found}");

    // 4. Update in place: two writers in the wrong order leave the older value.
    for version in [3, 2] {
        cache.set("updated", &title(version), Lifetime::Forever).await;
    }
    let found: Option<String> = cache.get("updated").await;
    println!("updated in the wrong order: {}", found.unwrap_or_default());
}
