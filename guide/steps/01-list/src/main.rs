//! Chapter 1: a task list. Nothing is cached yet.

use actix_web::{
    App, HttpServer, Result,
    middleware::from_fn,
    web::{self, Data, Form, Html, Path, Redirect},
};
use serde::Deserialize;
use step_01::{database::Database, forms::refuse_other_sites, page};

// ANCHOR: handlers
#[derive(Deserialize)]
struct NewTask {
    name: String,
}

async fn list(database: Data<Database>) -> Result<Html> {
    page::list(&database.tasks().await?)
}

async fn add(database: Data<Database>, Form(task): Form<NewTask>) -> Result<Redirect> {
    database.insert(task.name).await?;
    Ok(Redirect::to("/").see_other())
}

async fn delete(database: Data<Database>, id: Path<i32>) -> Result<Redirect> {
    database.delete(*id).await?;
    Ok(Redirect::to("/").see_other())
}
// ANCHOR_END: handlers

// ANCHOR: main
#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = Data::new(Database::open()?);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(database.clone())
            .wrap(from_fn(refuse_other_sites))
            .service(web::resource("/").get(list).post(add))
            .service(web::resource("/{id}/delete").post(delete))
    });
    let server = server.bind(step_01::address())?;
    println!("listening on http://{}", server.addrs()[0]);
    Ok(server.run().await?)
}
// ANCHOR_END: main
