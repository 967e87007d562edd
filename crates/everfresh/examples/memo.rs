//! Functions with arguments: results are stored under a key of the arguments, and forgotten by it.
//!
//! ```sh
//! cargo run -p everfresh --features macros --example memo
//! ```

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::{convert::Infallible, io};

use everfresh::{Cache, Lifetime, Memo, memoize};

/// A memo as a constant: borrowed arguments need no copy.
const GREETING: Memo<(&str, u32), String> = Memo::new("greeting", Lifetime::Forever);

/// The same by an attribute. `LENGTH` is its memo.
#[memoize(lifetime = Lifetime::Forever)]
async fn length(cache: &Cache, text: &str) -> Result<usize, io::Error> {
    println!("counting the letters of {text}");
    Ok(text.chars().count())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), io::Error> {
    let cache = Cache::memory(1 << 20).build();

    for name in ["Ada", "Grace", "Ada"] {
        let greet = async || {
            println!("greeting {name}");
            format!("Hello, {name}!")
        };
        println!("{}", GREETING.get_with(&cache, &(name, 1), greet).await);
    }

    println!("{}", length(&cache, "Ada").await?);
    println!("{}", length(&cache, "Ada").await?);
    LENGTH.forget(&cache, &"Ada").await;
    println!("{}", length(&cache, "Ada").await?);

    // Several at once: missing results are computed in one call.
    let names = [("Ada", 1), ("Mary", 1)];
    let greetings = GREETING.call_many(&cache, &names, async |missing: &[&(&str, u32)]| {
        println!("greeting {} of {}", missing.len(), names.len());
        let greet =
            |arguments: &&(&'static str, u32)| (**arguments, format!("Hello, {}!", arguments.0));
        Ok::<Vec<_>, Infallible>(missing.iter().map(greet).collect())
    });
    let Ok(greetings) = greetings.await;
    println!("{}", greetings.into_iter().flatten().collect::<Vec<_>>().join(" "));
    Ok(())
}
