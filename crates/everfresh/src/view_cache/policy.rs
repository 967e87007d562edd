//! Decides which requests are answered from the cache and which responses are stored. Pure.

use std::{fmt, time::Duration};

use actix_web::http::{
    StatusCode,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};

/// The reason why a request is not answered from the cache, or why its response is not stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    Spelling,
    Authorization,
    BypassCookie,
    Unless,
    NoKey,
    Status(StatusCode),
    SetCookie,
    CacheControl,
    VariesByAnything,
    Encoded,
    Stream,
    Filter,
    Lifetime,
    TooLarge,
    OtherVary,
    Session,
    CsrfToken,
    Uncacheable,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spelling => "the URL is not in the spelling that browsers send",
            Self::Authorization => "the request has an Authorization header",
            Self::BypassCookie => "the request has a bypass cookie",
            Self::Unless => "the condition of `unless` is true for the request",
            Self::NoKey => "the key function returned no key",
            Self::Status(status) => return write!(f, "the status is {}, not 200", status.as_u16()),
            Self::SetCookie => "the response sets a cookie",
            Self::CacheControl => "Cache-Control or Expires of the response forbids it",
            Self::VariesByAnything => "Vary of the response is `*` or unreadable",
            Self::Encoded => "the response already has a Content-Encoding",
            Self::Stream => "the body is a stream",
            Self::Filter => "the response does not meet the condition of `only_if`",
            Self::Lifetime => "the lifetime is zero",
            Self::TooLarge => "the page is too large",
            Self::Uncacheable => "the page was found uncacheable a short time ago",
            Self::Session => {
                "the request has a session, and the response does not vary by it (`Vary: Cookie`, \
                 `vary_cookie` with the session's cookie, `vary_by_session`); see `allow_sessions`"
            }
            Self::CsrfToken => {
                "it has a form with a CSRF token, which is that of one visitor, and does not vary by \
                 the session; protect forms by the headers `Sec-Fetch-Site` and `Origin` instead, or \
                 see `vary_cookie` and `allow_sessions`"
            }
            Self::OtherVary => "Vary names headers that earlier responses did not vary by",
        })
    }
}

/// Checks whether a request may be answered from the cache, by its headers.
pub(super) fn admits_request(
    headers: &HeaderMap,
    bypass_cookies: &[String],
) -> Result<(), Refusal> {
    if headers.contains_key(header::AUTHORIZATION) {
        return Err(Refusal::Authorization);
    }
    if bypass_cookies.iter().any(|name| has_cookie(headers, name)) {
        return Err(Refusal::BypassCookie);
    }
    Ok(())
}

fn has_cookie(headers: &HeaderMap, name: &str) -> bool {
    cookie_values(headers, name).next().is_some()
}

/// Returns the values of the cookies with a name (RFC 6265, section 4.2.1), as bytes.
pub(super) fn cookie_values<'h>(
    headers: &'h HeaderMap,
    name: &str,
) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(header::COOKIE).map(HeaderValue::as_bytes);
    let pairs = lines.flat_map(|line| line.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
    pairs.filter_map(move |pair| {
        let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let is_wanted = pair[..end].trim_ascii_end() == name.as_bytes();
        is_wanted.then(|| pair.get(end + 1..).unwrap_or_default().trim_ascii_start())
    })
}

/// Checks whether a response may be stored, by its status and headers. Its `Vary` is checked by
/// [`Variation`](super::vary::Variation), its lifetime by the caller.
pub(super) fn admits_response(status: StatusCode, headers: &HeaderMap) -> Result<(), Refusal> {
    if status != StatusCode::OK {
        return Err(Refusal::Status(status));
    }
    if headers.contains_key(header::SET_COOKIE) {
        return Err(Refusal::SetCookie);
    }
    let forbids = |name: &str| ["private", "no-store", "no-cache", UNREADABLE].contains(&name);
    if directives(headers).any(|(name, _)| forbids(&name)) {
        return Err(Refusal::CacheControl);
    }
    // Expires is read as a prohibition: most apps that send it give a date in the past. With
    // max-age it has no meaning (RFC 9111, section 5.3).
    if headers.contains_key(header::EXPIRES) && max_age(headers).is_none() {
        return Err(Refusal::CacheControl);
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Refusal::Encoded);
    }
    Ok(())
}

/// Returns the lifetime in a response's Cache-Control: `s-maxage`, or else `max-age`. A value that
/// is not a number counts as zero (RFC 9111, section 4.2.1).
pub(super) fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let seconds = |wanted: &str| {
        let mut found = directives(headers).filter(|(name, _)| name == wanted);
        found.next().map(|(_, value)| value.trim_matches('"').parse().unwrap_or(0))
    };
    seconds("s-maxage").or_else(|| seconds("max-age")).map(Duration::from_secs)
}

