//! `ALLOWED_HOSTS`: the values of `Host` that the app answers.
//!
//! Without such a list, a page of another site can resolve its own name to the app's address (DNS
//! rebinding) and read a list on 127.0.0.1 or an intranet: for the browser both are the same site. An
//! address as the host cannot be rebound.

use std::net::IpAddr;

use actix_web::{
    Error, ResponseError,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Version,
        header::{self, HeaderMap},
    },
    middleware::Next,
    web::Data,
};

use super::{error_pages::AppError, route::RouteTable};

/// The hosts that are answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AllowedHosts {
    Any,
    /// Loopback names, and addresses: for development.
    Local,
    /// These names or addresses, in lower case, without ports. A name that begins with a dot stands
    /// for a domain with all its subdomains.
    Listed(Vec<String>),
}

impl AllowedHosts {
    /// Returns whether requests to `host` are answered. The port does not matter.
    pub(crate) fn allows(&self, host: &str) -> bool {
        let Some(name) = name_of(host) else { return false };
        match self {
            Self::Any => true,
            Self::Local => {
                name.eq_ignore_ascii_case("localhost")
                    || ends_with_ignore_case(name, ".localhost")
                    || name.parse::<IpAddr>().is_ok()
            }
            Self::Listed(listed) => listed.iter().any(|allowed| match allowed.strip_prefix('.') {
                Some(domain) => {
                    name.eq_ignore_ascii_case(domain) || ends_with_ignore_case(name, allowed)
                }
                None => name.eq_ignore_ascii_case(allowed),
            }),
        }
    }

    /// Returns whether a request is for an allowed host. HTTP/1.1 requires one `Host` (RFC 9112,
    /// section 3.2), and so do we with HTTP/1.0; an absolute URL must name an allowed host, too.
    pub(crate) fn allow_request(&self, req: &ServiceRequest) -> bool {
        let authority = req.uri().authority();
        let is_http2 = req.version() >= Version::HTTP_2;
        let from_url = authority.is_none_or(|authority| self.allows(authority.as_str()));
        let from_header = one_host(req.headers()).is_some_and(|host| self.allows(host));
        from_url && (from_header || (is_http2 && authority.is_some()))
    }
}

/// Returns the host without its port, brackets and final dot; `None` if it is malformed. Allocates
/// nothing: this runs for every request.
fn name_of(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let is_valid_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    let name = name.strip_suffix('.').unwrap_or(name);
    (is_valid_port && !name.is_empty() && name.chars().all(is_name)).then_some(name)
}

fn ends_with_ignore_case(text: &str, end: &str) -> bool {
    let start = text.len().checked_sub(end.len());
    start.and_then(|start| text.get(start..)).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

fn one_host(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(header::HOST);
    let host = hosts.next()?.to_str().ok()?;
    hosts.next().is_none().then_some(host)
}

/// A middleware that answers requests for other hosts with 421 (RFC 9110, section 15.5.20). Probes name
/// the machine as they know it, and show nothing.
pub(crate) async fn refuse_other_hosts<B: MessageBody>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let hosts = req.app_data::<Data<AllowedHosts>>();
    let routes = req.app_data::<Data<RouteTable>>();
    let is_probe = routes.is_some_and(|routes| routes.is_probe(req.path()));
    if is_probe || hosts.is_none_or(|hosts| hosts.allow_request(&req)) {
        return next.call(req).await.map(ServiceResponse::map_into_left_body);
    }
    Ok(req.into_response(AppError::WrongHost.error_response()).map_into_right_body())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowed_hosts_are_answered_on_any_port() {
        let listed =
            AllowedHosts::Listed(vec!["tasks.example".to_owned(), ".wild.example".to_owned()]);
        for (hosts, host, allowed) in [
            (&AllowedHosts::Local, "localhost:8080", true),
            (&AllowedHosts::Local, "app.LOCALHOST", true),
            (&AllowedHosts::Local, "127.0.0.1:8080", true),
            (&AllowedHosts::Local, "[::1]:8080", true),
            (&AllowedHosts::Local, "192.168.1.5", true),
            (&AllowedHosts::Local, "evil.example", false),
            (&AllowedHosts::Local, "localhost.evil.example", false),
            (&AllowedHosts::Local, "127.0.0.1.evil.example", false),
            (&AllowedHosts::Local, "", false),
            (&AllowedHosts::Local, "user@localhost", false),
            (&AllowedHosts::Local, "local host", false),
            (&listed, "Tasks.example:443", true),
            (&listed, "tasks.example.", true),
            (&listed, "a.tasks.example", false),
            (&listed, "wild.example", true),
            (&listed, "a.b.wild.example", true),
            (&listed, "notwild.example", false),
            (&listed, "127.0.0.1", false),
            (&AllowedHosts::Any, "evil.example", true),
            (&AllowedHosts::Any, "", false),
            (&AllowedHosts::Any, "/path", false),
        ] {
            assert_eq!(hosts.allows(host), allowed, "{hosts:?} {host}");
        }
    }
}
