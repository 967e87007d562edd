//! A value that is slow to compute and may be a little old: while one caller computes it again, and after a failure, the last
//! one is served.
//!
//! ```sh
//! cargo run -p everfresh --example stale
//! ```

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::time::Duration;

use everfresh::{Cache, Lifetime, Memo};

const WEATHER: Memo<str, String> = Memo::new(
    "weather",
    // Ask again after a tenth of a second; for an hour, an old answer is better than none.
    Lifetime::For(Duration::from_millis(100)).stale_for(Duration::from_secs(3600)),
);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), &'static str> {
    let cache = Cache::memory(1 << 20).build();
    let weather = async |answer: Result<&str, &'static str>| {
        WEATHER.call(&cache, "Zurich", async || answer.map(str::to_owned)).await
    };
    println!("{}", weather(Ok("sunny")).await?);
    println!("{}", weather(Ok("rain")).await?);
    tokio::time::sleep(Duration::from_millis(150)).await;
    println!("the service fails: {}", weather(Err("no answer")).await?);
    println!("it answers: {}", weather(Ok("rain")).await?);
    println!("served stale: {}", cache.stats()["cache"].stale);
    Ok(())
}
