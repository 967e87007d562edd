//! Templates: embedded in the binary, parsed at the start, shared by all workers.

pub(crate) mod assets;
pub(crate) mod static_files;

use std::borrow::Cow;

use everfresh::{Cache, Templates, TemplatesError};
use rust_embed::RustEmbed;
use serde::Serialize;
use tera::{Kwargs, State, Tera, TeraResult};

use self::assets::Assets;

#[derive(RustEmbed)]
#[folder = "templates/"]
struct Files;

/// All templates. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Views {
    templates: Templates,
    /// The layer of fragments.
    fragments: Cache,
}

impl Views {
    /// Parses the embedded templates. In them, `asset(name="style.css")` is the URL of a static file, and
    /// the filter `no_bidi` removes controls of the text direction.
    pub(crate) fn load(assets: Assets, fragments: Cache) -> Result<Self, TemplatesError> {
        let mut tera = Tera::default();
        let version = assets.version();
        tera.register_function("asset", move |args: Kwargs, _: &State| asset_url(&assets, &args));
        tera.register_filter("no_bidi", |text: &str, _: Kwargs, _: &State| no_bidi(text));
        let sources = Files::iter().filter_map(|name| {
            let source = Files::get(&name)?.data;
            Some((name, String::from_utf8_lossy(&source).into_owned()))
        });
        let templates = Templates::new(tera, sources)?.versioned_by(&version);
        Ok(Self { templates, fragments })
    }

    /// Returns a number that changes with any template and any static file.
    pub(crate) fn version(&self) -> u64 {
        self.templates.digest()
    }

    /// Renders a template with the fields of `page` as its variables.
    pub(crate) async fn render(&self, template: &str, page: &impl Serialize) -> TeraResult<String> {
        self.templates.render_serialized(&self.fragments, template, page).await
    }
}

/// Removes Unicode's controls of the text direction (UAX #9), for places that cannot isolate a text in
/// `<bdi>`, such as `<title>`.
fn no_bidi(text: &str) -> String {
    let is_control = |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().filter(|c| !is_control(*c)).collect()
}

fn asset_url(assets: &Assets, args: &Kwargs) -> TeraResult<String> {
    let name: Cow<'_, str> = args.must_get::<&str>("name")?.into();
    assets
        .url(&name)
        .map(str::to_owned)
        .ok_or_else(|| tera::Error::message(format!("there is no static file {name}")))
}
