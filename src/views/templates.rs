//! Loads templates and static files.

use std::{borrow::Cow, path::Path};

use everfresh::{Templates, TemplatesError};
use rust_embed::{EmbeddedFile, RustEmbed};
use tera::{Kwargs, State, Tera, TeraResult};

use super::{assets::Assets, files::files_in};

#[derive(RustEmbed)]
#[folder = "templates/"]
struct Files;

/// The files as they were read together.
pub(super) struct Loaded {
    pub(super) assets: Assets,
    pub(super) templates: Templates,
}

/// Parses all files: those in the binary, or those in a folder. In templates, `asset(name="style.css")` is the URL of a static file, and the
/// filter `no_bidi` removes controls of the text direction.
pub(super) fn load(folder: Option<&Path>) -> Result<Loaded, TemplatesError> {
    let assets = Assets::load(folder);
    let mut tera = Tera::default();
    let in_templates = assets.clone();
    tera.register_function("asset", move |args: Kwargs, _: &State| asset_url(&in_templates, &args));
    tera.register_filter("no_bidi", |text: &str, _: Kwargs, _: &State| no_bidi(text));
    let templates = Templates::new(tera, sources(folder))?.versioned_by(&assets.version());
    Ok(Loaded { assets, templates })
}

/// Returns the names and sources of all templates.
fn sources(folder: Option<&Path>) -> Vec<(String, String)> {
    let text = |file: EmbeddedFile| String::from_utf8_lossy(&file.data).into_owned();
    let read = |name: String, file: Option<EmbeddedFile>| Some((name, text(file?)));
    match folder {
        Some(folder) => {
            files_in(&folder.join("templates")).map(|(name, file)| (name, text(file))).collect()
        }
        None => {
            Files::iter().filter_map(|name| read(name.to_string(), Files::get(&name))).collect()
        }
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
