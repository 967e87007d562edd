ALTER TABLE task DROP INDEX task_by_completed, DROP COLUMN completed;
