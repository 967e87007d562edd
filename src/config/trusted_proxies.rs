//! `TRUSTED_PROXIES`: the proxies whose headers are believed. `http::forwarded` reads the headers.

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;

/// Stands for clients of the unix socket.
const UNIX: &str = "unix";

/// The proxies in front of the app. Default: no proxy is trusted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    unix: bool,
}

impl FromStr for TrustedProxies {
    type Err = String;

    /// Parses addresses, networks and `unix`, separated by commas. The error is the invalid entry.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut trusted = Self::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            if entry == UNIX {
                trusted.unix = true;
            } else if let Ok(address) = entry.parse::<IpAddr>() {
                trusted.networks.push(address.to_canonical().into());
            } else {
                let network: IpNet = entry.parse().map_err(|_| entry.to_owned())?;
                // Peers are compared by their IPv4 address, so such a network would match no peer.
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
    /// Returns whether the headers of a peer are believed; `None` is a peer on the unix socket.
    pub(crate) fn trusts(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            Some(address) => self.networks.iter().any(|network| network.contains(&address)),
            None => self.unix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_entry_is_reported() {
        assert_eq!("10.0.0.1, ten".parse::<TrustedProxies>(), Err("ten".to_owned()));
        assert!("::ffff:10.0.0.0/104".parse::<TrustedProxies>().is_err());
        assert!("unix, 10.0.0.0/8, ::1".parse::<TrustedProxies>().is_ok());
    }
}
