//! Secrets in the settings of tests, none of which may show up in anything that a test sees.

/// The `SECRET_KEY` of tests.
pub const SECRET_KEY: &str = "a key for tests, as long as it needs to be";

/// Each secret with its purpose.
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

/// Checks pages, headers, output and logs.
pub fn assert_no_secret(text: &str) {
    for (purpose, secret) in SECRETS {
        assert!(!text.contains(secret), "the secret “{purpose}” is in: {text}");
    }
}
