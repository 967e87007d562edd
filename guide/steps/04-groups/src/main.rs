//! Chapter 4: functions with arguments, and one write that forgets all their results.

use std::sync::LazyLock;

use actix_web::{
    App, HttpServer, Result,
    middleware::from_fn,
    web::{self, Data, Form, Html, Path, Query, Redirect},
};
use diesel::prelude::*;
use everfresh::{
    Cache, Dialect, DieselLedger, DieselPool, DieselWriter, Invalidation, Lifetime, Memo,
    group_key, memoize,
};
use serde::Deserialize;
use step_01::{
    database::{self, Database, Task, failed, task},
    forms::refuse_other_sites,
};
use tera::{Context, Tera};

type Pool = DieselPool<SqliteConnection>;

const PER_PAGE: i64 = 3;

// ANCHOR: memos
/// The number of all tasks.
const COUNT: Memo<(), i64> = Memo::new("count", Lifetime::Forever).in_groups(&["tasks"]);

/// The tasks of a page, by its number.
#[memoize(key(number), lifetime = Lifetime::Forever, groups("tasks"))]
async fn tasks_of_page(cache: &Cache, database: &Database, number: i64) -> Result<Vec<Task>> {
    let query = move |conn: &mut SqliteConnection| {
        let tasks = task::table.order(task::id).offset((number - 1) * PER_PAGE).limit(PER_PAGE);
        tasks.load(conn)
    };
    database.run(query).await
}
// ANCHOR_END: memos

#[derive(Deserialize)]
struct NewTask {
    name: String,
}

#[derive(Deserialize)]
struct Page {
    page: Option<u32>,
}

static TEMPLATES: LazyLock<Tera> = LazyLock::new(|| {
    let mut tera = Tera::default();
    let list = include_str!("../templates/list.html");
    tera.add_raw_template("list.html", list).expect("the template is valid");
    tera
});

// ANCHOR: list
async fn list(
    cache: Data<Cache>,
    database: Data<Database>,
    Query(page): Query<Page>,
) -> Result<Html> {
    let number = i64::from(page.page.unwrap_or(1).max(1));
    let count = async || database.run(|conn| task::table.count().get_result(conn)).await;
    let count = COUNT.call(&cache, &(), count).await?;
    let tasks = tasks_of_page(&cache, &database, number).await?;

    let mut context = Context::new();
    context.insert("count", &count);
    context.insert("tasks", &tasks);
    context.insert("number", &number);
    context.insert("per_page", &PER_PAGE);
    TEMPLATES.render("list.html", &context).map(Html::new).map_err(failed)
}
// ANCHOR_END: list

// ANCHOR: writes
/// What a write to the tasks makes wrong: every page, and the count.
fn of_tasks() -> Invalidation {
    Invalidation::of([group_key("tasks")])
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
    let pool = Pool::new(database.pool.clone(), Dialect::Sqlite);
    let cache = Cache::from_env_with_ledger(DieselLedger(pool.clone()))?.prefix("step4:").build();
    let name = cache.backend_name();
    let writer = Data::new(cache.diesel_writer(pool));
    let (database, cache) = (Data::new(database), Data::new(cache.layer("query")));
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
