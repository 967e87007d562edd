DROP TRIGGER task_changed;
DROP TRIGGER task_deleted;
DROP TRIGGER task_added;
DROP TABLE task_totals;
DROP INDEX task_by_completed;
ALTER TABLE task DROP COLUMN completed;
