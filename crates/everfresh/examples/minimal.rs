//! The least: a value that is computed once, and again after a write.
//!
//! ```sh
//! cargo run -p everfresh --example minimal
//! ```

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use everfresh::{Cache, Lifetime};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let cache = Cache::memory(1 << 20).build();
    let mut stored = vec!["Milk"];

    for _ in 0..2 {
        let names = cache.get_with("names", Lifetime::Forever, async || {
            println!("reading the database");
            stored.join(", ")
        });
        println!("{}", names.await);
    }

    // A write deletes the entries that it invalidates.
    stored.push("Tea");
    cache.delete("names").await;
    let names = cache.get_with("names", Lifetime::Forever, async || stored.join(", "));
    println!("{}", names.await);
}
