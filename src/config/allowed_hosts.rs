//! `ALLOWED_HOSTS`: the values of `Host` that the app answers.

use std::net::IpAddr;

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
