//! Static files: embedded in the binary, with public names that change with their content.

use std::{borrow::Cow, collections::HashMap, path::Path, sync::Arc};

use actix_web::web::Bytes;
use rust_embed::{EmbeddedFile, RustEmbed};

use super::files::files_in;

#[derive(RustEmbed)]
#[folder = "static/"]
struct Files;

/// The number of bytes of a file's SHA-256 in its public name.
const HASH_BYTES: usize = 8;

/// All static files. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Assets {
    by_public_name: Arc<HashMap<String, Asset>>,
    urls: Arc<HashMap<String, String>>,
}

pub(super) struct Asset {
    pub(super) content: Bytes,
    pub(super) content_type: String,
}

impl Assets {
    /// Loads all files: those in the binary, or those in a folder.
    pub(super) fn load(folder: Option<&Path>) -> Self {
        let files: Vec<_> = match folder {
            Some(folder) => files_in(&folder.join("static")).collect(),
            None => Files::iter()
                .filter_map(|name| Some((name.to_string(), Files::get(&name)?)))
                .collect(),
        };
        let mut by_public_name = HashMap::new();
        let mut urls = HashMap::new();
        for (name, file) in files {
            let public_name = public_name(&name, &file);
            urls.insert(name, format!("/static/{public_name}"));
            by_public_name.insert(public_name, Asset::from(file));
        }
        Self { by_public_name: Arc::new(by_public_name), urls: Arc::new(urls) }
    }

    /// Returns the file with a public name.
    pub(super) fn find(&self, public_name: &str) -> Option<&Asset> {
        self.by_public_name.get(public_name)
    }

    /// Returns a text that changes with any file.
    pub(crate) fn version(&self) -> String {
        let mut names: Vec<_> = self.by_public_name.keys().map(String::as_str).collect();
        names.sort_unstable();
        names.concat()
    }

    /// Returns the URL of a file in `static/`.
    pub(super) fn url(&self, name: &str) -> Option<&str> {
        self.urls.get(name).map(String::as_str)
    }
}

impl From<EmbeddedFile> for Asset {
    fn from(file: EmbeddedFile) -> Self {
        let mimetype = file.metadata.mimetype();
        let text = mimetype.starts_with("text/");
        Self {
            content_type: if text { format!("{mimetype}; charset=utf-8") } else { mimetype.into() },
            content: match file.data {
                Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                Cow::Owned(bytes) => Bytes::from(bytes),
            },
        }
    }
}

/// Returns a file's public name: `style.css` becomes `style-0123456789abcdef.css`.
fn public_name(name: &str, file: &EmbeddedFile) -> String {
    let hash = const_hex::encode(&file.metadata.sha256_hash()[..HASH_BYTES]);
    match name.rsplit_once('.') {
        Some((stem, extension)) => format!("{stem}-{hash}.{extension}"),
        None => format!("{name}-{hash}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_carries_a_hash_of_the_content() {
        let assets = Assets::load(None);
        let url = assets.url("style.css").expect("the stylesheet is embedded");
        let hash = url.strip_prefix("/static/style-").and_then(|u| u.strip_suffix(".css"));
        assert_eq!(hash.map(str::len), Some(2 * HASH_BYTES));
        assert!(hash.is_some_and(|h| h.chars().all(|c| c.is_ascii_hexdigit())));
    }
}
