//! A hook that is called for each operation and each change of a server: for a log, or for metrics.
//!
//! ```sh
//! cargo run -p memcached-client --example hook
//! ```

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{env, error::Error};

use memcached_client::{Client, Config, Event, Observer, Outcome};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let servers = env::var("MEMCACHE_SERVERS").unwrap_or("127.0.0.1".to_owned());
    let mut config = Config::parse(&servers)?;
    // It runs on the task of the operation, so it must not block.
    config.observer = Some(Observer::new(|event| match event {
        Event::Operation { command, outcome: Outcome::Failed(error), .. } => {
            println!("{command:?} failed: {error}");
        }
        Event::Operation { command, duration, bytes, .. } => {
            println!("{command:?}: {bytes} bytes, in time: {}", duration.as_secs() == 0);
        }
        Event::Down { server, reason } => println!("{server} is down: {reason}"),
        Event::Up { server } => println!("{server} is up again"),
        _ => {}
    }));
    let client = Client::new(config);
    client.set("colour", "blue").await?;
    client.get("colour").await?;
    client.get("size").await?;
    Ok(())
}
