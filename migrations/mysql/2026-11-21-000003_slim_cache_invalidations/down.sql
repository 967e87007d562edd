CREATE INDEX cache_invalidations_by_age ON cache_invalidations (created_at, id);
