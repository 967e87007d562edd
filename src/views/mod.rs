//! Templates and static files: embedded in the binary, parsed at the start, shared by all workers. A debug
//! build in development reads them again when they change ([`live`]).

pub(crate) mod assets;
mod files;
mod live;
pub(crate) mod static_files;
mod templates;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use everfresh::{Cache, TemplatesError};
use serde::Serialize;
use tera::{Error, TeraResult};

use self::{
    assets::Assets,
    live::Live,
    templates::{Loaded, load},
};

/// The template of error pages.
pub(crate) const ERROR_PAGE: &str = "error.html";

/// Where a debug build was made, which is where its sources are edited.
const SOURCES: Option<&str> =
    if cfg!(debug_assertions) { Some(env!("CARGO_MANIFEST_DIR")) } else { None };

/// All templates and static files. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Views {
    first: Arc<Loaded>,
    live: Option<Arc<Live>>,
    /// The layer of fragments.
    fragments: Cache,
}

impl Views {
    /// Parses the templates. In production, and in release builds, they never change.
    pub(crate) fn load(fragments: Cache, production: bool) -> Result<Self, TemplatesError> {
        match SOURCES.map(Path::new).filter(|folder| !production && folder.is_dir()) {
            Some(folder) => Self::watching(fragments, folder.to_owned()),
            None => Ok(Self { first: Arc::new(load(None)?), live: None, fragments }),
        }
    }

    /// Parses the templates in a folder, and again when they have changed.
    fn watching(fragments: Cache, folder: PathBuf) -> Result<Self, TemplatesError> {
        let first = Arc::new(load(Some(&folder))?);
        let live = Some(Arc::new(Live::new(folder, Arc::clone(&first))));
        Ok(Self { first, live, fragments })
    }

    /// Returns a number that changes with any template and any static file, as they were at the start.
    pub(crate) fn version(&self) -> u64 {
        self.first.templates.digest()
    }

    /// Returns whether a file has been edited since the start: then no page of the view cache is right.
    pub(crate) fn have_changed(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.has_changed())
    }

    /// Returns whether pages may show the text of an error in a template.
    pub(crate) fn show_errors(&self) -> bool {
        self.live.is_some()
    }

    fn assets(&self) -> Assets {
        match &self.live {
            Some(live) => live.current().0.assets.clone(),
            None => self.first.assets.clone(),
        }
    }

    /// Renders a template with the fields of `page` as its variables.
    pub(crate) async fn render(&self, template: &str, page: &impl Serialize) -> TeraResult<String> {
        let (loaded, problem) = match &self.live {
            Some(live) => live.current(),
            None => (Arc::clone(&self.first), None),
        };
        match problem {
            // The page about the problem is that of the last templates without one.
            Some(problem) if template != ERROR_PAGE => Err(Error::message(problem)),
            _ => loaded.templates.render_serialized(&self.fragments, template, page).await,
        }
    }
}
