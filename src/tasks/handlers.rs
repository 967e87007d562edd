//! The handlers of the task list: each parses the request, calls one method of [`Tasks`], sets a
//! message, and redirects or renders.

use actix_session::Session;
use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode, header},
    web::{Bytes, Data, Path},
};
use serde::Serialize;

use super::{
    AddError, ListedTasks, ROW_FRAGMENT, Tasks,
    task::{Task, TaskId, TaskName},
};
use crate::{
    http::error_pages::AppError,
    session::flash::{self, Flash, FlashMarker},
    views::Views,
};

/// The list of tasks and the form for a new one.
#[derive(Default, Serialize)]
struct ListPage {
    tasks: Vec<Task>,
    row_fragment: &'static str,
    flashes: Vec<Flash>,
    /// The rejected input, shown again.
    typed: String,
    /// The reason that the input was rejected.
    problem: Option<String>,
    /// Whether the input has the focus: after an error, and after a task was added.
    focus: bool,
}

/// `GET /`. HEAD leaves the messages for the next GET.
pub(crate) async fn list(
    req: HttpRequest,
    tasks: Data<Tasks>,
    views: Data<Views>,
    marker: Data<FlashMarker>,
    session: Session,
) -> Result<HttpResponse, AppError> {
    let is_head = req.method() == Method::HEAD;
    let tasks = tasks.list().await?;
    let mut flashes = if is_head { flash::peek(&session) } else { flash::take(&session) };
    flashes.extend(FlashMarker::message(&req));
    let focus = flashes.iter().any(|flash| matches!(flash, Flash::Added { .. }));
    let has_messages = !flashes.is_empty();
    let page = ListPage { flashes, focus, ..ListPage::default() };
    let mut response = list_page(&views, StatusCode::OK, tasks, page).await?;
    if !is_head {
        marker.remove(&req, &mut response);
    }
    if has_messages {
        let no_store = header::HeaderValue::from_static("no-store");
        response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    }
    Ok(response)
}

/// `POST /`
pub(crate) async fn add(
    tasks: Data<Tasks>,
    views: Data<Views>,
    marker: Data<FlashMarker>,
    session: Session,
    form: Bytes,
) -> Result<HttpResponse, AppError> {
    let typed = typed_name(&form);
    let name = match TaskName::parse(&typed) {
        Ok(name) => name,
        Err(problem) => {
            return reject(&tasks, &views, StatusCode::UNPROCESSABLE_ENTITY, typed, &problem).await;
        }
    };
    let message = Flash::added(name.as_str());
    match tasks.add(name).await {
        Ok(()) => {}
        Err(AddError::Database(error)) => return Err(error.into()),
        Err(problem @ AddError::Full { .. }) => {
            return reject(&tasks, &views, StatusCode::CONFLICT, typed, &problem).await;
        }
    }
    flash::push(&session, message)?;
    Ok(redirect_to_list(&marker))
}

/// `POST /{id}/delete`
pub(crate) async fn delete(
    tasks: Data<Tasks>,
    marker: Data<FlashMarker>,
    session: Session,
    id: Path<TaskId>,
) -> Result<HttpResponse, AppError> {
    let Some(deleted) = tasks.delete(*id).await? else {
        let mut response = see_list();
        marker.set_already_gone(&mut response);
        return Ok(response);
    };
    flash::push(&session, Flash::deleted(&deleted.name))?;
    Ok(redirect_to_list(&marker))
}

/// Returns the first field `name` of a form; an empty text if there is none.
fn typed_name(form: &[u8]) -> String {
    let fields: Vec<(String, String)> = serde_urlencoded::from_bytes(form).unwrap_or_default();
    fields.into_iter().find(|(field, _)| field == "name").map(|(_, text)| text).unwrap_or_default()
}

/// Shows the list with the rejected input and the reason.
async fn reject(
    tasks: &Tasks,
    views: &Views,
    status: StatusCode,
    typed: String,
    problem: &impl ToString,
) -> Result<HttpResponse, AppError> {
    let problem = Some(problem.to_string());
    let page = ListPage { typed, problem, focus: true, ..ListPage::default() };
    list_page(views, status, tasks.list().await?, page).await
}

/// Renders a page with the list.
async fn list_page(
    views: &Views,
    status: StatusCode,
    mut listed: ListedTasks,
    page: ListPage,
) -> Result<HttpResponse, AppError> {
    let page =
        ListPage { tasks: std::mem::take(&mut listed.tasks), row_fragment: ROW_FRAGMENT, ..page };
    let html = if listed.are_many {
        views.render_apart("index.html", page).await?
    } else {
        views.render("index.html", &page).await?
    };
    Ok(HttpResponse::build(status).content_type("text/html; charset=utf-8").body(html))
}

/// Redirects to the page that shows the message.
fn redirect_to_list(marker: &FlashMarker) -> HttpResponse {
    let mut response = see_list();
    marker.set(&mut response);
    response
}

fn see_list() -> HttpResponse {
    HttpResponse::SeeOther().insert_header((header::LOCATION, "/")).finish()
}

#[cfg(test)]
mod tests {
    use super::typed_name;

    #[test]
    fn the_first_name_of_a_form_counts() {
        assert_eq!(typed_name(b"x=1&name=milk+%26+tea&name=other"), "milk & tea");
    }

    #[test]
    fn a_body_without_a_name_is_an_empty_name() {
        for body in [&b""[..], b"task=milk", b"{\"name\":\"milk\"}", b"\xff\xfe"] {
            assert_eq!(typed_name(body), "", "{body:?}");
        }
    }
}
