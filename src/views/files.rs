//! Reads the files of a folder.

use std::{fs, path::Path};

use rust_embed::{EmbeddedFile, utils::read_file_from_fs};

/// Returns the files of a folder that can be read, by their names.
pub(super) fn files_in(folder: &Path) -> impl Iterator<Item = (String, EmbeddedFile)> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| {
        let file = read_file_from_fs(&entry.path()).ok()?;
        Some((entry.file_name().into_string().ok()?, file))
    })
}