/// The item that replaces a header line that is not ASCII text. It is treated as the most
/// restrictive one, since the line may contain any directive or name.
const UNREADABLE: &str = "*";

/// Returns the items of a comma-separated header, over all its lines.
pub(super) fn items(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).map(|value| value.to_str().unwrap_or(UNREADABLE));
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// Returns the directives of Cache-Control (RFC 9111, section 5.2) with their values. The names are
/// in lower case.
fn directives(headers: &HeaderMap) -> impl Iterator<Item = (String, &str)> {
    items(headers, header::CACHE_CONTROL).map(|directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        (name.trim().to_ascii_lowercase(), value.trim())
    })
}

/// The names that frameworks give to fields with a CSRF token, or parts of them.
const CSRF_NAMES: [&[u8]; 4] =
    [b"csrf", b"xsrf", b"authenticity_token", b"requestverificationtoken"];

/// Returns whether an HTML page has an `<input>` or `<meta>` with a CSRF token, told by its name. Text that
/// only looks like one has `&lt;` in place of `<`.
pub(super) fn has_csrf_token(page: &[u8]) -> bool {
    let is_kind = |tag: &[u8], kind: &[u8]| {
        tag.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind))
    };
    let mut fields = tags(page).filter(|tag| is_kind(tag, b"input ") || is_kind(tag, b"meta "));
    fields.any(|tag| {
        let end = tag.iter().position(|byte| matches!(byte, b'<' | b'>')).unwrap_or(tag.len());
        let name = name_of(&tag[..end]).unwrap_or_default().to_ascii_lowercase();
        CSRF_NAMES.iter().any(|part| name.windows(part.len()).any(|found| found == *part))
    })
}

/// Returns the tags of a page whose names begin with `i` or `m`, each from its name to the end of the page.
fn tags(page: &[u8]) -> impl Iterator<Item = &[u8]> {
    const BLOCK: usize = 256;
    let is_start = |(a, b): (&u8, &u8)| *a == b'<' && (*b | 0x20 == b'i' || *b | 0x20 == b'm');
    // Blocks are looked at as a whole first, without a branch, so that the compiler uses SIMD: a page has many tags,
    // and few of these.
    (0..page.len()).step_by(BLOCK).flat_map(move |from| {
        let next = page.len().min(from + BLOCK);
        let block = &page[from..page.len().min(next + 1)];
        let has_start = block.iter().zip(&block[1..]).fold(false, |any, pair| any | is_start(pair));
        let starts = (from..if has_start { next } else { from })
            .filter(move |at| page.get(at + 1).is_some_and(|after| is_start((&page[*at], after))));
        starts.map(|at| &page[at + 1..])
    })
}

/// Returns the value of the attribute `name` of a tag.
fn name_of(tag: &[u8]) -> Option<&[u8]> {
    const ATTRIBUTE: &[u8] = b" name=";

    let found = |part: &[u8]| part.eq_ignore_ascii_case(ATTRIBUTE);
    let value = &tag[tag.windows(ATTRIBUTE.len()).position(found)? + ATTRIBUTE.len()..];
    let quote = value.first().copied().filter(|first| matches!(first, b'"' | b'\''));
    match quote {
        Some(quote) => value[1..].split(|byte| *byte == quote).next(),
        None => value.split(u8::is_ascii_whitespace).next(),
    }
}

/// Returns whether a response may be compressed, which `no-transform` forbids (RFC 9110, section 7.7).
pub(super) fn may_be_transformed(headers: &HeaderMap) -> bool {
    directives(headers).all(|(name, _)| name != "no-transform")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_with_a_csrf_token_is_found_by_its_name() {
        for page in [
            "<form><input type=\"hidden\" name=\"csrf_token\" value=\"1\">",
            "<INPUT NAME='csrfmiddlewaretoken'>",
            "<input name=authenticity_token value=1>",
            "<input name=\"__RequestVerificationToken\">",
            "<meta content=\"1\" name=\"csrf-token\">",
        ] {
            assert!(has_csrf_token(page.as_bytes()), "{page}");
        }
        for page in [
            "<p>csrf</p><input name=\"q\" value=\"csrf\">",
            "&lt;input name=\"csrf\"&gt; <p>name=csrf</p>",
            "<p name=\"csrf\"><input><meta ",
            "<input",
            "",
        ] {
            assert!(!has_csrf_token(page.as_bytes()), "{page}");
        }
    }
}
