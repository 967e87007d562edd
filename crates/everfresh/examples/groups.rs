//! A list with pages: a write cannot name all pages that it makes wrong, so it forgets their group.
//!
//! ```sh
//! cargo run -p everfresh --example groups
//! ```

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::convert::Infallible;

use everfresh::{Cache, Invalidation, Lifetime, Memo, group_key};

const PAGE_LENGTH: usize = 2;

const PAGE: Memo<usize, Vec<String>> =
    Memo::new("tasks.page", Lifetime::Forever).in_groups(&["tasks"]);

async fn page(cache: &Cache, stored: &[&str], number: usize) -> String {
    let read = async || {
        println!("reading page {number}");
        let from = stored.iter().skip(PAGE_LENGTH * (number - 1)).take(PAGE_LENGTH);
        from.map(ToString::to_string).collect()
    };
    PAGE.get_with(cache, &number, read).await.join(", ")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Infallible> {
    let cache = Cache::memory(1 << 20).build();
    let mut stored = vec!["Milk", "Tea", "Bread"];

    for number in [1, 2, 1, 2] {
        println!("page {number}: {}", page(&cache, &stored, number).await);
    }

    // Every page moves up.
    stored.remove(0);
    cache.invalidate(&Invalidation::of([group_key("tasks")])).await;
    for number in [1, 2] {
        println!("page {number}: {}", page(&cache, &stored, number).await);
    }
    Ok(())
}
