//! Settings, which a platform passes as environment variables.

use std::{env, fmt};

// ANCHOR: settings
pub struct Settings {
    pub address: String,
    /// Seals the entries in memcached.
    pub secret_key: String,
    /// The password of `/metrics`.
    pub admin_token: Option<String>,
}

/// A setting that is missing or wrong: its name, and the remedy.
#[derive(Debug)]
pub struct Wrong(&'static str, &'static str);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0, self.1)
    }
}

impl Settings {
    pub fn read() -> Result<Self, Wrong> {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let address = match variable("PORT") {
            // A platform that chooses the port connects from outside.
            Some(port) => {
                let port: u16 = port.parse().map_err(|_| Wrong("PORT", "is not a port"))?;
                format!("0.0.0.0:{port}")
            }
            None => "127.0.0.1:8080".to_owned(),
        };
        let secret_key = variable("SECRET_KEY").filter(|key| key.len() >= 32);
        let remedy = "set at least 32 random characters, such as those of `openssl rand -hex 32`";
        Ok(Self {
            address,
            secret_key: secret_key.ok_or(Wrong("SECRET_KEY", remedy))?,
            admin_token: variable("ADMIN_TOKEN"),
        })
    }
}
// ANCHOR_END: settings
