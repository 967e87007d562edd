//! Settings: what each does, and what a wrong one says.

use std::time::Duration;

use tasklist::config::Config;

fn config<const N: usize>(variables: [(&str, &str); N]) -> Result<Config, String> {
    Config::from_environment(&variables.into_iter().collect()).map_err(|error| error.to_string())
}

#[test]
fn without_any_setting_everything_has_its_default() {
    let config = config([]).unwrap();
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
    assert_eq!(config([("PORT", ""), ("SECRET_KEY", "")]).unwrap().server.port, 8080);
}

#[test]
fn once_a_port_is_set_all_addresses_are_listened_on_unless_a_host_is_named() {
    assert_eq!(config([("PORT", "5000")]).unwrap().server.host, "0.0.0.0");
    let named = config([("PORT", "5000"), ("HOST", "127.0.0.1")]).unwrap();
    assert_eq!(named.server.host, "127.0.0.1");
    assert_eq!(config([("HOST", "[::1]")]).unwrap().server.host, "::1");
}

#[test]
fn a_dyno_means_production() {
    let key = "0123456789abcdef0123456789abcdef";
    let dyno = config([("DYNO", "web.1"), ("SECRET_KEY", key), ("ALLOW_EPHEMERAL_SQLITE", "yes")]);
    assert!(dyno.unwrap().server.production);
}

#[test]
fn several_public_origins_are_separated_by_commas() {
    let config =
        config([("PUBLIC_ORIGIN", "https://A.example:443/, http://b.example:8080")]).unwrap();
    assert_eq!(config.public_origins, ["https://a.example", "http://b.example:8080"]);
}

#[test]
fn a_wrong_value_names_the_variable_and_what_would_be_right() {
    let key = "0123456789abcdef0123456789abcdef";
    let cases = [
        (config([("PORT", "abc")]), "PORT: “abc” is not a port number"),
        (config([("PORT", "65536")]), "PORT: “65536” is not a port number"),
        (config([("PORT", "1\n2")]), "PORT: “1\\n2” is not a port number"),
        (config([("HOST", "256.1.1.1")]), "HOST: “256.1.1.1” is no address or name"),
        (config([("HOST", "not a host")]), "HOST: “not a host” is no address or name"),
        (config([("WEB_CONCURRENCY", "513")]), "WEB_CONCURRENCY: “513” is not a number from 1"),
        (config([("WEB_CONCURRENCY", "0")]), "WEB_CONCURRENCY: “0” is not a number from 1"),
        (config([("DATABASE_POOL_SIZE", "-1")]), "DATABASE_POOL_SIZE: “-1” is not a number"),
        (config([("APP_ENV", "prod")]), "APP_ENV: “prod” is neither development nor production"),
        (config([("APP_ENV", "production")]), "SECRET_KEY: is required in production"),
        (config([("DYNO", "web.1"), ("SECRET_KEY", key)]), "DATABASE_URL: a dyno's disk"),
        (config([("ALLOW_EPHEMERAL_SQLITE", "maybe")]), "ALLOW_EPHEMERAL_SQLITE: “maybe”"),
        (config([("SESSION_LIFETIME", "soon")]), "SESSION_LIFETIME: “soon” is not a time"),
        (config([("SESSION_LIFETIME", "2years")]), "SESSION_LIFETIME: “2years” is not a time"),
        (config([("PUBLIC_ORIGIN", "tasks.example")]), "PUBLIC_ORIGIN: is not a list"),
        (config([("PUBLIC_ORIGIN", "https://a/b")]), "PUBLIC_ORIGIN: is not a list"),
        (config([("RUST_LOG", "tasklist=loud")]), "RUST_LOG: “tasklist=loud” is not a log filter"),
        (config([("DATABASE_URL", "tasks.db")]), "DATABASE_URL: is not a URL"),
        (config([("DATABASE_URL", "oracle://u:p@h/d")]), "DATABASE_URL: the scheme oracle://"),
    ];
    for (outcome, expected) in cases {
        let message = outcome.err().unwrap_or_else(|| "no error".to_owned());
        assert!(message.starts_with(expected), "{message:?} does not start with {expected:?}");
        assert!(!message.contains('\n'), "{message:?} is more than one line");
    }
}

#[test]
#[cfg(not(feature = "postgres"))]
fn a_database_that_is_not_built_in_is_named_with_the_way_to_build_it() {
    let error = config([("DATABASE_URL", "postgres://u:secret@h/d")]).unwrap_err();
    assert!(error.contains("PostgreSQL") && error.contains("--features postgres"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn a_short_secret_key_is_refused_without_printing_it() {
    let error = config([("SECRET_KEY", "hunter2-hunter2")]).unwrap_err();
    assert!(error.starts_with("SECRET_KEY: is 15 characters long"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}
