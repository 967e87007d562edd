//! The state of each server: as this client sees it, and as the server counts.
//!
//! ```sh
//! cargo run -p memcached-client --example stats
//! ```

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{env, error::Error};

use memcached_client::{Client, Config};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let servers = env::var("MEMCACHE_SERVERS").unwrap_or("127.0.0.1".to_owned());
    let client = Client::new(Config::parse(&servers)?);
    client.set("colour", "blue").await?;

    for status in client.status() {
        println!("{}: {:?}, outages: {}", status.address, status.state, status.outages);
    }
    for (address, stats) in client.stats().await {
        for (name, value) in stats? {
            if ["version", "curr_items", "get_hits", "get_misses"].contains(&name.as_str()) {
                println!("{address}: {name} {value}");
            }
        }
    }
    Ok(())
}
