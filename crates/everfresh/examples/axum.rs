//! The cache without Actix: a list of tasks on axum. The query and the page are cached, in this process or in
//! the servers that `MEMCACHE_SERVERS` names.
//!
//! ```sh
//! cargo run -p everfresh --features memcached --example axum
//! ```

use std::{
    error::Error,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Form, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{Html, Redirect},
    routing::get,
};
use everfresh::{Cache, Invalidation, Lifetime, Memo, group_key};
use serde::Deserialize;
use tokio::net::TcpListener;

/// The app: its cache, and a list that stands for a database.
#[derive(Clone)]
struct Tasks {
    cache: Cache,
    stored: Arc<Mutex<Vec<String>>>,
}

#[derive(Deserialize)]
struct Search {
    #[serde(default)]
    q: String,
}

#[derive(Deserialize)]
struct NewTask {
    name: String,
}

/// The tasks that contain a text.
const FOUND: Memo<str, Vec<String>> = Memo::new("found", Lifetime::Forever).in_groups(&["tasks"]);

type Failure = (StatusCode, &'static str);

async fn list(
    State(app): State<Tasks>,
    Query(Search { q }): Query<Search>,
) -> Result<Html<String>, Failure> {
    let query = async || {
        let tasks = app.stored.lock().unwrap_or_else(PoisonError::into_inner);
        Ok::<_, Failure>(tasks.iter().filter(|task| task.contains(&q)).cloned().collect())
    };
    let page = async || {
        let tasks = FOUND.call(&app.cache.layer("query"), &q, query).await?;
        let rows: Vec<_> = tasks.iter().map(|task| escaped(task)).collect();
        let rows = rows.join("<li>");
        Ok::<_, Failure>(format!(
            "<!doctype html><title>Tasks</title><ul><li>{rows}</ul>\
             <form method=post><input name=name aria-label=Task><button>Add</button></form>"
        ))
    };
    // Searches cannot all be named by a write, so the pages are in a group, too.
    let (key, groups) = (everfresh::join_key("page", [&q]), ["pages"]);
    let pages = app.cache.layer("page");
    Ok(Html(pages.get_or_compute_in(&groups, &key, Lifetime::Forever, page).await?))
}

async fn add(State(app): State<Tasks>, Form(NewTask { name }): Form<NewTask>) -> Redirect {
    app.stored.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    // Inner entries first: the pages are made of what was found.
    let invalidation = Invalidation::of([group_key("tasks")]).then([group_key("pages")]);
    app.cache.invalidate(&invalidation).await;
    Redirect::to("/")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cache = Cache::from_env()?.prefix("axum:").build();
    let app = Tasks { cache, stored: Arc::default() };
    let address = std::env::var("ADDRESS").unwrap_or("127.0.0.1:8082".to_owned());
    let listener = TcpListener::bind(address).await?;
    writeln!(io::stdout(), "listening on http://{}", listener.local_addr()?)?;
    let routes = Router::new().route("/", get(list).post(add)).with_state(app);
    Ok(axum::serve(listener, routes).await?)
}
