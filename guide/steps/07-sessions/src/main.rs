//! Chapter 7: sessions, and messages that only one visitor sees.

use actix_session::{Session, SessionMiddleware};
use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer, Result,
    cookie::{Cookie, Key, SameSite},
    http::header,
    middleware::from_fn,
    web::{self, Data, Form, Path},
};
use diesel::SqliteConnection;
use everfresh::{
    Cache, CacheSessionStore, Dialect, DieselLedger, DieselPool, DieselWriter, Invalidation,
    Lifetime, Memo, Templates, ViewCache, view_key,
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

// ANCHOR: visits
async fn visits(session: Session) -> Result<String> {
    let visits = session.get::<u32>("visits")?.unwrap_or(0) + 1;
    session.insert("visits", visits)?;
    Ok(format!("visit {visits}\n"))
}
// ANCHOR_END: visits

// ANCHOR: list
async fn list(
    cache: Data<Cache>,
    database: Data<Database>,
    templates: Data<Templates>,
    session: Session,
    req: HttpRequest,
) -> Result<HttpResponse> {
    let read = async || database.tasks().await;
    let mut context = Context::new();
    context.insert("tasks", &TASKS.call(&cache.layer("query"), &(), read).await?);
    // A message is shown once.
    let message = session.remove_as::<String>("message").and_then(std::result::Result::ok);
    context.insert("message", &message);
    let page = templates.render(&cache.layer("fragment"), "list.html", &context).await;
    let mut response = HttpResponse::Ok().content_type("text/html").body(page.map_err(failed)?);
    // Also if the session is lost: the marker must not outlive the message.
    if req.cookie("message").is_some() {
        response.add_removal_cookie(&marker())?;
        let private = header::HeaderValue::from_static("private, no-store");
        response.headers_mut().insert(header::CACHE_CONTROL, private);
    }
    Ok(response)
}

/// Tells the cache of pages that a message waits for this visitor.
fn marker() -> Cookie<'static> {
    let marker = Cookie::build("message", "waits").path("/").http_only(true);
    marker.same_site(SameSite::Lax).finish()
}

fn back_with(session: &Session, message: &str) -> Result<HttpResponse> {
    session.insert("message", message)?;
    let mut response = HttpResponse::SeeOther();
    Ok(response.insert_header((header::LOCATION, "/")).cookie(marker()).finish())
}
// ANCHOR_END: list

fn of_tasks() -> Invalidation {
    Invalidation::of([TASKS.key(&())]).then([view_key("/")])
}

async fn add(
    writer: Data<DieselWriter<Pool>>,
    session: Session,
    Form(task): Form<NewTask>,
) -> Result<HttpResponse> {
    let message = format!("Added {}.", task.name);
    let added = writer.write(move |conn| Ok((database::insert(conn, &task.name)?, of_tasks())));
    added.await.map_err(failed)?;
    back_with(&session, &message)
}

async fn delete(
    writer: Data<DieselWriter<Pool>>,
    session: Session,
    id: Path<i32>,
) -> Result<HttpResponse> {
    let deleted = writer.write(move |conn| Ok((database::delete(conn, *id)?, of_tasks())));
    deleted.await.map_err(failed)?;
    back_with(&session, "Deleted.")
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
    let cache = Cache::from_env_with_ledger(DieselLedger(pool.clone()))?.prefix("step7:").build();
    let name = cache.backend_name();
    let writer = Data::new(cache.diesel_writer(pool));
    let list_template = ("list.html", include_str!("../templates/list.html"));
    let templates = Templates::new(Tera::default(), [list_template])?;
    // ANCHOR: views
    let views = ViewCache::builder(cache.layer("view")).version(templates.digest());
    // A visitor with a message gets a page of their own.
    let views = views.bypass_cookie("message").build();
    let sessions = CacheSessionStore::new(&cache);
    // In an app of your own, from a setting: another key ends all sessions.
    let key = Key::derive_from(b"for this guide only, not a secret");
    // ANCHOR_END: views
    let (database, cache, templates) =
        (Data::new(database), Data::new(cache), Data::new(templates));
    let server = HttpServer::new(move || {
        // For HTTP on this machine: over HTTPS, leave `cookie_secure(false)` out.
        let sessions = SessionMiddleware::builder(sessions.clone(), key.clone());
        let sessions = sessions.cookie_secure(false).build();
        App::new()
            .app_data(database.clone())
            .app_data(cache.clone())
            .app_data(writer.clone())
            .app_data(templates.clone())
            .wrap(from_fn(refuse_other_sites))
            .wrap(sessions)
            .service(web::resource("/").wrap(views.clone()).get(list).post(add))
            .service(web::resource("/visits").get(visits))
            .service(web::resource("/stats").get(stats))
            .service(web::resource("/{id}/delete").post(delete))
    });
    let server = server.bind(step_01::address())?;
    println!("listening on http://{} (cache: {name})", server.addrs()[0]);
    Ok(server.run().await?)
}
