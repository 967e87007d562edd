//! Templates: embedded in the binary, parsed once at the start, shared by all workers.

use std::{borrow::Cow, sync::Arc};

use rust_embed::RustEmbed;
use serde::Serialize;
use tera::{Context, Kwargs, State, Tera, TeraResult};

use crate::assets::Assets;

#[derive(RustEmbed)]
#[folder = "templates/"]
struct Templates;

/// All templates, ready to render. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Views(Arc<Tera>);

impl Views {
    /// Parses the embedded templates. They can use `asset(name="style.css")` for the URL of a
    /// static file.
    pub(crate) fn load(assets: Assets) -> TeraResult<Self> {
        let mut tera = Tera::default();
        tera.register_function("asset", move |args: Kwargs, _: &State| asset_url(&assets, &args));
        tera.add_raw_templates(Templates::iter().filter_map(|name| {
            let source = Templates::get(&name)?.data;
            Some((name, String::from_utf8_lossy(&source).into_owned()))
        }))?;
        Ok(Self(Arc::new(tera)))
    }

    /// Renders a template with the fields of `page` as its variables.
    pub(crate) fn render(&self, template: &str, page: &impl Serialize) -> TeraResult<String> {
        self.0.render(template, &Context::from_serialize(page)?)
    }
}

fn asset_url(assets: &Assets, args: &Kwargs) -> TeraResult<String> {
    let name: Cow<'_, str> = args.must_get::<&str>("name")?.into();
    assets
        .url(&name)
        .map(str::to_owned)
        .ok_or_else(|| tera::Error::message(format!("there is no static file {name}")))
}
