//! Every URL.

use actix_web::{
    FromRequest, Handler, Resource, Responder,
    web::{self, ServiceConfig},
};

use crate::{assets, handlers};

pub(crate) fn configure(app: &mut ServiceConfig) {
    app.service(page("/", handlers::list).route(web::post().to(handlers::add)))
        .service(web::resource("/{id:[0-9]+}/delete").route(web::post().to(handlers::delete)))
        .service(page("/static/{name}", assets::serve))
        .service(page("/healthz", handlers::healthz))
        .service(page("/readyz", handlers::readyz));
}

/// Answers GET, and HEAD alike.
fn page<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path).route(web::get().to(handler.clone())).route(web::head().to(handler))
}
