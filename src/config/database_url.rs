//! `DATABASE_URL`, validated without connecting.
//!
//! Neither user nor password is ever printed.

use std::{fmt, path::Path, str::FromStr};

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

/// The databases that this build supports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DatabaseKind {
    #[cfg(feature = "sqlite")]
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgres,
    #[cfg(feature = "mysql")]
    Mysql,
}

/// A database URL with a supported scheme. Its `Display` and `Debug` show neither user, password nor
/// options.
#[derive(Clone)]
pub struct DatabaseUrl {
    pub(crate) kind: DatabaseKind,
    pub(crate) secret: SecretString,
    /// The file, or the host and database, for people.
    place: String,
}

impl DatabaseUrl {
    pub(crate) fn is_sqlite(&self) -> bool {
        self.secret.expose_secret().starts_with("sqlite:")
    }

    /// Returns whether this is an SQLite file that does not exist yet, in a folder that does.
    pub(crate) fn names_new_file(&self) -> bool {
        let file = Path::new(&self.place);
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        self.is_sqlite() && !file.exists() && folder.is_none_or(Path::is_dir)
    }

    fn password(&self) -> Option<&str> {
        let (_, rest) = self.secret.expose_secret().split_once("://")?;
        let (credentials, _) = rest.rsplit_once('@')?;
        credentials.split_once(':').map(|(_, password)| password)
    }

    /// Returns the message of a database library as one line for a log, with the URL's password masked
    /// in case the message quotes it.
    pub(crate) fn without_secrets(&self, message: &str) -> String {
        let message = one_line(message);
        match self.password().filter(|password| !password.is_empty()) {
            // A library may quote it as it stands in the URL, or decoded.
            Some(password) => {
                let decoded = percent_decode_str(password).decode_utf8_lossy();
                message.replace(password, "***").replace(&*decoded, "***")
            }
            None => message,
        }
    }
}

/// Returns the message of a database library, which may have several lines, as one line for a log.
pub(crate) fn one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

impl FromStr for DatabaseUrl {
    type Err = String;

    /// The error quotes only the scheme of the URL.
    fn from_str(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or(
            "is not a URL, such as sqlite://tasklist.sqlite3 or \
             postgres://user:password@host/database",
        )?;
        if !scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+') {
            return Err(format!("does not begin with a scheme; {SCHEMES}"));
        }
        let (kind, place, url) = match scheme {
            #[cfg(feature = "sqlite")]
            "sqlite" => {
                // SQLAlchemy writes absolute paths with two slashes, which SQLite takes for a host.
                let rest = rest
                    .strip_prefix("//")
                    .map_or_else(|| rest.to_owned(), |path| format!("/{path}"));
                (DatabaseKind::Sqlite, sqlite_file(&rest)?, format!("sqlite://{rest}"))
            }
            #[cfg(not(feature = "sqlite"))]
            "sqlite" => return Err(not_built_in("SQLite", "sqlite")),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => {
                (DatabaseKind::Postgres, server_and_name(rest)?, with_time_limits(url))
            }
            #[cfg(not(feature = "postgres"))]
            "postgres" | "postgresql" => return Err(not_built_in("PostgreSQL", "postgres")),
            #[cfg(feature = "mysql")]
            "mysql" => {
                (DatabaseKind::Mysql, server_and_name(rest)?, with_plain_database_name(rest)?)
            }
            #[cfg(not(feature = "mysql"))]
            "mysql" => return Err(not_built_in("MySQL", "mysql")),
            other => return Err(format!("the scheme {other}:// is unknown; {SCHEMES}")),
        };
        Ok(Self { kind, secret: url.into(), place })
    }
}

const SCHEMES: &str = "use sqlite://, postgres:// or mysql://";

#[cfg(not(all(feature = "sqlite", feature = "postgres", feature = "mysql")))]
fn not_built_in(name: &str, feature: &str) -> String {
    format!("this build does not support {name}; build it with `cargo build --features {feature}`")
}

