LOCK TABLE task IN SHARE ROW EXCLUSIVE MODE;
DROP VIEW task_totals;
UPDATE task_totals_part SET active = sums.active, completed = sums.completed
FROM (SELECT SUM(active) AS active, SUM(completed) AS completed FROM task_totals_part) AS sums
WHERE id = 1;
DELETE FROM task_totals_part WHERE id > 1;
ALTER TABLE task_totals_part RENAME TO task_totals;
ALTER TABLE task_totals ADD CHECK (id = 1);

-- As `add_completed` has made them.
CREATE OR REPLACE FUNCTION task_added() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    UPDATE task_totals AS t
    SET active = t.active + added.active, completed = t.completed + added.completed
    FROM (SELECT COUNT(*) FILTER (WHERE NOT completed) AS active,
                 COUNT(*) FILTER (WHERE completed) AS completed FROM new_rows) AS added
    WHERE added.active + added.completed > 0;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION task_deleted() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    UPDATE task_totals AS t
    SET active = t.active - gone.active, completed = t.completed - gone.completed
    FROM (SELECT COUNT(*) FILTER (WHERE NOT completed) AS active,
                 COUNT(*) FILTER (WHERE completed) AS completed FROM old_rows) AS gone
    WHERE gone.active + gone.completed > 0;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION task_changed() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    UPDATE task_totals AS t
    SET active = t.active - done.number, completed = t.completed + done.number
    FROM (SELECT (SELECT COUNT(*) FROM new_rows WHERE completed)
               - (SELECT COUNT(*) FROM old_rows WHERE completed) AS number) AS done
    WHERE done.number <> 0;
    RETURN NULL;
END $$;
DROP FUNCTION change_task_totals;
