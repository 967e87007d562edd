//! Chapter 10: the list, with what a platform asks of it.

mod monitor;
mod settings;

use std::process::ExitCode;

use actix_web::{
    App, HttpServer, Result,
    middleware::from_fn,
    web::{self, Data, Form, Html, Path, Redirect},
};
use diesel::SqliteConnection;
use everfresh::{
    Cache, CacheMetrics, Dialect, DieselLedger, DieselPool, DieselWriter, Invalidation, Lifetime,
    Memo, Templates, ViewCache, view_key,
};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use step_01::{
    database::{self, Database, Task, failed},
    forms::refuse_other_sites,
};
use tera::{Context, Tera};

use crate::settings::Settings;

type Pool = DieselPool<SqliteConnection>;

const TASKS: Memo<(), Vec<Task>> = Memo::new("tasks", Lifetime::Forever);

#[derive(Deserialize)]
struct NewTask {
    name: String,
}

async fn list(
    cache: Data<Cache>,
    database: Data<Database>,
    templates: Data<Templates>,
) -> Result<Html> {
    let read = async || database.tasks().await;
    let mut context = Context::new();
    context.insert("tasks", &TASKS.call(&cache.layer("query"), &(), read).await?);
    let page = templates.render(&cache.layer("fragment"), "list.html", &context).await;
    page.map(Html::new).map_err(failed)
}

/// What a write makes wrong: first the query, then the page that is made of it.
fn of_tasks() -> Invalidation {
    Invalidation::of([TASKS.key(&())]).then([view_key("/")])
}

async fn add(writer: Data<DieselWriter<Pool>>, Form(task): Form<NewTask>) -> Result<Redirect> {
    let added = writer.write(move |conn| Ok((database::insert(conn, &task.name)?, of_tasks())));
    added.await.map_err(failed)?;
    Ok(Redirect::to("/").see_other())
}

async fn delete(writer: Data<DieselWriter<Pool>>, id: Path<i32>) -> Result<Redirect> {
    let deleted = writer.write(move |conn| Ok((database::delete(conn, *id)?, of_tasks())));
    deleted.await.map_err(failed)?;
    Ok(Redirect::to("/").see_other())
}

// ANCHOR: main
#[actix_web::main]
async fn main() -> ExitCode {
    let run = match Settings::read() {
        Ok(settings) => run(settings).await,
        Err(wrong) => {
            eprintln!("{wrong}");
            return ExitCode::from(2);
        }
    };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
    let database = Database::connect(&database::file())?;
    if std::env::args().nth(1).as_deref() == Some("migrate") {
        database.migrate()?;
        println!("the tables are up to date");
        return Ok(());
    }

    let pool = Pool::new(database.pool.clone(), Dialect::Sqlite);
    let metrics = CacheMetrics::default();
    let cache = Cache::from_env_with_ledger(DieselLedger(pool.clone()))?
        .prefix("step10:")
        .secret(settings.secret_key.as_str())
        .observe(metrics.observer())
        .build();
    let mut registry = Registry::default();
    metrics.register(&mut registry, &cache);
    // ANCHOR_END: main
    let name = cache.backend_name();
    let writer = Data::new(cache.diesel_writer(pool));
    let list_template = ("list.html", include_str!("../../06-pages/templates/list.html"));
    let templates = Templates::new(Tera::default(), [list_template])?;
    let views = ViewCache::builder(cache.layer("view")).version(templates.digest()).build();
    let address = settings.address.clone();
    let (database, cache, templates) =
        (Data::new(database), Data::new(cache), Data::new(templates));
    let (settings, registry) = (Data::new(settings), Data::new(registry));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(database.clone())
            .app_data(cache.clone())
            .app_data(writer.clone())
            .app_data(templates.clone())
            .app_data(settings.clone())
            .app_data(registry.clone())
            .wrap(from_fn(refuse_other_sites))
            .service(web::resource("/").wrap(views.clone()).get(list).post(add))
            .service(web::resource("/healthz").get(monitor::healthz))
            .service(web::resource("/readyz").get(monitor::readyz))
            .service(web::resource("/metrics").get(monitor::metrics))
            .service(web::resource("/{id}/delete").post(delete))
    });
    // On SIGTERM, requests in progress are finished: a platform waits for 30 seconds, then kills.
    let server = server.shutdown_timeout(20).bind(address)?;
    println!("listening on http://{} (cache: {name})", server.addrs()[0]);
    Ok(server.run().await?)
}
