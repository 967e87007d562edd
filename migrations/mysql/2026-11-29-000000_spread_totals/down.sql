-- There are no totals. Migrations have the same names on all databases.
SELECT 1;
