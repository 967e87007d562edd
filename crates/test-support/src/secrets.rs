//! The secrets in the settings of tests, and a check that they are not disclosed.

/// The `SECRET_KEY` of tests.
pub const SECRET_KEY: &str = "a key for tests, as long as it needs to be";

/// Pairs of a purpose and a secret.
pub const SECRETS: [(&str, &str); 7] = [
    ("short", "hunter2-hunter2"),
    ("database", "hunter2"),
    ("key", SECRET_KEY),
    ("previous", "the key of yesterday, no less long than today's"),
    ("token", "a token that opens the figures"),
    ("memcached", "correct-horse"),
    ("refused", "a password that no server knows"),
];

/// Returns the secret for a purpose.
pub fn secret(purpose: &str) -> &'static str {
    SECRETS.iter().find(|(name, _)| *name == purpose).unwrap().1
}

/// Asserts that `text`, such as a page or a log, contains no secret.
pub fn assert_no_secret(text: &str) {
    for (purpose, secret) in SECRETS {
        assert!(!text.contains(secret), "the secret “{purpose}” is disclosed in: {text}");
    }
}
