//! Chapter 8: four ways to keep an entry fresh. The same list four times, one way each.

mod delete;
mod expiry;
mod update;
mod version;

use actix_web::{
    App, HttpServer, Result,
    middleware::from_fn,
    web::{self, Data, Form, Path, Redirect},
};
use diesel::SqliteConnection;
use everfresh::{Cache, Dialect, DieselLedger, DieselPool, DieselWriter};
use serde::Deserialize;
use step_01::{
    database::{self, Database, Task, failed},
    forms::refuse_other_sites,
};

type Pool = DieselPool<SqliteConnection>;

#[derive(Deserialize)]
struct NewTask {
    name: String,
}

// ANCHOR: list
async fn list(cache: Data<Cache>, database: Data<Database>, way: Path<String>) -> Result<String> {
    let tasks = match way.as_str() {
        "expiry" => expiry::tasks(&cache, &database).await?,
        "delete" => delete::tasks(&cache, &database).await?,
        "version" => version::tasks(&cache, &database).await?,
        "update" => update::tasks(&cache, &database).await?,
        _ => return Err(actix_web::error::ErrorNotFound("expiry, delete, version or update\n")),
    };
    Ok(text(&tasks))
}

async fn add(
    cache: Data<Cache>,
    database: Data<Database>,
    writer: Data<DieselWriter<Pool>>,
    Form(task): Form<NewTask>,
) -> Result<Redirect> {
    let write = move |conn: &mut SqliteConnection| {
        database::insert(conn, &task.name)?;
        version::count_up(conn)?;
        Ok(((), delete::invalidation()))
    };
    writer.write(write).await.map_err(failed)?;
    update::after_write(&cache, &database).await?;
    Ok(Redirect::to("/").see_other())
}
// ANCHOR_END: list

fn text(tasks: &[Task]) -> String {
    let names: Vec<_> = tasks.iter().map(|task| task.name.as_str()).collect();
    names.join(", ") + "\n"
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = Database::open()?;
    version::prepare(&database).await?;
    let pool = Pool::new(database.pool.clone(), Dialect::Sqlite);
    let cache = Cache::from_env_with_ledger(DieselLedger(pool.clone()))?.prefix("step8:").build();
    let name = cache.backend_name();
    let writer = Data::new(cache.diesel_writer(pool));
    let (database, cache) = (Data::new(database), Data::new(cache));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(database.clone())
            .app_data(cache.clone())
            .app_data(writer.clone())
            .wrap(from_fn(refuse_other_sites))
            .service(web::resource("/").post(add))
            .service(web::resource("/{way}").get(list))
    });
    let server = server.bind(step_01::address())?;
    println!("listening on http://{} (cache: {name})", server.addrs()[0]);
    Ok(server.run().await?)
}
