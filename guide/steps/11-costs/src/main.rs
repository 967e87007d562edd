//! Chapter 11: what each level saves. Measures the page of a list with no cache and with each level on, in turns
//! in one run, and prints the time per page.

use std::{env, path::Path, time::Instant};

use actix_web::{
    App, Error, Result,
    dev::{Service, ServiceResponse},
    test::{TestRequest, call_and_read_body, init_service},
    web::{self, Data, Html},
};
use diesel::{Connection, SqliteConnection};
use everfresh::{Cache, Lifetime, Memo, Templates, ViewCache};
use step_01::database::{self, Database, Task, failed};
use tera::{Context, Tera};

const TASKS: Memo<(), Vec<Task>> = Memo::new("tasks", Lifetime::Forever);

/// The app: its database, and the caches of its levels.
struct Site {
    database: Database,
    queries: Cache,
    fragments: Cache,
    templates: Templates,
}

async fn list(site: Data<Site>) -> Result<Html> {
    let read = async || site.database.tasks().await;
    let mut context = Context::new();
    context.insert("tasks", &TASKS.call(&site.queries, &(), read).await?);
    let page = site.templates.render(&site.fragments, "list.html", &context).await;
    page.map(Html::new).map_err(failed)
}

/// Opens a database with so many tasks.
async fn fill(file: &Path, count: usize) -> Result<Database, Box<dyn std::error::Error>> {
    let database = Database::open_file(&file.to_string_lossy())?;
    let insert = move |conn: &mut SqliteConnection| {
        conn.transaction(|conn| {
            (1..=count).try_for_each(|n| database::insert(conn, &format!("Task {n}")))
        })
    };
    database.run(insert).await?;
    Ok(database)
}

// ANCHOR: levels
/// The levels that are on: each adds one to those before.
const LEVELS: [&str; 4] = ["no cache", "query", "query, fragments", "query, fragments, page"];

fn caches(level: usize, count: usize) -> Result<[Cache; 3], Box<dyn std::error::Error>> {
    let cache = Cache::from_env()?.prefix(format!("step11.{level}.{count}:")).build();
    let off = Cache::null().build();
    let on = |number| if level >= number { cache.clone() } else { off.clone() };
    Ok([on(1), on(2), on(3)])
}
// ANCHOR_END: levels

// ANCHOR: measure
/// Asks for the page until a quarter of a second has passed. Returns the microseconds per page.
async fn measure<S>(app: &S) -> f64
where
    S: Service<actix_http::Request, Response = ServiceResponse, Error = Error>,
{
    let (started, mut pages) = (Instant::now(), 0);
    while started.elapsed().as_millis() < 250 {
        call_and_read_body(app, TestRequest::get().uri("/").to_request()).await;
        pages += 1;
    }
    started.elapsed().as_secs_f64() * 1e6 / f64::from(pages)
}
// ANCHOR_END: measure

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let counts = match env::args().nth(1) {
        Some(count) => vec![count.parse()?],
        None => vec![10, 100, 1000],
    };
    for count in counts {
        println!("{count} tasks");
        let folder = tempfile::tempdir()?;
        let database = fill(&folder.path().join("costs.sqlite3"), count).await?;
        let mut apps = Vec::new();
        for level in 0..LEVELS.len() {
            let [queries, fragments, views] = caches(level, count)?;
            let list_template = ("list.html", include_str!("../../06-pages/templates/list.html"));
            let templates = Templates::new(Tera::default(), [list_template])?;
            let views = ViewCache::builder(views).version(templates.digest()).build();
            let site =
                Data::new(Site { database: database.clone(), queries, fragments, templates });
            let page = web::resource("/").wrap(views).get(list);
            apps.push(init_service(App::new().app_data(site).service(page)).await);
        }
        // In turns, so that whatever else the machine does meets all of them.
        let mut best = [f64::MAX; LEVELS.len()];
        for _ in 0..3 {
            for (app, best) in apps.iter().zip(&mut best) {
                *best = best.min(measure(app).await);
            }
        }
        for (level, micros) in LEVELS.iter().zip(best) {
            println!("  {level:24} {micros:8.1} µs per page, {:.2} of no cache", micros / best[0]);
        }
    }
    Ok(())
}
