//! The forms in which a page is sent: plain, Brotli or gzip. Pure.

use std::io::{self, Write};

use actix_web::http::header::{self, HeaderMap};

/// The length in bytes from which pages are compressed. Shorter ones fit into one packet anyway.
const MIN_LENGTH: usize = 1024;

/// Brotli's quality, of 0 to 11. A page is compressed once and sent many times, but a higher
/// quality takes much longer and saves little.
const BROTLI_QUALITY: u32 = 5;
/// gzip's level, of 0 to 9; 6 is its default.
const GZIP_LEVEL: u32 = 6;

/// A form of a page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    Plain,
    Brotli,
    Gzip,
}

impl Form {
    /// All forms, each at the index that is its discriminant.
    pub(super) const ALL: [Self; 3] = [Self::Plain, Self::Brotli, Self::Gzip];

    /// Returns the value of `Content-Encoding`, which is empty for the plain form.
    pub(super) fn coding(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// Returns the forms that `Accept-Encoding` allows (RFC 9110, section 12.5.3), the smallest
    /// first. The last one is always the plain form.
    pub(super) fn acceptable(accept_encoding: Option<&str>) -> impl Iterator<Item = Self> {
        let admits =
            move |form: Self| accept_encoding.is_some_and(|header| admits(header, form.coding()));
        [Self::Brotli, Self::Gzip]
            .into_iter()
            .filter(move |form| admits(*form))
            .chain([Self::Plain])
    }

    /// Compresses a body; for the plain form, copies it.
    pub(super) fn compress(self, body: &[u8]) -> io::Result<Vec<u8>> {
        let compressed = Vec::with_capacity(body.len() / 4);
        match self {
            Self::Plain => Ok(body.to_vec()),
            Self::Brotli => {
                let mut writer =
                    brotli::CompressorWriter::new(compressed, 4096, BROTLI_QUALITY, 22);
                writer.write_all(body)?;
                Ok(writer.into_inner())
            }
            Self::Gzip => {
                let level = flate2::Compression::new(GZIP_LEVEL);
                let mut writer = flate2::write::GzEncoder::new(compressed, level);
                writer.write_all(body)?;
                writer.finish()
            }
        }
    }
}

/// Returns whether an `Accept-Encoding` header allows a coding, by name or by `*`, with a weight
/// over zero.
fn admits(header: &str, coding: &str) -> bool {
    let mut by_star = false;
    for item in header.split(',') {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        let is_refused = parameters
            .split(';')
            .filter_map(|parameter| parameter.trim().strip_prefix(['q', 'Q'])?.strip_prefix('='))
            .any(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0));
        match name.trim() {
            name if name.eq_ignore_ascii_case(coding) => return !is_refused,
            "*" => by_star = !is_refused,
            _ => {}
        }
    }
    by_star
}

/// Returns whether a page is worth compressing: its content type is text, and it is long enough.
pub(super) fn is_compressible(headers: &HeaderMap, length: usize) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    let is_text = kind.starts_with("text/")
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
        || ["application/json", "application/javascript", "application/xml"].contains(&kind);
    is_text && length >= MIN_LENGTH
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn only_accepted_codings_are_used() {
        for (header, expected) in [
            (None, ""),
            (Some(""), ""),
            (Some("identity"), ""),
            (Some("gzip, deflate, br, zstd"), "br gzip "),
            (Some("gzip;q=1.0, br;q=0"), "gzip "),
            (Some("GZIP"), "gzip "),
            (Some("*"), "br gzip "),
            (Some("*;q=0, gzip"), "gzip "),
            (Some("gzip;q=0, *"), "br "),
            (Some("brx, xgzip"), ""),
        ] {
            let forms: Vec<_> = Form::acceptable(header).map(Form::coding).collect();
            assert_eq!(forms.join(" "), expected, "{header:?}");
        }
    }

    #[test]
    fn compressed_forms_are_smaller_and_decompress_to_the_page() {
        let body = "<li>a task</li>".repeat(1000);
        let gzip = Form::Gzip.compress(body.as_bytes()).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, body);
        let brotli = Form::Brotli.compress(body.as_bytes()).unwrap();
        text.clear();
        brotli::Decompressor::new(&brotli[..], 4096).read_to_string(&mut text).unwrap();
        assert_eq!(text, body);
        assert!(gzip.len() < body.len() / 10 && brotli.len() < gzip.len());
    }
}
