//! Chapter 2: a slow query, cached by hand. After a write the list is stale: chapter 3 mends that.

use std::time::Duration;

use actix_web::{
    App, HttpServer, Result,
    middleware::from_fn,
    rt::time::sleep,
    web::{self, Data, Form, Html, Path, Redirect},
};
use everfresh::{Cache, Lifetime};
use serde::Deserialize;
use step_01::{
    database::{Database, Task},
    forms::refuse_other_sites,
    page,
};

#[derive(Deserialize)]
struct NewTask {
    name: String,
}

// ANCHOR: slow
/// Stands for a query that takes long.
async fn slow_query(database: &Database) -> Result<Vec<Task>> {
    sleep(Duration::from_secs(2)).await;
    database.tasks().await
}
// ANCHOR_END: slow

// ANCHOR: list
async fn list(cache: Data<Cache>, database: Data<Database>) -> Result<Html> {
    let cached: Option<Vec<Task>> = cache.get("tasks").await;
    let tasks = match cached {
        Some(tasks) => tasks,
        None => {
            let tasks = slow_query(&database).await?;
            cache.set("tasks", &tasks, Lifetime::Forever).await;
            tasks
        }
    };
    page::list(&tasks)
}
// ANCHOR_END: list

async fn add(database: Data<Database>, Form(task): Form<NewTask>) -> Result<Redirect> {
    database.insert(task.name).await?;
    Ok(Redirect::to("/").see_other())
}

async fn delete(database: Data<Database>, id: Path<i32>) -> Result<Redirect> {
    database.delete(*id).await?;
    Ok(Redirect::to("/").see_other())
}

// ANCHOR: stats
/// What the cache has counted since the program started.
async fn stats(cache: Data<Cache>) -> String {
    let mut lines = String::new();
    for (layer, counted) in cache.stats() {
        if counted.hits + counted.misses == 0 {
            continue;
        }
        lines += &format!("{layer}: {} hits, {} misses\n", counted.hits, counted.misses);
    }
    lines
}
// ANCHOR_END: stats

// ANCHOR: main
#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = Data::new(Database::open()?);
    // In the servers that MEMCACHE_SERVERS names; without it, in this process.
    let cache = Cache::from_env()?.prefix("step2:").build();
    let name = cache.backend_name();
    let cache = Data::new(cache.layer("query"));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(database.clone())
            .app_data(cache.clone())
            .wrap(from_fn(refuse_other_sites))
            .service(web::resource("/").get(list).post(add))
            .service(web::resource("/stats").get(stats))
            .service(web::resource("/{id}/delete").post(delete))
    });
    let server = server.bind(step_01::address())?;
    println!("listening on http://{} (cache: {name})", server.addrs()[0]);
    Ok(server.run().await?)
}
// ANCHOR_END: main
