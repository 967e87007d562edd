//! Many keys at once: one round trip per server, however many keys there are.
//!
//! ```sh
//! cargo run -p memcached-client --example batch
//! ```

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{env, error::Error};

use memcached_client::{Client, Config, Item};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let servers = env::var("MEMCACHE_SERVERS").unwrap_or("127.0.0.1".to_owned());
    let client = Client::new(Config::parse(&servers)?);

    let items = [("a", Item::from("1")), ("b", Item::from("2")), ("c", Item::from("3"))];
    let stored = client.set_many(&items).await;
    println!("stored: {}", stored.iter().filter(|outcome| outcome.is_ok()).count());

    // In the order of the keys, with one result for each: a miss is no error.
    for (key, found) in
        ["c", "missing", "a"].iter().zip(client.get_many(&["c", "missing", "a"]).await)
    {
        let value = found?.map(|value| String::from_utf8_lossy(&value.data).into_owned());
        println!("{key}: {value:?}");
    }

    // As a map of what was found, where the reason for a miss does not matter.
    println!("found: {}", client.get_map(&["a", "b", "missing"]).await.len());

    let deleted = client.delete_many(&["a", "b", "c"]).await;
    println!("deleted: {}", deleted.iter().filter(|outcome| outcome.is_ok()).count());
    Ok(())
}
