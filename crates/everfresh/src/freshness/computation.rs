//! The computation of a value that is to be stored, as the code within it sees it.

use std::{cell::Cell, future::poll_fn};

use super::ahead::Inputs;
use crate::{backend::entries::Slot, cache::deletions::Deletions};

/// The computation of a value that is to be stored.
pub(super) struct Filling {
    /// Whether it has computed another value for it.
    has_computed: Cell<bool>,
    /// Whether it has asked the same cache for another value by `find_or_fill`.
    has_asked: Cell<bool>,
    /// Whether it has waited for anything.
    has_waited: Cell<bool>,
    /// The key of the value, unless it is one of a batch.
    key: Option<String>,
    /// [`Deletions::now`] at its begin.
    since: u64,
    deletions: Deletions,
    inputs: Inputs,
}

impl Filling {
    pub(super) fn new(key: Option<&str>, deletions: &Deletions, inputs: &Inputs) -> Self {
        Self {
            has_computed: Cell::new(false),
            has_asked: Cell::new(false),
            has_waited: Cell::new(false),
            key: key.map(str::to_owned),
            since: deletions.now(),
            deletions: deletions.clone(),
            inputs: inputs.clone(),
        }
    }
}

tokio::task_local! {
    static FILLING: Filling;
}

/// Returns whether the task computes a value that is to be stored. What that is made of is likely to be missing,
/// too: after a write, or in an empty cache.
pub(crate) fn is_within_computation() -> bool {
    FILLING.try_with(|_| ()).is_ok()
}

/// Returns whether the task computes a value to be stored, and has computed another value for it. A fragment of that
/// other value is missing everywhere, unless another process has just rendered it.
#[cfg_attr(not(feature = "tera"), expect(dead_code, reason = "asked by fragments"))]
pub(crate) fn is_made_of_new_value() -> bool {
    FILLING.try_with(|filling| filling.has_computed.get()).unwrap_or(false)
}

/// Returns whether the task computes a value that will not be stored, because this process has deleted its key
/// since. The values and fragments within it are not worth storing either.
pub(crate) fn is_outdated() -> bool {
    let is_outdated = |filling: &Filling| {
        let Filling { key, since, deletions, .. } = filling;
        key.as_ref().is_some_and(|key| deletions.has_deleted(key, *since))
    };
    FILLING.try_with(is_outdated).unwrap_or(false)
}

/// Runs the computation of a value that is to be stored.
pub(super) async fn within_computation<F: Future>(filling: Filling, computation: F) -> F::Output {
    let mut computation = Box::pin(computation);
    let poll = poll_fn(|cx| {
        let output = computation.as_mut().poll(cx);
        // Within the scope there is a computation.
        let _ = FILLING.try_with(|filling| filling.has_waited.set(true));
        output
    });
    let output = FILLING.scope(filling, poll).await;
    // Outside of any other computation there is nothing to note.
    let _ = FILLING.try_with(|filling| filling.has_computed.set(true));
    output
}

/// Notes that the computation that runs, if one does, asks for a value of the cache with these inputs. Returns whether
/// it may be [asked for ahead](super::ahead): it is the first one, and the computation has waited for nothing yet.
pub(crate) fn note_input(inputs: &Inputs) -> bool {
    let note = |filling: &Filling| {
        let Filling { has_asked, has_waited, key, .. } = filling;
        if !filling.inputs.are_those_of(inputs) || has_asked.replace(true) {
            return false;
        }
        if has_waited.get()
            && let Some(key) = key
        {
            inputs.forget(key);
        }
        !has_waited.get()
    };
    FILLING.try_with(note).unwrap_or(false)
}

/// Notes that the first value that the computation that runs has asked for was missing as well.
pub(crate) fn note_missing_input(slot: Slot<'_>) {
    // Outside of a computation there is nothing to note.
    let _ = FILLING.try_with(|filling| {
        filling.key.as_ref().inspect(|key| filling.inputs.remember(key, slot));
    });
}
