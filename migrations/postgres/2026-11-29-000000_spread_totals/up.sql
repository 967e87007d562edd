-- A transaction that changed the only row of the totals made all others wait until its commit. Now there are sixteen
-- rows, each for some of the connections, and `task_totals` is a view of their sums.

-- Writers of older versions wait here, and then run the new functions.
LOCK TABLE task IN SHARE ROW EXCLUSIVE MODE;
ALTER TABLE task_totals RENAME TO task_totals_part;
ALTER TABLE task_totals_part RENAME CONSTRAINT task_totals_pkey TO task_totals_part_pkey;
ALTER TABLE task_totals_part DROP CONSTRAINT task_totals_id_check;
-- The numbers of one row may be negative: a task that one connection has added may be deleted by another.
INSERT INTO task_totals_part SELECT id, 0, 0 FROM generate_series(2, 16) AS id;
CREATE VIEW task_totals AS
    SELECT 1::SMALLINT AS id, SUM(active)::BIGINT AS active, SUM(completed)::BIGINT AS completed
    FROM task_totals_part;

CREATE OR REPLACE FUNCTION task_added() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    UPDATE task_totals_part AS t
    SET active = t.active + added.active, completed = t.completed + added.completed
    FROM (SELECT COUNT(*) FILTER (WHERE NOT completed) AS active,
                 COUNT(*) FILTER (WHERE completed) AS completed FROM new_rows) AS added
    WHERE t.id = pg_backend_pid() % 16 + 1 AND added.active + added.completed > 0;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION task_deleted() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    UPDATE task_totals_part AS t
    SET active = t.active - gone.active, completed = t.completed - gone.completed
    FROM (SELECT COUNT(*) FILTER (WHERE NOT completed) AS active,
                 COUNT(*) FILTER (WHERE completed) AS completed FROM old_rows) AS gone
    WHERE t.id = pg_backend_pid() % 16 + 1 AND gone.active + gone.completed > 0;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION task_changed() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    UPDATE task_totals_part AS t
    SET active = t.active - done.number, completed = t.completed + done.number
    FROM (SELECT (SELECT COUNT(*) FROM new_rows WHERE completed)
               - (SELECT COUNT(*) FROM old_rows WHERE completed) AS number) AS done
    WHERE t.id = pg_backend_pid() % 16 + 1 AND done.number <> 0;
    RETURN NULL;
END $$;
