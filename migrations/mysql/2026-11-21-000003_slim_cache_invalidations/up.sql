-- There are never many rows, and each write inserts and removes one.
DROP INDEX cache_invalidations_by_age ON cache_invalidations;
