//! The file of an SQLite database: its permissions, and whether it is still the one that was opened.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use diesel::{RunQueryDsl, dsl::sql, select, sql_types::Text};

use super::{connection::DbConnection, error::DbError};

/// SQL for the absolute path of the file.
const PATH: &str = "(SELECT file FROM pragma_database_list WHERE name = 'main')";

/// The file that was opened, if it is known. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct SqliteFile(Arc<OnceLock<OpenedFile>>);

#[derive(Debug)]
struct OpenedFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SqliteFile {
    /// Remembers the file of a connection. Makes a new one private to its user: SQLite creates files
    /// that all users can read, and gives its journals the permissions of the database.
    pub(super) fn remember(&self, conn: &mut DbConnection) -> Result<(), DbError> {
        let path: String = match conn {
            DbConnection::Sqlite(conn) => select(sql::<Text>(PATH)).get_result(conn)?,
            #[cfg(any(feature = "postgres", feature = "mysql"))]
            _ => return Ok(()),
        };
        let path = PathBuf::from(path);
        let cannot = |error| DbError::Unavailable(format!("{}: {error}", path.display()));
        let file = fs::metadata(&path).map_err(cannot)?;
        if file.len() == 0 {
            fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(cannot)?;
        }
        self.0.get_or_init(|| OpenedFile { path, device: file.dev(), inode: file.ino() });
        Ok(())
    }

    /// Fails if the file has been deleted or replaced. Connections would still write to the old file,
    /// which is gone when they are closed.
    pub(super) fn check(&self) -> Result<(), DbError> {
        let Some(OpenedFile { path, device, inode }) = self.0.get() else { return Ok(()) };
        match fs::metadata(path) {
            Ok(file) if (file.dev(), file.ino()) == (*device, *inode) => Ok(()),
            _ => Err(DbError::Unavailable(format!(
                "the file {} was deleted, moved or replaced; put it back, or restart the app",
                path.display()
            ))),
        }
    }
}
