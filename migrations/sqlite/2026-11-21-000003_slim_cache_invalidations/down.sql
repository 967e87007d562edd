CREATE TABLE wide (
    id BIGINT PRIMARY KEY NOT NULL,
    keys TEXT NOT NULL,
    created_at BIGINT NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))
);
INSERT INTO wide SELECT id, keys, created_at FROM cache_invalidations;
DROP TABLE cache_invalidations;
ALTER TABLE wide RENAME TO cache_invalidations;
CREATE INDEX cache_invalidations_by_age ON cache_invalidations (created_at, id);
