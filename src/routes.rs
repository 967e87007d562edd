//! Every URL: its path, its handlers, and whether its page is cached. Metrics, the view cache, its
//! invalidation and the redirect to HTTPS read this table.

use actix_web::{
    FromRequest, Handler, Resource, Responder,
    middleware::from_fn,
    web::{self, Data, ServiceConfig},
};

use crate::{
    http::route::{Methods, Route, route},
    monitor::{admin_token, dashboard, health, metrics},
    session::{Sessions, key_rotation::accept_previous_key},
    tasks::{changes, handlers},
    views::static_files,
};

pub(crate) const ROUTES: &[Route] = &[
    route!(GetAndPost "/" => |r| read(r, handlers::list).route(web::post().to(changes::add)))
        .cached(),
    route!(Get "/active" => |r| read(r, handlers::list)).cached(),
    route!(Get "/completed" => |r| read(r, handlers::list)).cached(),
    route!(Post "/complete-all" => |r| r.route(web::post().to(changes::complete_all))),
    route!(Post "/clear-completed" => |r| r.route(web::post().to(changes::clear_completed)))
        .with_session(),
    route!(Post "/undo" => |r| r.route(web::post().to(changes::undo))).with_session(),
    route!(Post "/{id}" matching "/{id:[0-9]+}" => |r| r.route(web::post().to(changes::rename))),
    route!(Get "/{id}/edit" matching "/{id:[0-9]+}/edit" => |r| read(r, handlers::edit)),
    route!(Post "/{id}/complete" matching "/{id:[0-9]+}/complete" =>
        |r| r.route(web::post().to(changes::complete))),
    route!(Post "/{id}/reopen" matching "/{id:[0-9]+}/reopen" =>
        |r| r.route(web::post().to(changes::reopen))),
    route!(Post "/{id}/delete" matching "/{id:[0-9]+}/delete" =>
        |r| r.route(web::post().to(changes::delete)))
    .with_session(),
    route!(Get "/static/{name}" => |r| read(r, static_files::serve)),
    route!(GetAndPost "/cache" => |r| read(r, dashboard::show)
        .route(web::post().to(dashboard::reset))
        .default_service(web::to(admin_token::refuse))),
    route!(Get "/metrics" => |r| read(r, metrics::show).default_service(web::to(admin_token::refuse))),
    route!(Get "/healthz" => |r| read(r, health::healthz)).probe(),
    route!(Get "/readyz" => |r| read(r, health::readyz)).probe(),
];

/// Returns the paths of all pages in the view cache.
pub fn cached_pages() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().filter(|route| route.is_cached).map(|route| route.path)
}

/// Returns the paths that GET answers, without those that have parameters.
pub fn readable_pages() -> impl Iterator<Item = &'static str> {
    let is_page = |route: &&Route| route.methods != Methods::Post && !route.path.contains('{');
    ROUTES.iter().filter(is_page).map(|route| route.path)
}

/// Registers all routes in an Actix app.
pub(crate) fn configure(app: &mut ServiceConfig, sessions: &Sessions) {
    app.app_data(Data::new(sessions.keys()));
    for route in ROUTES {
        let resource = (route.handlers)(web::resource(route.pattern));
        if route.has_session {
            let resource = resource.wrap(sessions.middleware());
            app.service(resource.wrap(from_fn(accept_previous_key)));
        } else {
            app.service(resource);
        }
    }
}

/// Answers GET and HEAD.
fn read<F, Args>(resource: Resource, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    resource.route(web::get().to(handler.clone())).route(web::head().to(handler))
}
