DROP TRIGGER task_changed ON task;
DROP TRIGGER task_deleted ON task;
DROP TRIGGER task_added ON task;
DROP FUNCTION task_changed, task_deleted, task_added;
DROP TABLE task_totals;
DROP INDEX task_by_completed;
ALTER TABLE task DROP COLUMN completed;
