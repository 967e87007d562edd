//! Chapter 3: the list is fresh after every write, whatever happens in between.

use actix_web::{
    App, HttpServer, Result,
    middleware::from_fn,
    web::{self, Data, Form, Html, Path, Redirect},
};
use everfresh::{Cache, DieselWriter, Invalidation, Lifetime};
use serde::Deserialize;
use step_01::{
    database::{self, Database, Task, failed},
    forms::refuse_other_sites,
    page,
};
use step_03::{Pool, open_cache};

#[derive(Deserialize)]
struct NewTask {
    name: String,
}

// ANCHOR: list
async fn list(cache: Data<Cache>, database: Data<Database>) -> Result<Html> {
    let read = async || database.tasks().await;
    let tasks: Vec<Task> = cache.get_or_compute("tasks", Lifetime::Forever, read).await?;
    page::list(&tasks)
}
// ANCHOR_END: list

// ANCHOR: writes
async fn add(writer: Data<DieselWriter<Pool>>, Form(task): Form<NewTask>) -> Result<Redirect> {
    let added = writer.write(move |conn| {
        database::insert(conn, &task.name)?;
        Ok(((), Invalidation::of(["tasks"])))
    });
    added.await.map_err(failed)?;
    Ok(Redirect::to("/").see_other())
}

async fn delete(writer: Data<DieselWriter<Pool>>, id: Path<i32>) -> Result<Redirect> {
    let deleted = writer.write(move |conn| {
        database::delete(conn, *id)?;
        Ok(((), Invalidation::of(["tasks"])))
    });
    deleted.await.map_err(failed)?;
    Ok(Redirect::to("/").see_other())
}
// ANCHOR_END: writes

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

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = Database::open()?;
    let (cache, pool) = open_cache(&database, "step3:")?;
    let name = cache.backend_name();
    let cache = cache.layer("query");
    let writer = Data::new(cache.diesel_writer(pool));
    let (database, cache) = (Data::new(database), Data::new(cache));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(database.clone())
            .app_data(cache.clone())
            .app_data(writer.clone())
            .wrap(from_fn(refuse_other_sites))
            .service(web::resource("/").get(list).post(add))
            .service(web::resource("/stats").get(stats))
            .service(web::resource("/{id}/delete").post(delete))
    });
    let server = server.bind(step_01::address())?;
    println!("listening on http://{} (cache: {name})", server.addrs()[0]);
    Ok(server.run().await?)
}
