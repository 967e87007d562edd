//! Settings: their defaults, their effects and the errors of invalid values.

use std::time::Duration;

use tasklist::config::{CacheBackend, Config};

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn config(variables: &[(&str, &str)]) -> Result<Config, String> {
    Config::from_environment(&variables.iter().copied().collect())
        .map_err(|error| error.to_string())
}

#[test]
fn without_settings_every_default_applies() {
    let config = config(&[]).unwrap();
    assert_eq!((config.server.host.as_str(), config.server.port), ("127.0.0.1", 8080));
    assert_eq!(config.database.url.to_string(), "sqlite tasklist.sqlite3");
    assert_eq!(config.database.pool_size, 8);
    assert_eq!(config.session.lifetime, Duration::from_secs(14 * 24 * 60 * 60));
    assert!(config.session.secret_key.is_none());
    assert!(!config.server.production);
    assert!(config.public_origins.is_empty());
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    assert_eq!(config(&[("PORT", ""), ("SECRET_KEY", "")]).unwrap().server.port, 8080);
}

#[test]
fn a_port_without_a_host_listens_on_all_addresses() {
    assert_eq!(config(&[("PORT", "5000")]).unwrap().server.host, "0.0.0.0");
    let named = config(&[("PORT", "5000"), ("HOST", "127.0.0.1")]).unwrap();
    assert_eq!(named.server.host, "127.0.0.1");
    assert_eq!(config(&[("HOST", "[::1]")]).unwrap().server.host, "::1");
}

#[test]
fn a_dyno_means_production() {
    let dyno = config(&[("DYNO", "web.1"), ("SECRET_KEY", KEY), ("ALLOW_EPHEMERAL_SQLITE", "yes")]);
    assert!(dyno.unwrap().server.production);
}

#[test]
fn several_public_origins_are_separated_by_commas() {
    let config =
        config(&[("PUBLIC_ORIGIN", "https://A.example:443/, http://b.example:8080")]).unwrap();
    assert_eq!(config.public_origins, ["https://a.example", "http://b.example:8080"]);
}

#[test]
fn the_size_of_the_memory_cache_has_a_unit_or_is_in_bytes() {
    for (size, bytes) in [("67108864", 64 << 20), ("64MiB", 64 << 20), ("2 MB", 2_000_000)] {
        let config = config(&[("CACHE_MEMORY_BYTES", size)]).unwrap();
        assert!(
            matches!(config.cache.backend, CacheBackend::Memory(read) if read == bytes),
            "{size}"
        );
    }
}

/// Environment variables, and the beginning of the error that they cause.
const INVALID_VALUES: [(&[(&str, &str)], &str); 23] = [
    (&[("CACHE_MEMORY_BYTES", "64 apples")], "CACHE_MEMORY_BYTES: “64 apples” is not a size"),
    (&[("CACHE_MEMORY_BYTES", "1023KiB")], "CACHE_MEMORY_BYTES: “1023KiB” is not a size of at"),
    (&[("CACHE_MEMORY_BYTES", "99999999999GiB")], "CACHE_MEMORY_BYTES: “99999999999GiB” is"),
    (&[("PORT", "abc")], "PORT: “abc” is not a port number"),
    (&[("PORT", "65536")], "PORT: “65536” is not a port number"),
    (&[("PORT", "1\n2")], "PORT: “1\\n2” is not a port number"),
    (&[("HOST", "256.1.1.1")], "HOST: “256.1.1.1” is not an address or name"),
    (&[("HOST", "not a host")], "HOST: “not a host” is not an address or name"),
    (&[("WEB_CONCURRENCY", "513")], "WEB_CONCURRENCY: “513” is not a number from 1"),
    (&[("WEB_CONCURRENCY", "0")], "WEB_CONCURRENCY: “0” is not a number from 1"),
    (&[("DATABASE_POOL_SIZE", "-1")], "DATABASE_POOL_SIZE: “-1” is not a number"),
    (&[("APP_ENV", "prod")], "APP_ENV: “prod” is not an environment"),
    (&[("APP_ENV", "production")], "SECRET_KEY: is required in production"),
    (&[("DYNO", "web.1"), ("SECRET_KEY", KEY)], "DATABASE_URL: a dyno's disk"),
    (&[("ALLOW_EPHEMERAL_SQLITE", "maybe")], "ALLOW_EPHEMERAL_SQLITE: “maybe”"),
    (&[("SESSION_LIFETIME", "soon")], "SESSION_LIFETIME: “soon” is not a time"),
    (&[("SESSION_LIFETIME", "2years")], "SESSION_LIFETIME: “2years” is not a time"),
    (&[("PUBLIC_ORIGIN", "tasks.example")], "PUBLIC_ORIGIN: is not a list"),
    (&[("PUBLIC_ORIGIN", "https://a/b")], "PUBLIC_ORIGIN: is not a list"),
    (&[("RUST_LOG", "=")], "RUST_LOG: “=” is not a log filter"),
    (&[("RUST_LOG", "tasklist=loud")], "RUST_LOG: “tasklist=loud” is not a log filter"),
    (&[("DATABASE_URL", "tasks.db")], "DATABASE_URL: is not a URL"),
    (&[("DATABASE_URL", "oracle://u:p@h/d")], "DATABASE_URL: the scheme oracle://"),
];

#[test]
fn an_invalid_value_is_an_error_that_names_variable_value_and_rule() {
    for (variables, expected) in INVALID_VALUES {
        let message = config(variables).err().unwrap_or_else(|| "no error".to_owned());
        assert!(message.starts_with(expected), "{message:?} does not start with {expected:?}");
        assert!(!message.contains('\n'), "{message:?} is more than one line");
    }
}

#[test]
fn a_short_secret_key_is_rejected_without_printing_it() {
    let error = config(&[("SECRET_KEY", "hunter2-hunter2")]).unwrap_err();
    assert!(error.starts_with("SECRET_KEY: is 15 characters long"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}
