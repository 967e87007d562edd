-- Invalidations that are not confirmed yet. Replayed by everfresh.
CREATE TABLE IF NOT EXISTS cache_invalidations (
    id BIGINT NOT NULL PRIMARY KEY,
    `keys` MEDIUMTEXT NOT NULL,
    -- Milliseconds since 1970, by the database's own clock.
    created_at BIGINT NOT NULL DEFAULT (CAST(UNIX_TIMESTAMP(CURRENT_TIMESTAMP(3)) * 1000 AS SIGNED)),
    INDEX cache_invalidations_by_age (created_at, id)
) ENGINE = InnoDB, DEFAULT CHARACTER SET = utf8mb4;
