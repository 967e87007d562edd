-- The id is the number of the row itself. No index by age: there are never many rows, and each write
-- inserts and removes one.
CREATE TABLE slim (
    id INTEGER PRIMARY KEY NOT NULL,
    keys TEXT NOT NULL,
    -- Milliseconds since 1970, by the database's own clock.
    created_at BIGINT NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))
);
INSERT INTO slim SELECT id, keys, created_at FROM cache_invalidations;
DROP TABLE cache_invalidations;
ALTER TABLE slim RENAME TO cache_invalidations;
