ALTER TABLE task ADD COLUMN completed BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX task_by_completed ON task (completed, id);

-- The numbers of tasks, so that no page counts them. Triggers keep them, for older versions of the app too.
-- They run once per statement, because many changes of one row within a transaction are slow.
CREATE TABLE task_totals (
    id SMALLINT PRIMARY KEY NOT NULL CHECK (id = 1),
    active BIGINT NOT NULL,
    completed BIGINT NOT NULL
);
INSERT INTO task_totals SELECT 1, COUNT(*), 0 FROM task;

CREATE FUNCTION task_added() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    UPDATE task_totals AS t
    SET active = t.active + added.active, completed = t.completed + added.completed
    FROM (SELECT COUNT(*) FILTER (WHERE NOT completed) AS active,
                 COUNT(*) FILTER (WHERE completed) AS completed FROM new_rows) AS added
    WHERE added.active + added.completed > 0;
    RETURN NULL;
END $$;
CREATE FUNCTION task_deleted() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    UPDATE task_totals AS t
    SET active = t.active - gone.active, completed = t.completed - gone.completed
    FROM (SELECT COUNT(*) FILTER (WHERE NOT completed) AS active,
                 COUNT(*) FILTER (WHERE completed) AS completed FROM old_rows) AS gone
    WHERE gone.active + gone.completed > 0;
    RETURN NULL;
END $$;
CREATE FUNCTION task_changed() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    UPDATE task_totals AS t
    SET active = t.active - done.number, completed = t.completed + done.number
    FROM (SELECT (SELECT COUNT(*) FROM new_rows WHERE completed)
               - (SELECT COUNT(*) FROM old_rows WHERE completed) AS number) AS done
    WHERE done.number <> 0;
    RETURN NULL;
END $$;
CREATE TRIGGER task_added AFTER INSERT ON task
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION task_added();
CREATE TRIGGER task_deleted AFTER DELETE ON task
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION task_deleted();
CREATE TRIGGER task_changed AFTER UPDATE ON task
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION task_changed();
