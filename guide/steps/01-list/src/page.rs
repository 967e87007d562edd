//! The page with the list.

use std::sync::LazyLock;

use actix_web::{Error, web::Html};
use tera::{Context, Tera};

use crate::database::{Task, failed};

// ANCHOR: page
static TEMPLATES: LazyLock<Tera> = LazyLock::new(|| {
    let mut tera = Tera::default();
    let list = include_str!("../templates/list.html");
    tera.add_raw_template("list.html", list).expect("the template is valid");
    tera
});

pub fn list(tasks: &[Task]) -> Result<Html, Error> {
    let mut context = Context::new();
    context.insert("tasks", tasks);
    TEMPLATES.render("list.html", &context).map(Html::new).map_err(failed)
}
// ANCHOR_END: page
