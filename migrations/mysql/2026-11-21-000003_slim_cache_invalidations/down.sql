-- Nothing: only SQLite and PostgreSQL gain by it, and here an index that is gone could not be dropped again.
DO 0;
