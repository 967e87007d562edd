//! `TRUSTED_PROXIES`: whose word counts about who asks.
//!
//! Anyone can send `X-Forwarded-For`. Of its entries, each proxy appends the address that it was
//! asked by; so, read from the right, the first one that is no trusted proxy is the visitor.

use std::{net::IpAddr, str::FromStr};

use actix_web::HttpRequest;
use ipnet::IpNet;

/// Stands for whoever connects to the unix socket.
const UNIX: &str = "unix";

/// The most that is taken over of somebody else's request id.
const LONGEST_ID: usize = 64;

/// The proxies in front of the app. By default none is trusted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    unix: bool,
}

impl FromStr for TrustedProxies {
    type Err = String;

    /// Addresses, networks and `unix`, separated by commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut trusted = Self::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            if entry == UNIX {
                trusted.unix = true;
            } else if let Ok(address) = entry.parse::<IpAddr>() {
                trusted.networks.push(address.to_canonical().into());
            } else {
                let network: IpNet = entry.parse().map_err(|_| entry.to_owned())?;
                // Peers are known by their IPv4 address: such a network would trust nobody.
                if matches!(network, IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some()) {
                    return Err(entry.to_owned());
                }
                trusted.networks.push(network);
            }
        }
        Ok(trusted)
    }
}

impl TrustedProxies {
    /// `None` is a peer on the unix socket.
    fn trusts(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            Some(address) => self.networks.iter().any(|network| network.contains(&address)),
            None => self.unix,
        }
    }

    /// The visitor's address, as far as it can be known.
    pub(crate) fn client(&self, req: &HttpRequest) -> Option<IpAddr> {
        let peer = peer(req);
        if !self.trusts(peer) {
            return peer;
        }
        let mut client = peer;
        for entry in forwarded_for(req) {
            // What is no address was not written by a proxy of ours.
            let Some(address) = entry else { break };
            client = Some(address);
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    /// Whether the visitor came without TLS, as a trusted proxy tells.
    pub(crate) fn is_plain(&self, req: &HttpRequest) -> bool {
        let scheme = req.headers().get("x-forwarded-proto");
        self.trusts(peer(req)) && scheme.is_some_and(|scheme| scheme.as_bytes() == b"http")
    }

    /// The id that a proxy has given to the request, if it is fit for a log.
    pub(crate) fn request_id<'r>(&self, req: &'r HttpRequest) -> Option<&'r str> {
        let id = req.headers().get("x-request-id")?.to_str().ok()?;
        let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let is_id = (1..=LONGEST_ID).contains(&id.len()) && id.chars().all(is_fit);
        (is_id && self.trusts(peer(req))).then_some(id)
    }
}

/// Who has connected; `None` on the unix socket.
fn peer(req: &HttpRequest) -> Option<IpAddr> {
    req.peer_addr().map(|peer| peer.ip().to_canonical())
}

/// The addresses of all `X-Forwarded-For`, the last one first; `None` for what is none.
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
    fn nobody_is_believed_by_default() {
        assert_eq!(client("", "10.0.0.1", &["203.0.113.7"]), "10.0.0.1");
    }

    #[test]
    fn a_trusted_proxy_is_believed_about_whom_it_was_asked_by_and_about_nobody_else() {
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
    fn an_address_is_the_same_in_both_spellings() {
        assert_eq!(client("10.0.0.1", "[::ffff:10.0.0.1]", &["203.0.113.7"]), "203.0.113.7");
    }

    #[test]
    fn a_request_id_is_taken_from_a_trusted_proxy_only_and_only_if_it_is_fit_for_a_log() {
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
        for unfit in ["", "a b", "a=b", &"x".repeat(65)] {
            assert_eq!(id("10.0.0.1", unfit), None, "{unfit}");
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        assert_eq!("10.0.0.1, ten".parse::<TrustedProxies>(), Err("ten".to_owned()));
        assert!("::ffff:10.0.0.0/104".parse::<TrustedProxies>().is_err());
        assert!("unix, 10.0.0.0/8, ::1".parse::<TrustedProxies>().is_ok());
    }
}
