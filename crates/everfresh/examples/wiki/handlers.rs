use actix_session::Session;
use actix_web::{
    HttpRequest, HttpResponse, Result,
    error::{ErrorServiceUnavailable, ErrorUnprocessableEntity},
    http::header,
    web::{Data, Form, Json, Path, Query, Redirect},
};
use serde::Deserialize;
use tera::Context;

use crate::{
    Wiki,
    articles::{Article, PER_PAGE},
};

#[derive(Deserialize)]
pub struct Search {
    /// The view cache lets only positive numbers through.
    #[serde(default = "one")]
    page: u64,
    #[serde(default)]
    q: String,
}

fn one() -> u64 {
    1
}

#[derive(Deserialize)]
pub struct Text {
    text: String,
}

pub async fn list(
    wiki: Data<Wiki>,
    session: Session,
    search: Query<Search>,
) -> Result<HttpResponse> {
    let articles = wiki.find(&search).await?;
    let mut context = greeting(&session);
    context.insert("per_page", &PER_PAGE);
    context.insert("articles", &articles);
    context.insert("page", &search.page);
    context.insert("q", &search.q);
    wiki.render("list.html", "text/html; charset=utf-8", &context).await
}

pub async fn feed(wiki: Data<Wiki>, search: Query<Search>) -> Result<HttpResponse> {
    let mut context = Context::new();
    context.insert("articles", &wiki.find(&search).await?);
    wiki.render("feed.xml", "application/atom+xml", &context).await
}

pub async fn json(wiki: Data<Wiki>, search: Query<Search>) -> Result<Json<Vec<Article>>> {
    wiki.find(&search).await.map(Json)
}

/// An article that does not exist is an empty one: save it to create it.
pub async fn article(
    wiki: Data<Wiki>,
    session: Session,
    name: Path<String>,
) -> Result<HttpResponse> {
    let article = wiki.articles.get(&name).await.map_err(unavailable)?;
    let comments = wiki.articles.comments(&name).await.map_err(unavailable)?;
    let mut context = greeting(&session);
    context.insert("name", &*name);
    context.insert("text", &article.map(|article| article.text).unwrap_or_default());
    context.insert("comments", &comments);
    wiki.render("article.html", "text/html; charset=utf-8", &context).await
}

pub async fn save(wiki: Data<Wiki>, name: Path<String>, form: Form<Text>) -> Result<Redirect> {
    if name.contains(['/', '?', '#', '%']) {
        return Err(ErrorUnprocessableEntity("A name must not contain / ? # or %."));
    }
    let article = Article { name: name.into_inner(), text: form.into_inner().text };
    wiki.articles.save(article).await.map_err(unavailable)?;
    Ok(Redirect::to("/").see_other())
}

pub async fn comment(wiki: Data<Wiki>, req: HttpRequest, form: Form<Text>) -> Result<Redirect> {
    let (name, text) = (req.match_info().query("name"), form.into_inner().text);
    wiki.articles.add_comment(name.to_owned(), text).await.map_err(unavailable)?;
    Ok(Redirect::to(req.path().trim_end_matches("/comments").to_owned()).see_other())
}

pub async fn log_in(session: Session, form: Form<Text>) -> Result<Redirect> {
    session.insert("name", &form.text)?;
    Ok(Redirect::to("/").see_other())
}

/// The cause is for the log, not for visitors.
fn unavailable(error: impl std::fmt::Display) -> actix_web::Error {
    log::error!("{error}");
    ErrorServiceUnavailable("The wiki is out of order for a moment. Try again.")
}

fn greeting(session: &Session) -> Context {
    let mut context = Context::new();
    context.insert("visitor", &session.get::<String>("name").ok().flatten());
    context
}

impl Wiki {
    async fn find(&self, search: &Search) -> Result<Vec<Article>> {
        self.articles.find(search.page, &search.q).await.map_err(unavailable)
    }

    async fn render(&self, template: &str, kind: &str, context: &Context) -> Result<HttpResponse> {
        let page = self.templates.render(&self.fragments, template, context).await;
        let page = page.map_err(unavailable)?;
        Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, kind)).body(page))
    }
}
