//! Update in place: the write stores the new list.

use actix_web::Result;
use everfresh::{Cache, Lifetime};
use step_01::database::{Database, Task};

// ANCHOR: update
pub async fn tasks(cache: &Cache, database: &Database) -> Result<Vec<Task>> {
    match cache.get("updated tasks").await {
        Some(tasks) => Ok(tasks),
        None => database.tasks().await,
    }
}

pub async fn after_write(cache: &Cache, database: &Database) -> Result<()> {
    let tasks = database.tasks().await?;
    cache.set("updated tasks", &tasks, Lifetime::Forever).await;
    Ok(())
}
// ANCHOR_END: update
