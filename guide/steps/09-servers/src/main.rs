//! Chapter 9: several processes and several servers.

use actix_web::{
    App, HttpServer, Result,
    middleware::from_fn,
    web::{self, Data, Form, Html, Path, Redirect},
};
use diesel::SqliteConnection;
use everfresh::{
    Cache, Dialect, DieselLedger, DieselPool, DieselWriter, Invalidation, Lifetime, Memo,
    Templates, ViewCache, memcached_client::ServerState, view_key,
};
use serde::Deserialize;
use step_01::{
    database::{self, Database, Task, failed},
    forms::refuse_other_sites,
};
use tera::{Context, Tera};

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

// ANCHOR: servers
/// Which server holds an entry, and whether each is reachable.
async fn servers(cache: Data<Cache>) -> String {
    let mut lines = String::new();
    for server in cache.server_reports().await {
        let state = match server.status.state {
            ServerState::Up => "up",
            _ => "down",
        };
        let items = server.stats.get("curr_items").cloned().unwrap_or("?".to_owned());
        lines += &format!("{}: {state}, {items} entries\n", server.status.address);
    }
    lines
}
// ANCHOR_END: servers

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
    let pool = Pool::new(database.pool.clone(), Dialect::Sqlite);
    let cache = Cache::from_env_with_ledger(DieselLedger(pool.clone()))?.prefix("step9:").build();
    let name = cache.backend_name();
    let writer = Data::new(cache.diesel_writer(pool));
    let list_template = ("list.html", include_str!("../../06-pages/templates/list.html"));
    let templates = Templates::new(Tera::default(), [list_template])?;
    // Pages of other templates are not used.
    let views = ViewCache::builder(cache.layer("view")).version(templates.digest()).build();
    let (database, cache, templates) =
        (Data::new(database), Data::new(cache), Data::new(templates));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(database.clone())
            .app_data(cache.clone())
            .app_data(writer.clone())
            .app_data(templates.clone())
            .wrap(from_fn(refuse_other_sites))
            .service(web::resource("/").wrap(views.clone()).get(list).post(add))
            .service(web::resource("/servers").get(servers))
            .service(web::resource("/stats").get(stats))
            .service(web::resource("/{id}/delete").post(delete))
    });
    let server = server.bind(step_01::address())?;
    println!("listening on http://{} (cache: {name})", server.addrs()[0]);
    Ok(server.run().await?)
}
