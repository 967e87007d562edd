//! Reads templates and static files again when they have changed, in development.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::templates::{Loaded, load};

/// The files, as they were at the start and as they are.
pub(super) struct Live {
    folder: PathBuf,
    first: u64,
    current: Mutex<Current>,
}

struct Current {
    fingerprint: u64,
    /// The last files without a mistake.
    loaded: Arc<Loaded>,
    /// The mistake in the files as they are.
    problem: Option<String>,
}

impl Live {
    /// Watches the folders `templates` and `static` in a folder.
    pub(super) fn new(folder: PathBuf, loaded: Arc<Loaded>) -> Self {
        let first = fingerprint(&folder);
        let current = Mutex::new(Current { fingerprint: first, loaded, problem: None });
        Self { folder, first, current }
    }

    pub(super) fn has_changed(&self) -> bool {
        fingerprint(&self.folder) != self.first
    }

    /// Returns the files, read again if one has changed, and the mistake in them.
    pub(super) fn current(&self) -> (Arc<Loaded>, Option<String>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let found = fingerprint(&self.folder);
        if found != current.fingerprint {
            current.fingerprint = found;
            current.problem = match load(Some(&self.folder)) {
                Ok(loaded) => {
                    current.loaded = Arc::new(loaded);
                    None
                }
                Err(error) => Some(error.to_string()),
            };
        }
        (Arc::clone(&current.loaded), current.problem.clone())
    }
}

/// Returns a number that changes with the names, times and sizes of the files.
fn fingerprint(folder: &Path) -> u64 {
    let mut files: Vec<_> = ["templates", "static"]
        .iter()
        .flat_map(|kind| fs::read_dir(folder.join(kind)).into_iter().flatten())
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some((entry.path(), metadata.modified().ok()?, metadata.len()))
        })
        .collect();
    files.sort();
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use everfresh::Cache;

    use super::super::Views;

    /// Copies the files of the app, and watches them.
    fn watched() -> (Views, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        for kind in ["templates", "static"] {
            std::fs::create_dir(folder.path().join(kind)).unwrap();
            let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(kind);
            for entry in std::fs::read_dir(from).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), folder.path().join(kind).join(entry.file_name()))
                    .unwrap();
            }
        }
        let views = Views::watching(Cache::null().build(), folder.path().to_owned()).unwrap();
        (views, folder)
    }

    fn edit(folder: &tempfile::TempDir, file: &str, change: impl FnOnce(String) -> String) {
        let path = folder.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, change(text)).unwrap();
        // File systems with coarse times would not tell two edits apart.
        let later = SystemTime::now() + Duration::from_secs(rand::random_range(1..1000));
        std::fs::File::options().write(true).open(path).unwrap().set_modified(later).unwrap();
    }

    async fn error_page(views: &Views) -> String {
        let page =
            serde_json::json!({ "status": 404, "title": "Gone", "message": "", "request_id": "" });
        views.render("error.html", &page).await.unwrap()
    }

    #[actix_web::test]
    async fn an_edited_template_is_shown_at_the_next_request() {
        let (views, folder) = watched();
        assert!(!views.have_changed() && !error_page(&views).await.contains("Hello"));
        edit(&folder, "templates/base.html", |text| text.replace("<main>", "<main>Hello"));
        assert!(views.have_changed() && error_page(&views).await.contains("<main>Hello"));
    }

    #[actix_web::test]
    async fn an_edited_stylesheet_has_a_new_name_and_is_served() {
        let (views, folder) = watched();
        edit(&folder, "static/style.css", |text| text + "p { color: red }");
        let page = error_page(&views).await;
        let name = page.split("/static/style-").nth(1).unwrap().split('"').next().unwrap();
        let asset = views.assets().find(&format!("style-{name}")).unwrap().content.clone();
        assert!(asset.ends_with(b"p { color: red }"));
    }

    #[actix_web::test]
    async fn a_mistake_in_a_template_is_told_with_template_line_and_cause_until_it_is_mended() {
        let (views, folder) = watched();
        edit(&folder, "templates/edit.html", |text| text.replace("{{ typed }}", "{{ typed + }}"));
        let error = views.render("edit.html", &()).await.unwrap_err().to_string();
        assert!(error.contains("edit.html:") && error.contains("{{ typed + }}"), "{error}");
        assert!(error_page(&views).await.contains("Gone"), "error pages are shown all the same");
        edit(&folder, "templates/edit.html", |text| text.replace("{{ typed + }}", "{{ typed }}"));
        let page = serde_json::json!({ "id": 1, "original": "", "typed": "", "back": "/",
            "has_conflict": false, "problem": null });
        assert!(views.render("edit.html", &page).await.is_ok());
    }
}
