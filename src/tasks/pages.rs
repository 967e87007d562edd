//! The pages of the list and of the form for one task: what their templates get.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use everfresh::AtHand;
use serde::Serialize;
use tera::Value;

use super::{
    LIST_FRAGMENT, ROW_FRAGMENT, Tasks,
    place::{Filter, Place},
    table::{TaskPage, Totals},
};
use crate::{http::error_pages::AppError, session::flash::Words, views::Views};

/// A page of a list, and the form for a new task.
#[derive(Default, Serialize)]
pub(super) struct ListPage {
    #[serde(skip)]
    pub(super) listed: AtHand<TaskPage>,
    /// The tasks of `listed`, in the form of templates, which is made once for as long as they are at hand.
    pub(super) tasks: Option<Value>,
    /// What differs when the tasks do: their digest, or the tasks themselves.
    pub(super) tasks_version: Option<Value>,
    pub(super) totals: Totals,
    pub(super) page: u64,
    pub(super) pages: u64,
    pub(super) row_fragment: &'static str,
    pub(super) list_fragment: &'static str,
    pub(super) filters: Vec<FilterLink>,
    pub(super) filter: Filter,
    /// The URL of this list, without the page.
    pub(super) path: &'static str,
    pub(super) flashes: Vec<Words>,
    /// The rejected input, shown again.
    pub(super) typed: String,
    /// The reason that the input was rejected.
    pub(super) problem: Option<String>,
    /// Whether the input has the focus: after an error, and after a task was added.
    pub(super) focus: bool,
}

#[derive(Serialize)]
pub(super) struct FilterLink {
    path: &'static str,
    name: &'static str,
    is_current: bool,
}

/// Shows the list with the rejected input and the reason.
pub(super) async fn reject(
    tasks: &Tasks,
    views: &Views,
    status: StatusCode,
    place: Place,
    typed: String,
    problem: &impl ToString,
) -> Result<HttpResponse, AppError> {
    let listed = tasks.page(place).await?;
    let problem = Some(problem.to_string());
    let page = ListPage { listed, typed, problem, focus: true, ..ListPage::default() };
    list_page(views, status, place.filter, page).await
}

pub(super) async fn list_page(
    views: &Views,
    status: StatusCode,
    filter: Filter,
    page: ListPage,
) -> Result<HttpResponse, AppError> {
    let filters = Filter::EACH.map(|each| FilterLink {
        path: each.path(),
        name: match each {
            Filter::All => "All",
            Filter::Active => "Active",
            Filter::Completed => "Completed",
        },
        is_current: each == filter,
    });
    let path = filter.path();
    let listed = page.listed.clone();
    let tasks = listed.form(|listed| Value::from_serializable(&listed.tasks)).clone();
    let tasks_version = listed.digest().map_or_else(|| tasks.clone(), Value::from);
    let page = ListPage {
        tasks: Some(tasks),
        tasks_version: Some(tasks_version),
        totals: listed.totals,
        page: listed.page,
        pages: listed.pages,
        row_fragment: ROW_FRAGMENT,
        list_fragment: LIST_FRAGMENT,
        filters: filters.into(),
        filter,
        path,
        ..page
    };
    let html = views.render("index.html", &page).await?;
    Ok(HttpResponse::build(status).content_type("text/html; charset=utf-8").body(html))
}

/// The form for the name of one task.
#[derive(Default, Serialize)]
pub(super) struct EditPage {
    pub(super) id: i64,
    /// The name from which the visitor starts.
    pub(super) original: String,
    /// The name that the visitor typed, or the present one.
    pub(super) typed: String,
    /// Where the visitor came from.
    pub(super) back: String,
    /// Whether somebody else has changed the name meanwhile, to `original`.
    pub(super) has_conflict: bool,
    pub(super) problem: Option<String>,
}

pub(super) async fn edit_page(
    views: &Views,
    status: StatusCode,
    page: &EditPage,
) -> Result<HttpResponse, AppError> {
    let html = views.render("edit.html", page).await?;
    let response = HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(html);
    Ok(response)
}
