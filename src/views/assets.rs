//! Static files: embedded in the binary, served under names that change with their content, so
//! that a browser may keep them for ever.

use std::{borrow::Cow, collections::HashMap, fmt::Write, sync::Arc};

use actix_web::{
    HttpResponse,
    http::header,
    web::{Bytes, Data, Path},
};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::http::error_pages::AppError;

#[derive(RustEmbed)]
#[folder = "static/"]
struct Files;

/// Bytes of a file's SHA-256 that its public name carries.
const HASH_BYTES: usize = 8;

/// A year, the most that caches are asked to keep anything (RFC 9111 leaves it open; browsers
/// and proxies agree on it).
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// Every static file, by the name it is served under. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Assets {
    by_public_name: Arc<HashMap<String, Asset>>,
    urls: Arc<HashMap<String, String>>,
}

struct Asset {
    content: Bytes,
    content_type: String,
}

impl Assets {
    /// Names all embedded files.
    pub(crate) fn load() -> Self {
        let mut by_public_name = HashMap::new();
        let mut urls = HashMap::new();
        for (name, file) in Files::iter().filter_map(|name| Files::get(&name).map(|f| (name, f))) {
            let public_name = public_name(&name, &file);
            urls.insert(name.into_owned(), format!("/static/{public_name}"));
            by_public_name.insert(public_name, Asset::from(file));
        }
        Self { by_public_name: Arc::new(by_public_name), urls: Arc::new(urls) }
    }

    /// Changes with any file.
    pub(crate) fn version(&self) -> String {
        let mut names: Vec<_> = self.by_public_name.keys().map(String::as_str).collect();
        names.sort_unstable();
        names.concat()
    }

    /// The URL of the file called `name` in `static/`.
    pub(crate) fn url(&self, name: &str) -> Option<&str> {
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

/// `style.css` becomes `style-0123456789abcdef.css`.
fn public_name(name: &str, file: &EmbeddedFile) -> String {
    let mut hash = String::new();
    for byte in &file.metadata.sha256_hash()[..HASH_BYTES] {
        // Writing to a String cannot fail.
        let _ = write!(hash, "{byte:02x}");
    }
    match name.rsplit_once('.') {
        Some((stem, extension)) => format!("{stem}-{hash}.{extension}"),
        None => format!("{name}-{hash}"),
    }
}

/// `GET /static/{name}`
pub(crate) async fn serve(
    assets: Data<Assets>,
    name: Path<String>,
) -> Result<HttpResponse, AppError> {
    let asset = assets.by_public_name.get(name.as_str()).ok_or(AppError::NotFound)?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, asset.content_type.as_str()))
        .insert_header((header::CACHE_CONTROL, FOR_EVER))
        .body(asset.content.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_carries_a_hash_of_the_content() {
        let assets = Assets::load();
        let url = assets.url("style.css").expect("the stylesheet is embedded");
        let hash = url.strip_prefix("/static/style-").and_then(|u| u.strip_suffix(".css"));
        assert_eq!(hash.map(str::len), Some(2 * HASH_BYTES));
        assert!(hash.is_some_and(|h| h.chars().all(|c| c.is_ascii_hexdigit())));
    }
}
