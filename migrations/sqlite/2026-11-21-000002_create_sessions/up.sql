-- Sessions that outlive the cache (SESSION_STORE=cached_db).
CREATE TABLE sessions (
    -- The SHA-256 of what the visitor's cookie names, so that the table opens no session.
    id VARCHAR(64) PRIMARY KEY NOT NULL,
    state TEXT NOT NULL,
    -- Seconds since 1970.
    expires_at BIGINT NOT NULL
);
CREATE INDEX sessions_expires_at ON sessions (expires_at);
