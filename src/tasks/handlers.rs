//! What the URLs do: take the request apart, one call to the model, a message, a redirect.

use actix_session::Session;
use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode, header},
    web::{Bytes, Data, Path},
};
use futures_util::future::join;
use serde::Serialize;
use serde_json::json;

use crate::{
    db::{Db, DbConnection},
    http::error_pages::AppError,
    session::flash::{self, Flash, Marker},
    tasks::task::{self, NameError, Task, TaskId, TaskName},
    tasks::{Change, TasksCache},
    views::Views,
};

/// The list of tasks and the form for a new one.
#[derive(Default, Serialize)]
struct ListPage {
    tasks: Vec<Task>,
    flashes: Vec<Flash>,
    /// What was typed, when it was refused,
    typed: String,
    /// and why.
    problem: Option<String>,
    /// Whether the next thing to do is to type: after an error, and after adding a task.
    focus: bool,
}

/// `GET /`. To be told the length of a page (`HEAD`) is not to have read its messages.
pub(crate) async fn list(
    req: HttpRequest,
    db: Data<Db>,
    cache: Data<TasksCache>,
    views: Data<Views>,
    marker: Data<Marker>,
    session: Session,
) -> Result<HttpResponse, AppError> {
    let tasks = cache.list(&db).await?;
    let is_read = req.method() != Method::HEAD;
    let flashes = if is_read { flash::take(&session) } else { flash::peek(&session) };
    let focus = flashes.iter().any(|flash| matches!(flash, Flash::Added { .. }));
    let page = ListPage { tasks, flashes, focus, ..ListPage::default() };
    let mut response = html(StatusCode::OK, views.render("index.html", &page).await?);
    if is_read {
        marker.remove(&req, &mut response);
    }
    if !page.flashes.is_empty() {
        let once = header::HeaderValue::from_static("no-store");
        response.headers_mut().insert(header::CACHE_CONTROL, once);
    }
    Ok(response)
}

/// `POST /`
pub(crate) async fn add(
    db: Data<Db>,
    cache: Data<TasksCache>,
    views: Data<Views>,
    marker: Data<Marker>,
    session: Session,
    form: Bytes,
) -> Result<HttpResponse, AppError> {
    let typed = typed_name(&form);
    let name = match TaskName::parse(&typed) {
        Ok(name) => name,
        Err(problem) => return refused(&db, &cache, &views, typed, problem).await,
    };
    let message = Flash::added(&name);
    cache.write(&db, move |conn| Ok((task::add(conn, &name)?, Some(Change::Added)))).await?;
    flash::push(&session, message)?;
    Ok(back_to_the_list(&marker))
}

/// The field `name` of a form; an empty text where there is none. Of several the first counts.
fn typed_name(form: &[u8]) -> String {
    let fields: Vec<(String, String)> = serde_urlencoded::from_bytes(form).unwrap_or_default();
    fields.into_iter().find(|(field, _)| field == "name").map(|(_, text)| text).unwrap_or_default()
}

/// The list again, with what was typed and what is wrong with it.
async fn refused(
    db: &Db,
    cache: &TasksCache,
    views: &Views,
    typed: String,
    problem: NameError,
) -> Result<HttpResponse, AppError> {
    let tasks = cache.list(db).await?;
    let problem = Some(problem.to_string());
    let page = ListPage { tasks, typed, problem, focus: true, ..ListPage::default() };
    Ok(html(StatusCode::UNPROCESSABLE_ENTITY, views.render("index.html", &page).await?))
}

/// `POST /{id}/delete`
pub(crate) async fn delete(
    db: Data<Db>,
    cache: Data<TasksCache>,
    marker: Data<Marker>,
    session: Session,
    id: Path<TaskId>,
) -> Result<HttpResponse, AppError> {
    let delete = move |conn: &mut DbConnection| {
        let deleted = task::delete(conn, *id)?;
        let change = deleted.as_ref().map(|_| Change::Deleted(*id));
        Ok((deleted, change))
    };
    let deleted = cache.write(&db, delete).await?;
    let message = deleted.map_or(Flash::AlreadyGone, |task| Flash::deleted(&task.name));
    flash::push(&session, message)?;
    Ok(back_to_the_list(&marker))
}

/// `GET /healthz`: the process lives.
pub(crate) async fn healthz() -> &'static str {
    "ok"
}

/// `GET /readyz`: whether the process can do its work.
pub(crate) async fn readyz(db: Data<Db>, cache: Data<TasksCache>) -> HttpResponse {
    let (database, cache) = join(db.ping(), cache.state()).await;
    let (status, database) = match database {
        Ok(()) => (StatusCode::OK, "ok"),
        Err(error) => {
            log::warn!("not ready: {error}");
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
        }
    };
    HttpResponse::build(status)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(json!({ "database": database, "cache": cache }))
}

fn html(status: StatusCode, page: String) -> HttpResponse {
    HttpResponse::build(status).content_type("text/html; charset=utf-8").body(page)
}

/// Where a message is shown.
fn back_to_the_list(marker: &Marker) -> HttpResponse {
    let mut response = HttpResponse::SeeOther().insert_header((header::LOCATION, "/")).finish();
    marker.set(&mut response);
    response
}

#[cfg(test)]
mod tests {
    use super::typed_name;

    #[test]
    fn the_first_name_of_a_form_counts() {
        assert_eq!(typed_name(b"x=1&name=milk+%26+tea&name=other"), "milk & tea");
    }

    #[test]
    fn a_form_without_a_name_or_no_form_at_all_is_an_empty_name() {
        for body in [&b""[..], b"task=milk", b"{\"name\":\"milk\"}", b"\xff\xfe"] {
            assert_eq!(typed_name(body), "", "{body:?}");
        }
    }
}
