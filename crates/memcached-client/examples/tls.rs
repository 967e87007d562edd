//! TLS between client and server, with the certificates of the system, or an authority of your own.
//!
//! ```sh
//! MEMCACHE_SERVERS=tls://cache.example.com MEMCACHE_CA_FILE=ca.pem \
//!     cargo run -p memcached-client --features tls --example tls
//! ```
//!
//! Without these settings it says what it needs: a memcached with TLS (`-Z`) is rarely on the developer's machine.

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{env, error::Error};

use memcached_client::{Client, Config};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let Ok(servers) = env::var("MEMCACHE_SERVERS") else {
        println!(
            "set MEMCACHE_SERVERS=tls://HOST:PORT, and MEMCACHE_CA_FILE for an authority of your own"
        );
        return Ok(());
    };
    let mut config = Config::parse(&servers)?;
    config.tls.ca_file = env::var_os("MEMCACHE_CA_FILE").map(Into::into);
    config.tls.server_name = env::var("MEMCACHE_TLS_NAME").ok();
    let client = Client::new(config);

    // An expired, foreign or wrong certificate is an error at once, and the connection is not used.
    client.set("colour", "blue").await?;
    let found = client.get("colour").await?.map(|value| value.data.len());
    println!("stored and read over TLS: {found:?} bytes");
    Ok(())
}
