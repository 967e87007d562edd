//! A reader that reads before a write, and stores after it: forced, by hand and with a lease.

use std::error::Error;

use everfresh::{Cache, Lifetime};
use step_01::database::{Database, Task};
use step_03::open_plain_cache;
use tokio::sync::Notify;

/// The order of events: the reader has read, then the writer writes, then the reader stores.
#[derive(Default)]
struct Turns {
    has_read: Notify,
    has_written: Notify,
}

// ANCHOR: reader
/// Reads the list, and is then held up until the writer is done.
async fn read(database: &Database, turns: &Turns) -> Result<Vec<Task>, actix_web::Error> {
    let tasks = database.tasks().await?;
    println!("  reader: reads {}", names(&tasks));
    turns.has_read.notify_one();
    turns.has_written.notified().await;
    Ok(tasks)
}

async fn read_by_hand(
    cache: &Cache,
    database: &Database,
    turns: &Turns,
) -> Result<Vec<Task>, actix_web::Error> {
    if let Some(tasks) = cache.get("tasks").await {
        return Ok(tasks);
    }
    let tasks = read(database, turns).await?;
    cache.set("tasks", &tasks, Lifetime::Forever).await;
    Ok(tasks)
}

async fn read_with_lease(
    cache: &Cache,
    database: &Database,
    turns: &Turns,
) -> Result<Vec<Task>, actix_web::Error> {
    let read = async || read(database, turns).await;
    cache.get_or_compute("tasks", Lifetime::Forever, read).await
}
// ANCHOR_END: reader

// ANCHOR: writer
async fn write(cache: &Cache, database: &Database, turns: &Turns) -> Result<(), actix_web::Error> {
    turns.has_read.notified().await;
    database.insert("Tea".to_owned()).await?;
    println!("  writer: adds Tea");
    cache.delete("tasks").await;
    println!("  writer: deletes the entry");
    turns.has_written.notify_one();
    Ok(())
}
// ANCHOR_END: writer

fn names(tasks: &[Task]) -> String {
    let names: Vec<_> = tasks.iter().map(|task| task.name.as_str()).collect();
    names.join(", ")
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    for has_lease in [false, true] {
        println!("{}", if has_lease { "with a lease:" } else { "by hand:" });
        let folder = tempfile::tempdir()?;
        let database = Database::open_file(&folder.path().join("race.sqlite3").to_string_lossy())?;
        database.insert("Milk".to_owned()).await?;
        let cache = open_plain_cache("race:")?;
        cache.delete("tasks").await;

        let turns = Turns::default();
        let reader = async {
            match has_lease {
                false => read_by_hand(&cache, &database, &turns).await,
                true => read_with_lease(&cache, &database, &turns).await,
            }
        };
        let (tasks, written) = tokio::join!(reader, write(&cache, &database, &turns));
        println!("  reader: shows {}", names(&tasks?));
        written?;

        // The next visitor.
        let read = async || database.tasks().await;
        let tasks = cache.get_or_compute("tasks", Lifetime::Forever, read).await?;
        println!("  next visitor: sees {}", names(&tasks));
    }
    Ok(())
}
