ALTER TABLE task ADD COLUMN completed BOOLEAN NOT NULL DEFAULT 0;
CREATE INDEX task_by_completed ON task (completed, id);

-- The numbers of tasks, so that no page counts them. Triggers keep them, for older versions of the app too.
CREATE TABLE task_totals (
    id INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    active BIGINT NOT NULL,
    completed BIGINT NOT NULL
);
INSERT INTO task_totals SELECT 1, COUNT(*), 0 FROM task;

CREATE TRIGGER task_added AFTER INSERT ON task BEGIN
    UPDATE task_totals
    SET active = active + (NOT NEW.completed), completed = completed + NEW.completed;
END;
CREATE TRIGGER task_deleted AFTER DELETE ON task BEGIN
    UPDATE task_totals
    SET active = active - (NOT OLD.completed), completed = completed - OLD.completed;
END;
CREATE TRIGGER task_changed AFTER UPDATE OF completed ON task
WHEN NEW.completed <> OLD.completed BEGIN
    UPDATE task_totals
    SET active = active + OLD.completed - NEW.completed,
        completed = completed + NEW.completed - OLD.completed;
END;
