//! Two writers that update an entry in place, in the wrong order: forced.

use std::error::Error;

use everfresh::{Cache, Lifetime};
use step_01::database::{Database, Task};
use tokio::sync::Notify;

// ANCHOR: order
/// Adds a task, reads the list, waits for its turn, and stores the list.
async fn write(
    name: &str,
    cache: &Cache,
    database: &Database,
    turn: impl Future<Output = ()>,
) -> Result<(), actix_web::Error> {
    database.insert(name.to_owned()).await?;
    let tasks: Vec<Task> = database.tasks().await?;
    turn.await;
    cache.set("tasks", &tasks, Lifetime::Forever).await;
    let names: Vec<_> = tasks.iter().map(|task| task.name.as_str()).collect();
    println!("the writer of {name} stores: {}", names.join(", "));
    Ok(())
}
// ANCHOR_END: order

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let database = Database::open_file(&folder.path().join("order.sqlite3").to_string_lossy())?;
    let cache = Cache::memory(1 << 20).build();
    let (has_read, has_stored) = (Notify::new(), Notify::new());

    // The first writer has read its list when the second begins, and stores it last.
    let first = write("Milk", &cache, &database, async {
        has_read.notify_one();
        has_stored.notified().await;
    });
    let second = async {
        has_read.notified().await;
        let written = write("Tea", &cache, &database, async {}).await;
        has_stored.notify_one();
        written
    };
    let (first, second) = tokio::join!(first, second);
    first?;
    second?;
    let shown: Vec<Task> = cache.get("tasks").await.unwrap_or_default();
    println!("the database has {} tasks, the entry {}", database.tasks().await?.len(), shown.len());
    Ok(())
}
