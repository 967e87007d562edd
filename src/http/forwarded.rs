//! Address, scheme and id of a client's request, as told by the headers of trusted proxies.
//!
//! Any client can send `X-Forwarded-For`. Each proxy appends the address of its own client; so, read
//! from the right, the first address that is not a trusted proxy is the client's.

use std::net::IpAddr;

use actix_web::HttpRequest;

use crate::config::TrustedProxies;

/// The longest request id that is accepted from a proxy.
const MAX_ID_LENGTH: usize = 64;

impl TrustedProxies {
    /// Returns the address of the client, as far as it is known.
    pub(crate) fn client(&self, req: &HttpRequest) -> Option<IpAddr> {
        let peer = peer(req);
        if !self.trusts(peer) {
            return peer;
        }
        let mut client = peer;
        for entry in forwarded_for(req) {
            // A trusted proxy would have written an address.
            let Some(address) = entry else { break };
            client = Some(address);
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    /// Returns the address of the client, if the request came through a trusted proxy.
    pub(crate) fn proxied_client(&self, req: &HttpRequest) -> Option<IpAddr> {
        if self.trusts(peer(req)) { self.client(req) } else { None }
    }

    /// Returns the scheme of the client's request, if a trusted proxy tells it. Proxies append to the
    /// header, and write it in any case: the request was secure if any of them received it with TLS.
    pub(crate) fn scheme(&self, req: &HttpRequest) -> Option<Scheme> {
        if !self.trusts(peer(req)) {
            return None;
        }
        let mut scheme = None;
        for line in req.headers().get_all("x-forwarded-proto") {
            for entry in line.to_str().ok()?.split(',').map(str::trim) {
                if entry.eq_ignore_ascii_case("https") {
                    return Some(Scheme::Https);
                }
                if entry.eq_ignore_ascii_case("http") {
                    scheme = Some(Scheme::Http);
                }
            }
        }
        scheme
    }

    /// Returns the id that a trusted proxy gave to the request, if a log can hold it.
    pub(crate) fn request_id<'r>(&self, req: &'r HttpRequest) -> Option<&'r str> {
        let id = req.headers().get("x-request-id")?.to_str().ok()?;
        let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let is_id = (1..=MAX_ID_LENGTH).contains(&id.len()) && id.chars().all(is_valid);
        (is_id && self.trusts(peer(req))).then_some(id)
    }
}

/// The scheme of a client's request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// Returns the address of the peer; `None` on the unix socket.
fn peer(req: &HttpRequest) -> Option<IpAddr> {
    req.peer_addr().map(|peer| peer.ip().to_canonical())
}

/// Returns the entries of all `X-Forwarded-For`, the last one first; `None` for an entry that is not an
/// address.
fn forwarded_for(req: &HttpRequest) -> impl Iterator<Item = Option<IpAddr>> {
    let lines: Vec<_> = req.headers().get_all("x-forwarded-for").collect();
    lines.into_iter().rev().flat_map(|line| {
        let entries = line.to_str().unwrap_or_default().rsplit(',');
        entries.map(|entry| Some(entry.trim().parse::<IpAddr>().ok()?.to_canonical()))
    })
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn client(trusted: &str, peer: &str, forwarded: &[&str]) -> String {
        let mut req = TestRequest::default().peer_addr(format!("{peer}:1234").parse().unwrap());
        for line in forwarded {
            req = req.append_header(("x-forwarded-for", *line));
        }
        let trusted: TrustedProxies = trusted.parse().unwrap();
        trusted.client(&req.to_http_request()).unwrap().to_string()
    }

    #[test]
    fn by_default_no_proxy_is_trusted() {
        assert_eq!(client("", "10.0.0.1", &["203.0.113.7"]), "10.0.0.1");
    }

    #[test]
    fn a_trusted_proxy_is_believed_about_its_own_client_only() {
        let trusted = "10.0.0.0/8, 192.0.2.1";
        assert_eq!(client(trusted, "10.0.0.1", &["198.51.100.9, 203.0.113.7"]), "203.0.113.7");
        assert_eq!(client(trusted, "10.0.0.1", &["198.51.100.9", "203.0.113.7"]), "203.0.113.7");
        assert_eq!(client(trusted, "10.0.0.1", &["203.0.113.7, 192.0.2.1"]), "203.0.113.7");
        assert_eq!(client(trusted, "203.0.113.9", &["198.51.100.9"]), "203.0.113.9");
        assert_eq!(client(trusted, "10.0.0.1", &["evil"]), "10.0.0.1");
        assert_eq!(client(trusted, "10.0.0.1", &["203.0.113.7, evil"]), "10.0.0.1");
        assert_eq!(client(trusted, "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_scheme_is_that_of_a_trusted_proxy_in_any_spelling() {
        for (trusted, value, expected) in [
            ("10.0.0.1", "http", Some(Scheme::Http)),
            ("10.0.0.1", "HTTP", Some(Scheme::Http)),
            ("10.0.0.1", "http, http", Some(Scheme::Http)),
            ("10.0.0.1", "https", Some(Scheme::Https)),
            ("10.0.0.1", "https, http", Some(Scheme::Https)),
            ("10.0.0.1", "gopher", None),
            ("10.0.0.1", "", None),
            ("", "http", None),
        ] {
            let req = TestRequest::default()
                .peer_addr("10.0.0.1:1".parse().unwrap())
                .append_header(("x-forwarded-proto", value))
                .to_http_request();
            let trusted: TrustedProxies = trusted.parse().unwrap();
            assert_eq!(trusted.scheme(&req), expected, "{value}");
        }
    }

    #[test]
    fn an_address_is_the_same_in_both_spellings() {
        assert_eq!(client("10.0.0.1", "[::ffff:10.0.0.1]", &["203.0.113.7"]), "203.0.113.7");
    }

    #[test]
    fn a_request_id_is_accepted_only_if_it_is_valid_and_from_a_trusted_proxy() {
        let id = |trusted: &str, id: &str| {
            let req = TestRequest::default()
                .peer_addr("10.0.0.1:1".parse().unwrap())
                .append_header(("x-request-id", id))
                .to_http_request();
            let trusted: TrustedProxies = trusted.parse().unwrap();
            trusted.request_id(&req).map(str::to_owned)
        };
        assert_eq!(id("10.0.0.1", "f9ed4675-f1c5").as_deref(), Some("f9ed4675-f1c5"));
        assert_eq!(id("", "f9ed4675"), None);
        for invalid in ["", "a b", "a=b", &"x".repeat(65)] {
            assert_eq!(id("10.0.0.1", invalid), None, "{invalid}");
        }
    }
}
