//! Delete: the write deletes the entry, with a lease and a ledger, as in chapter 3.

use actix_web::Result;
use everfresh::{Cache, Invalidation, Lifetime, Memo};
use step_01::database::{Database, Task};

// ANCHOR: delete
const TASKS: Memo<(), Vec<Task>> = Memo::new("deleted tasks", Lifetime::Forever);

pub async fn tasks(cache: &Cache, database: &Database) -> Result<Vec<Task>> {
    TASKS.call(cache, &(), async || database.tasks().await).await
}

pub fn invalidation() -> Invalidation {
    Invalidation::of([TASKS.key(&())])
}
// ANCHOR_END: delete
