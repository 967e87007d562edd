//! Conditional requests: whether the client already has a page. Pure.

/// Returns whether an `If-None-Match` header contains `tag` or is `*` (RFC 9110, section 13.1.2). The
/// response is then 304.
pub(super) fn is_known(if_none_match: &str, tag: &str) -> bool {
    listed(if_none_match).any(|listed| listed == tag || listed == "*")
}

/// Returns the entity tags of a list, with their quotes. The prefix `W/` is removed, because
/// `If-None-Match` uses the weak comparison (RFC 9110, section 8.8.3.2).
fn listed(header: &str) -> impl Iterator<Item = &str> {
    let mut rest = header;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let tag = rest.strip_prefix("W/").unwrap_or(rest);
        let end = match tag.strip_prefix('"') {
            Some(inner) => inner.find('"')? + 2,
            None => tag.find([',', ' ']).unwrap_or(tag.len()),
        };
        let (tag, after) = tag.split_at(end);
        rest = after;
        (!tag.is_empty()).then_some(tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_tag_is_found_whether_weak_or_strong() {
        for (header, known) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", W/\"c\" ,\"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
            ("\"x, \\\"a\"", false),
            ("\"b,a\"", false),
            ("\"a", false),
            ("", false),
        ] {
            assert_eq!(is_known(header, "\"a\""), known, "{header}");
        }
    }
}
