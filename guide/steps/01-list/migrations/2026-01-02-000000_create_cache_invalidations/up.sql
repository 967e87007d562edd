-- Invalidations that are not confirmed yet. Replayed by everfresh.
CREATE TABLE IF NOT EXISTS cache_invalidations (
    id INTEGER PRIMARY KEY NOT NULL,
    keys TEXT NOT NULL,
    -- Milliseconds since 1970, by the database's own clock.
    created_at BIGINT NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))
);
