-- What a write makes wrong in the cache, until that has been deleted there.
CREATE TABLE cache_invalidations (
    id BIGINT PRIMARY KEY NOT NULL,
    keys TEXT NOT NULL,
    -- Milliseconds since 1970, by the database's own clock.
    created_at BIGINT NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))
);
CREATE INDEX cache_invalidations_by_age ON cache_invalidations (created_at, id);
