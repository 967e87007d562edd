//! Where a page is rendered: on the thread that asks for it, or, if its template takes long, on another one,
//! so that the requests of that thread need not wait for it.

use std::{
    collections::HashMap,
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::available_parallelism,
    time::Instant,
};

use tera::{Error, TeraResult};
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
};

/// The time from which a page leaves the thread that asks for it, in microseconds. Leaving takes about 20.
const LONG: u64 = 1000;

/// How long the templates take. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Offload {
    /// The longest of the last times of each template, in microseconds.
    took: Arc<HashMap<String, AtomicU64>>,
    /// A permit for each page that may be rendered on another thread at the same time: one per core, because
    /// more of them would only take memory.
    permits: Arc<Semaphore>,
}

impl Offload {
    pub(super) fn new<'a>(templates: impl Iterator<Item = &'a str>) -> Self {
        let took = templates.map(|name| (name.to_owned(), AtomicU64::new(0))).collect();
        let cores = available_parallelism().map_or(1, usize::from);
        Self { took: Arc::new(took), permits: Arc::new(Semaphore::new(cores)) }
    }

    /// Returns whether pages of a template are to be rendered on another thread, by [`run`](Self::run).
    pub(super) fn is_long(&self, template: &str) -> bool {
        let took = self.took.get(template).map_or(0, |took| took.load(Ordering::Relaxed));
        took >= LONG && Handle::try_current().is_ok()
    }

    /// Renders on this thread.
    pub(super) fn run_here<T>(&self, template: &str, render: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let rendered = render();
        if let Some(took) = self.took.get(template) {
            let now = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            // A page may be short once, and long again.
            let before = took.load(Ordering::Relaxed);
            took.store(now.max(before - before / 4), Ordering::Relaxed);
        }
        rendered
    }

    /// Renders on another thread. A panic there is one of the caller.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        template: &str,
        render: impl FnOnce() -> T + Send + 'static,
    ) -> TeraResult<T> {
        let (this, name) = (self.clone(), template.to_owned());
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let rendering = spawn_blocking(move || {
            // Held here, because the page is rendered to its end even if its caller is gone.
            let _permit = permit;
            this.run_here(&name, render)
        });
        rendering.await.map_err(|failure| match JoinError::try_into_panic(failure) {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Error::message("the runtime stopped before the page was rendered"),
        })
    }
}
