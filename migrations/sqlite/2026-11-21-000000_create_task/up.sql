-- No AUTOINCREMENT: SQLite may give a deleted task's id to a new one.
CREATE TABLE task (
    id INTEGER PRIMARY KEY NOT NULL,
    name TEXT NOT NULL
);