/// Returns the file of an SQLite URL. SQLite takes an empty name, or one that begins with NUL, for a
/// database in memory.
#[cfg(feature = "sqlite")]
fn sqlite_file(rest: &str) -> Result<String, String> {
    let file = rest.split(['?', '#']).next().unwrap_or_default();
    if file.trim_matches('/').is_empty() || file.contains("%00") {
        Err("names no file; sqlite://tasklist.sqlite3 is one in the working folder".to_owned())
    } else if file.contains(":memory:") || rest.contains("mode=memory") {
        Err("every connection would have its own database in memory; name a file".to_owned())
    } else {
        Ok(file.to_owned())
    }
}

/// Returns host and database of a URL. libpq parses a password that is not percent-encoded in its own
/// way, and its errors quote the part that it took for a host or port.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn server_and_name(rest: &str) -> Result<String, String> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let at_signs = rest.matches('@').count();
    if at_signs > 1 || at_signs != authority.matches('@').count() {
        return Err("has an @, /, ? or # in user or password; write %40, %2F, %3F or %23".into());
    }
    if !percent_encoded(rest) {
        return Err("has a % that two hexadecimal digits do not follow; write it as %25".into());
    }
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    let hosts = place.split(['/', '?', '#']).next().unwrap_or_default();
    if !hosts.split(',').all(has_valid_port) {
        return Err("has a port that is not a number; write host:5432".to_owned());
    }
    Ok(place.split(['?', '#']).next().unwrap_or_default().to_owned())
}

