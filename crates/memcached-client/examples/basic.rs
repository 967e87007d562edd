//! Get, set, add, replace and delete: one value at a time.
//!
//! ```sh
//! cargo run -p memcached-client --example basic
//! ```
//!
//! All examples use the servers in `MEMCACHE_SERVERS`; without it, a memcached on this machine.

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{env, error::Error, time::Duration};

use memcached_client::{Client, Config, Item};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let servers = env::var("MEMCACHE_SERVERS").unwrap_or("127.0.0.1".to_owned());
    let client = Client::new(Config::parse(&servers)?);

    client.delete("colour").await?;
    println!("get: {:?}", text(&client, "colour").await?);

    let minute = Duration::from_secs(60);
    client.set("colour", Item::from("blue").expires_in(minute)).await?;
    println!("set and get: {:?}", text(&client, "colour").await?);

    // `add` stores only if there is no entry, `replace` only if there is one.
    println!("add: {}", client.add("colour", "red").await?);
    println!("replace: {}", client.replace("colour", "green").await?);
    println!("get: {:?}", text(&client, "colour").await?);

    println!("delete: {:?}", client.delete("colour").await?);
    Ok(())
}

async fn text(client: &Client, key: &str) -> Result<Option<String>, memcached_client::Error> {
    let value = client.get(key).await?;
    Ok(value.map(|value| String::from_utf8_lossy(&value.data).into_owned()))
}
