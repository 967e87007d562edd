//! A value that several clients change at the same time: read it with its token, and store the change only if the value is
//! still the same; else try again.
//!
//! ```sh
//! cargo run -p memcached-client --example cas_loop
//! ```

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{env, error::Error};

use memcached_client::{Client, Config, Swap};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let servers = env::var("MEMCACHE_SERVERS").unwrap_or("127.0.0.1".to_owned());
    let client = Client::new(Config::parse(&servers)?);
    client.set("visitors", "").await?;

    let names = ["Ada", "Grace", "Mary", "Edsger"];
    let tasks = names.map(|name| {
        let client = client.clone();
        tokio::spawn(async move { append(&client, name).await })
    });
    for task in tasks {
        task.await??;
    }
    let value = client.get("visitors").await?.ok_or("the entry was evicted")?;
    let list = String::from_utf8_lossy(&value.data).into_owned();
    println!("{} visitors, none lost", list.split_terminator(',').count());
    Ok(())
}

async fn append(client: &Client, name: &str) -> Result<(), memcached_client::Error> {
    while let Some(value) = client.get_with_cas("visitors").await? {
        // Without tokens (memcached -C), a change of another client can be lost.
        let Some(cas) = value.cas else { break };
        let longer = format!("{}{name},", String::from_utf8_lossy(&value.data));
        if let Swap::Done(_) = client.compare_and_swap("visitors", longer.as_str(), cas).await? {
            break;
        }
    }
    Ok(())
}
