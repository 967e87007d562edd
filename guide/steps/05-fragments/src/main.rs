//! Chapter 5: each row of the list is a fragment of its own.

use actix_web::{
    App, HttpServer, Result,
    middleware::from_fn,
    web::{self, Data, Form, Html, Path, Redirect},
};
use diesel::SqliteConnection;
use everfresh::{
    Cache, Dialect, DieselLedger, DieselPool, DieselWriter, Invalidation, Lifetime, Memo, Templates,
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

// ANCHOR: templates
const LIST: &str = include_str!("../templates/list.html");

/// The list, and the same list with rows that are found by their id alone.
fn templates() -> Result<Templates, Box<dyn std::error::Error>> {
    let by_id = LIST.replace(r#""row", task.id, of=task"#, r#""row by id", task.id"#);
    Ok(Templates::new(Tera::default(), [("list.html", LIST), ("by-id.html", &by_id)])?)
}

async fn render(
    template: &str,
    cache: &Cache,
    database: &Database,
    templates: &Templates,
) -> Result<Html> {
    let read = async || database.tasks().await;
    let mut context = Context::new();
    context.insert("tasks", &TASKS.call(&cache.layer("query"), &(), read).await?);
    let page = templates.render(&cache.layer("fragment"), template, &context).await;
    page.map(Html::new).map_err(failed)
}
// ANCHOR_END: templates

async fn list(
    cache: Data<Cache>,
    database: Data<Database>,
    templates: Data<Templates>,
) -> Result<Html> {
    render("list.html", &cache, &database, &templates).await
}

async fn list_by_id(
    cache: Data<Cache>,
    database: Data<Database>,
    templates: Data<Templates>,
) -> Result<Html> {
    render("by-id.html", &cache, &database, &templates).await
}

fn of_tasks() -> Invalidation {
    Invalidation::of([TASKS.key(&())])
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

// ANCHOR: stats
async fn stats(cache: Data<Cache>, at_start: Data<Gets>) -> String {
    let mut lines = String::new();
    for (layer, counted) in cache.stats() {
        if counted.hits + counted.misses == 0 {
            continue;
        }
        lines += &format!("{layer}: {} hits, {} misses\n", counted.hits, counted.misses);
    }
    if cache.is_shared() {
        let gets = gets(&cache).await.0 - at_start.0;
        lines += &format!("memcached: {gets} gets\n");
    }
    lines
}

/// The gets that memcached itself has counted.
struct Gets(u64);

async fn gets(cache: &Cache) -> Gets {
    let reports = cache.server_reports().await;
    let gets = reports.iter().filter_map(|server| server.stats.get("cmd_get")?.parse::<u64>().ok());
    Gets(gets.sum())
}
// ANCHOR_END: stats

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = Database::open()?;
    let pool = Pool::new(database.pool.clone(), Dialect::Sqlite);
    // ANCHOR: near
    let cache = Cache::from_env_with_ledger(DieselLedger(pool.clone()))?.prefix("step5:");
    // Keeps no rows in the process, so that every one is asked for. Leave this out in your app.
    let cache = cache.near(0).build();
    // ANCHOR_END: near
    let name = cache.backend_name();
    let writer = Data::new(cache.diesel_writer(pool));
    let at_start = Data::new(gets(&cache).await);
    let (database, cache, templates) =
        (Data::new(database), Data::new(cache), Data::new(templates()?));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(database.clone())
            .app_data(cache.clone())
            .app_data(writer.clone())
            .app_data(templates.clone())
            .app_data(at_start.clone())
            .wrap(from_fn(refuse_other_sites))
            .service(web::resource("/").get(list).post(add))
            .service(web::resource("/by-id").get(list_by_id))
            .service(web::resource("/stats").get(stats))
            .service(web::resource("/{id}/delete").post(delete))
    });
    let server = server.bind(step_01::address())?;
    println!("listening on http://{} (cache: {name})", server.addrs()[0]);
    Ok(server.run().await?)
}
