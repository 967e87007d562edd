-- Invalidations that are not confirmed yet. Replayed by everfresh.
CREATE TABLE IF NOT EXISTS cache_invalidations (
    id BIGINT PRIMARY KEY NOT NULL,
    keys TEXT NOT NULL,
    -- Milliseconds since 1970, by the database's own clock.
    created_at BIGINT NOT NULL DEFAULT (CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT))
);
