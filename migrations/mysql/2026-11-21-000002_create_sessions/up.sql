-- Sessions that outlive the cache (SESSION_STORE=cached_db).
CREATE TABLE IF NOT EXISTS sessions (
    -- The SHA-256 of what the visitor's cookie names, so that the table opens no session.
    id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    state MEDIUMTEXT NOT NULL,
    -- Seconds since 1970.
    expires_at BIGINT NOT NULL,
    INDEX sessions_expires_at (expires_at)
) ENGINE = InnoDB, DEFAULT CHARACTER SET = utf8mb4;
