//! The pages: each handler parses the request, calls one method of [`Tasks`], and renders.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode, header, uri::PathAndQuery},
    web::{Data, Path},
};

use super::{
    Tasks,
    pages::{EditPage, ListPage, edit_page, list_page},
    place::Place,
    redirect::{back, tell},
    task::{Task, TaskId},
};
use crate::{
    http::error_pages::AppError,
    session::flash::{Flash, Messages},
    views::Views,
};

/// `GET /`, `GET /active`, `GET /completed`. HEAD leaves the messages for the next GET.
pub(crate) async fn list(
    req: HttpRequest,
    tasks: Data<Tasks>,
    views: Data<Views>,
    messages: Data<Messages>,
) -> Result<HttpResponse, AppError> {
    let is_head = req.method() == Method::HEAD;
    let place = place_of(&req);
    let listed = tasks.page(place).await?;
    let flashes = messages.read(&req);
    let focus = flashes.iter().any(|flash| matches!(flash, Flash::Added { .. }));
    let has_messages = !flashes.is_empty();
    let flashes = flashes.iter().map(Flash::words).collect();
    let page = ListPage { listed, flashes, focus, ..ListPage::default() };
    let mut response = list_page(&views, StatusCode::OK, place.filter, page).await?;
    if !is_head {
        messages.remove(&req, &mut response);
    }
    if has_messages {
        let no_store = header::HeaderValue::from_static("no-store");
        response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    }
    Ok(response)
}

/// `GET /{id}/edit`
pub(crate) async fn edit(
    req: HttpRequest,
    tasks: Data<Tasks>,
    views: Data<Views>,
    messages: Data<Messages>,
    id: Path<TaskId>,
) -> Result<HttpResponse, AppError> {
    let place = back(&req);
    let Some(Task { id, name, .. }) = tasks.find(*id).await? else {
        return Ok(tell(&req, &messages, Flash::AlreadyGone, place));
    };
    let page = EditPage {
        id,
        original: name.clone(),
        typed: name,
        back: place.to_string(),
        ..EditPage::default()
    };
    edit_page(&views, StatusCode::OK, &page).await
}

/// Returns the place that a request for a list is for.
fn place_of(req: &HttpRequest) -> Place {
    let url = req.uri().path_and_query().map(PathAndQuery::as_str);
    url.and_then(Place::from_url).unwrap_or_default()
}