/// Adds time limits, so that a server that vanished silently is noticed within seconds instead of when
/// TCP gives up: `connect_timeout` in seconds, and `tcp_user_timeout` for unacknowledged data in
/// milliseconds.
#[cfg(feature = "postgres")]
fn with_time_limits(url: &str) -> String {
    let (place, options) = url.split_once('?').unwrap_or((url, ""));
    let mut options: Vec<_> = options.split('&').filter(|option| !option.is_empty()).collect();
    for limit in ["connect_timeout=3", "tcp_user_timeout=20000"] {
        let name = |option: &str| option.split('=').next().map(str::to_owned);
        if !options.iter().any(|option| name(option) == name(limit)) {
            options.push(limit);
        }
    }
    format!("{place}?{}", options.join("&"))
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
fn percent_encoded(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| {
        rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
fn has_valid_port(host: &str) -> bool {
    let after_address = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
    match after_address.rsplit_once(':') {
        Some((_, port)) => port.is_empty() || port.parse::<u16>().is_ok(),
        None => true,
    }
}

/// Decodes `%24` in the database's name to `$`, which is awkward in shells and `.env` files. Diesel
/// does not decode the name.
#[cfg(feature = "mysql")]
fn with_plain_database_name(rest: &str) -> Result<String, String> {
    let (place, options) = match rest.find(['?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let name = place.split_once('/').map(|(_, name)| name).filter(|name| !name.is_empty());
    let name = name.ok_or("names no database; write mysql://user:password@host/database")?;
    let plain = name.replace("%24", "$");
    if plain.contains('%') {
        return Err("has a % in the database's name; only %24, for $, is supported".to_owned());
    }
    Ok(format!("mysql://{}/{plain}{options}", &place[..place.len() - name.len() - 1]))
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            #[cfg(feature = "sqlite")]
            DatabaseKind::Sqlite => "sqlite",
            #[cfg(feature = "postgres")]
            DatabaseKind::Postgres => "postgres",
            #[cfg(feature = "mysql")]
            DatabaseKind::Mysql => "mysql",
        };
        write!(f, "{name} {}", self.place)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(feature = "sqlite")]
    fn an_sqlite_url_must_name_a_file() {
        for url in ["sqlite://", "sqlite:///", "sqlite://?x=1", "sqlite://%00", "sqlite://#a"] {
            let error = url.parse::<DatabaseUrl>().unwrap_err();
            assert!(error.starts_with("names no file"), "{url}: {error}");
        }
        for url in ["sqlite://:memory:", "sqlite://a?mode=memory"] {
            let error = url.parse::<DatabaseUrl>().unwrap_err();
            assert!(error.starts_with("every connection"), "{url}: {error}");
        }
    }

    #[test]
    #[cfg(feature = "sqlite")]
    fn an_absolute_path_may_be_written_as_sqlalchemy_does() {
        let url = "sqlite:////tmp/t.sqlite3".parse::<DatabaseUrl>().unwrap();
        assert_eq!(url.secret.expose_secret(), "sqlite:///tmp/t.sqlite3");
        assert_eq!(url.to_string(), "sqlite /tmp/t.sqlite3");
    }

    #[test]
    #[cfg(feature = "postgres")]
    fn a_password_is_never_printed() {
        let passwords = ["hunter2", "hunt#er2", "hunt?er2", "hunt/er2", "hunt@er2", "hunt%er2"];
        for password in passwords {
            let url = format!("postgres://user:{password}@db.example:5433/tasks");
            let printed = match url.parse::<DatabaseUrl>() {
                Ok(url) => format!("{url} {url:?}"),
                Err(error) => error,
            };
            assert!(!printed.contains("hunt") && !printed.contains("er2"), "{printed}");
        }
        for url in ["user:hunter2@h://x", "postgres://u:p@h:hunter2/d", "postgres://h?a=hunter2"] {
            let printed = format!("{:?}", url.parse::<DatabaseUrl>());
            assert!(!printed.contains("hunter2"), "{printed}");
        }
    }

    #[test]
    #[cfg(feature = "postgres")]
    fn a_password_is_masked_in_a_librarys_message() {
        let url: DatabaseUrl = "postgres://user:hunter%402@h/d".parse().unwrap();
        for quoted in ["hunter%402", "hunter@2"] {
            let message = format!("could not connect with {quoted}\n\tIs the server running?\n");
            assert_eq!(
                url.without_secrets(&message),
                "could not connect with ***; Is the server running?"
            );
        }
    }

    #[test]
    #[cfg(feature = "postgres")]
    fn urls_that_libpq_cannot_parse_are_rejected() {
        for url in [
            "postgres://u:p%zz@h/d",
            "postgres://u:p@h:port/d",
            "postgres://h:99999/d",
            "postgres://u:p@h@h/d",
        ] {
            assert!(url.parse::<DatabaseUrl>().is_err(), "{url}");
        }
        for url in ["postgres:///d", "postgres://[::1]:5432/d", "postgres://a:1,b:2/d"] {
            assert!(url.parse::<DatabaseUrl>().is_ok(), "{url}");
        }
    }

    #[test]
    #[cfg(feature = "postgres")]
    fn a_postgres_url_has_time_limits_unless_it_sets_them() {
        let full =
            |url: &str| url.parse::<DatabaseUrl>().unwrap().secret.expose_secret().to_owned();
        let (connect, confirm) = ("connect_timeout=3", "tcp_user_timeout=20000");
        assert_eq!(full("postgres://h/d"), format!("postgres://h/d?{connect}&{confirm}"));
        assert_eq!(full("postgres://h/d?"), format!("postgres://h/d?{connect}&{confirm}"));
        let own = "postgres://h/d?sslmode=require&connect_timeout=9";
        assert_eq!(full(own), format!("{own}&{confirm}"));
    }

    #[test]
    #[cfg(feature = "mysql")]
    fn a_mysql_database_may_be_named_after_its_user() {
        for url in ["mysql://u:p@h/u$tasks?ssl_mode=required", "mysql://u:p@h/u%24tasks"] {
            let parsed: DatabaseUrl = url.parse().unwrap();
            assert!(parsed.secret.expose_secret().starts_with("mysql://u:p@h/u$tasks"), "{url}");
        }
        for url in ["mysql://u:p@h", "mysql://u:p@h/", "mysql://u:p@h/?a=b", "mysql://u:p@h/a%25"] {
            assert!(url.parse::<DatabaseUrl>().is_err(), "{url}");
        }
    }
}
