-- SQLite has one writer at a time, so one row is enough. Migrations have the same names on all databases.
SELECT 1;
