//! Every URL, and what wraps its handlers besides what wraps the whole app.

use actix_session::SessionMiddleware;
use actix_web::{
    FromRequest, Handler, Resource, Responder,
    middleware::from_fn,
    web::{self, ServiceConfig},
};

use crate::{
    monitor::dashboard, monitor::metrics, session::key_rotation::accept_previous_key,
    session::store::Sessions, tasks::handlers, views::assets,
};

pub(crate) fn configure(app: &mut ServiceConfig, sessions: &SessionMiddleware<Sessions>) {
    let delete = web::resource("/{id:[0-9]+}/delete").route(web::post().to(handlers::delete));
    app.service(
        page("/", handlers::list)
            .route(web::post().to(handlers::add))
            .wrap(sessions.clone())
            .wrap(from_fn(accept_previous_key)),
    )
    .service(delete.wrap(sessions.clone()).wrap(from_fn(accept_previous_key)))
    .service(page("/static/{name}", assets::serve))
    // Hidden also from those who ask in another way.
    .service(page("/cache", dashboard::show).default_service(web::to(dashboard::refuse)))
    .service(page("/metrics", metrics::show).default_service(web::to(dashboard::refuse)))
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
