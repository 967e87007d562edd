//! The changes: each handler parses the request, calls one method of [`Tasks`], sets a message, and redirects.

use actix_session::Session;
use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Bytes, Data, Path},
};

use super::{
    AddError, Tasks,
    pages::{EditPage, edit_page, reject},
    place::{Filter, Place},
    redirect::{at_row, back, tell},
    table::Renamed,
    task::{Task, TaskId, TaskName},
};
use crate::{
    http::error_pages::AppError,
    session::{
        flash::{Flash, Messages},
        undo::{self, UndoRoom},
    },
    views::Views,
};

/// `POST /`
pub(crate) async fn add(
    req: HttpRequest,
    tasks: Data<Tasks>,
    views: Data<Views>,
    messages: Data<Messages>,
    form: Bytes,
) -> Result<HttpResponse, AppError> {
    let (place, typed) = (back(&req), field(&form, "name"));
    let name = match TaskName::parse(&typed) {
        Ok(name) => name,
        Err(problem) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return reject(&tasks, &views, status, place, typed, &problem).await;
        }
    };
    let message = Flash::Added { name: name.as_str().into() };
    // A new task is not completed.
    let list = if place.filter == Filter::Active { Filter::Active } else { Filter::All };
    let shown = match tasks.add(name, list).await {
        Ok(shown) => shown,
        Err(AddError::Database(error)) => return Err(error.into()),
        Err(problem @ AddError::Full { .. }) => {
            return reject(&tasks, &views, StatusCode::CONFLICT, place, typed, &problem).await;
        }
    };
    Ok(tell(&req, &messages, message, shown))
}

/// `POST /{id}/complete`
pub(crate) async fn complete(
    req: HttpRequest,
    tasks: Data<Tasks>,
    messages: Data<Messages>,
    id: Path<TaskId>,
) -> Result<HttpResponse, AppError> {
    set_completed(&req, &tasks, &messages, *id, true).await
}

/// `POST /{id}/reopen`
pub(crate) async fn reopen(
    req: HttpRequest,
    tasks: Data<Tasks>,
    messages: Data<Messages>,
    id: Path<TaskId>,
) -> Result<HttpResponse, AppError> {
    set_completed(&req, &tasks, &messages, *id, false).await
}

async fn set_completed(
    req: &HttpRequest,
    tasks: &Tasks,
    messages: &Messages,
    id: TaskId,
    completed: bool,
) -> Result<HttpResponse, AppError> {
    let place = back(req);
    let Some(task) = tasks.set_completed(id, completed).await? else {
        return Ok(tell(req, messages, Flash::AlreadyGone, place));
    };
    let name = task.name.as_str().into();
    let message = if completed { Flash::Completed { name } } else { Flash::Reopened { name } };
    Ok(tell(req, messages, message, at_row(place, id)))
}

/// `POST /{id}`
pub(crate) async fn rename(
    req: HttpRequest,
    tasks: Data<Tasks>,
    views: Data<Views>,
    messages: Data<Messages>,
    id: Path<TaskId>,
    form: Bytes,
) -> Result<HttpResponse, AppError> {
    let (typed, original, back) =
        (field(&form, "name"), field(&form, "original"), field(&form, "back"));
    let place = Place::from_url(&back).unwrap_or_default();
    let page = EditPage { id: id.get(), typed, original, back, ..EditPage::default() };
    let name = match TaskName::parse(&page.typed) {
        Ok(name) => name,
        Err(problem) => {
            let page = EditPage { problem: Some(problem.to_string()), ..page };
            return edit_page(&views, StatusCode::UNPROCESSABLE_ENTITY, &page).await;
        }
    };
    let message = Flash::Renamed { name: name.as_str().into() };
    match tasks.rename(*id, page.original.clone(), name).await? {
        Renamed::Done => Ok(tell(&req, &messages, message, at_row(place, *id))),
        Renamed::Gone => Ok(tell(&req, &messages, Flash::AlreadyGone, place)),
        Renamed::Conflict(Task { name: original, .. }) => {
            let page = EditPage { original, has_conflict: true, ..page };
            edit_page(&views, StatusCode::CONFLICT, &page).await
        }
    }
}

/// `POST /{id}/delete`
pub(crate) async fn delete(
    req: HttpRequest,
    tasks: Data<Tasks>,
    messages: Data<Messages>,
    session: Session,
    undo_room: Data<UndoRoom>,
    id: Path<TaskId>,
) -> Result<HttpResponse, AppError> {
    let place = back(&req);
    let Some(deleted) = tasks.delete(*id).await? else {
        return Ok(tell(&req, &messages, Flash::AlreadyGone, place));
    };
    let name = deleted.name.as_str().into();
    let can_undo = undo_room.keep(&session, &[deleted])?;
    Ok(tell(&req, &messages, Flash::Deleted { name, can_undo }, place))
}

/// `POST /complete-all`
pub(crate) async fn complete_all(
    req: HttpRequest,
    tasks: Data<Tasks>,
    messages: Data<Messages>,
) -> Result<HttpResponse, AppError> {
    let number = tasks.complete_all().await?;
    Ok(tell(&req, &messages, Flash::CompletedAll { number }, back(&req)))
}

/// `POST /clear-completed`
pub(crate) async fn clear_completed(
    req: HttpRequest,
    tasks: Data<Tasks>,
    messages: Data<Messages>,
    session: Session,
    undo_room: Data<UndoRoom>,
) -> Result<HttpResponse, AppError> {
    let cleared = tasks.clear_completed(UndoRoom::MAX_TASKS).await?;
    let number = cleared.number;
    let all_known = number > 0 && number == cleared.tasks.len();
    let can_undo = all_known && undo_room.keep(&session, &cleared.tasks)?;
    Ok(tell(&req, &messages, Flash::Cleared { number, can_undo }, back(&req)))
}

/// `POST /undo`
pub(crate) async fn undo(
    req: HttpRequest,
    tasks: Data<Tasks>,
    messages: Data<Messages>,
    session: Session,
) -> Result<HttpResponse, AppError> {
    let place = back(&req);
    let Some(deleted) = undo::kept::<Vec<Task>>(&session) else {
        return Ok(tell(&req, &messages, Flash::NothingToUndo, place));
    };
    let number = deleted.len();
    tasks.restore(deleted).await?;
    // Only now: if the database had failed, the visitor could try again.
    undo::forget(&session);
    Ok(tell(&req, &messages, Flash::Restored { number }, place))
}

/// Returns the first field of a form with this name; an empty text if there is none.
fn field(form: &[u8], name: &str) -> String {
    let fields: Vec<(String, String)> = serde_urlencoded::from_bytes(form).unwrap_or_default();
    fields.into_iter().find(|(field, _)| field == name).map(|(_, text)| text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_field_of_a_name_counts() {
        assert_eq!(field(b"x=1&name=milk+%26+tea&name=other", "name"), "milk & tea");
    }

    #[test]
    fn a_body_without_the_field_is_an_empty_text() {
        for body in [&b""[..], b"task=milk", b"{\"name\":\"milk\"}", b"\xff\xfe"] {
            assert_eq!(field(body, "name"), "", "{body:?}");
        }
    }
}
