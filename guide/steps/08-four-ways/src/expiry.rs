//! Expiry: the entry lives for two seconds, whatever is written.

use std::time::Duration;

use actix_web::Result;
use everfresh::{Cache, Lifetime, Memo};
use step_01::database::{Database, Task};

// ANCHOR: expiry
const TASKS: Memo<(), Vec<Task>> =
    Memo::new("expiring tasks", Lifetime::For(Duration::from_secs(2)));

pub async fn tasks(cache: &Cache, database: &Database) -> Result<Vec<Task>> {
    TASKS.call(cache, &(), async || database.tasks().await).await
}
// ANCHOR_END: expiry
