//! The front page's example: a whole app with one page, which is cached.

use std::{
    io,
    sync::atomic::{AtomicU32, Ordering},
};

use actix_web::{
    App, HttpServer,
    web::{self, Data, Html, Redirect},
};
use everfresh::{Cache, ViewCache, view_key};

type Database = AtomicU32; // stands for yours: a number of clicks

async fn page(database: Data<Database>) -> Html {
    let clicks = database.load(Ordering::Relaxed);
    Html::new(format!("<form method=post><button>{clicks} clicks</button></form>\n"))
}

async fn click(cache: Data<Cache>, database: Data<Database>) -> Redirect {
    database.fetch_add(1, Ordering::Relaxed);
    cache.delete(&view_key("/")).await; // the stored page is wrong from now on
    Redirect::to("/").see_other()
}

#[actix_web::main]
async fn main() -> io::Result<()> {
    let cache = Cache::from_env().map_err(io::Error::other)?.prefix("hurry:").build();
    let pages = ViewCache::builder(cache.clone()).version(1).build();
    let (cache, database) = (Data::new(cache), Data::new(Database::new(0)));
    HttpServer::new(move || {
        let page = web::resource("/").wrap(pages.clone()).get(page).post(click);
        App::new().app_data(cache.clone()).app_data(database.clone()).service(page)
    })
    .bind(step_01::address())?
    .run()
    .await
}
