-- A transaction that changed the only row of the totals made all others wait until its commit. Now there are sixteen
-- rows, each for some of the connections, and `task_totals` is a view of their sums.

-- Writers of older versions wait here, and then run the new functions.
LOCK TABLE task IN SHARE ROW EXCLUSIVE MODE;
ALTER TABLE task_totals RENAME TO task_totals_part;
ALTER TABLE task_totals_part DROP CONSTRAINT task_totals_id_check;
-- The numbers of one row may be negative: a task that one connection has added may be deleted by another.
INSERT INTO task_totals_part SELECT id, 0, 0 FROM generate_series(2, 16) AS id;
CREATE VIEW task_totals AS
    SELECT 1::SMALLINT AS id, SUM(active)::BIGINT AS active, SUM(completed)::BIGINT AS completed
    FROM task_totals_part;

-- Changes the row of this connection.
CREATE FUNCTION change_task_totals(more_active BIGINT, more_completed BIGINT) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    UPDATE task_totals_part SET active = active + more_active, completed = completed + more_completed
    WHERE id = pg_backend_pid() % 16 + 1 AND (more_active <> 0 OR more_completed <> 0);
END $$;
CREATE OR REPLACE FUNCTION task_added() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    PERFORM change_task_totals(COUNT(*) FILTER (WHERE NOT completed), COUNT(*) FILTER (WHERE completed))
    FROM new_rows;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION task_deleted() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    PERFORM change_task_totals(-COUNT(*) FILTER (WHERE NOT completed), -COUNT(*) FILTER (WHERE completed))
    FROM old_rows;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION task_changed() RETURNS TRIGGER LANGUAGE plpgsql AS $$
DECLARE
    done BIGINT := (SELECT COUNT(*) FROM new_rows WHERE completed) - (SELECT COUNT(*) FROM old_rows WHERE completed);
BEGIN
    PERFORM change_task_totals(-done, done);
    RETURN NULL;
END $$;
