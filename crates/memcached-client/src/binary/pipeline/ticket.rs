//! What a caller waits with.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::{Pipeline, Reply, Slot};
use crate::error::Error;

/// Waits for the responses of one operation. Dropping it does not take the operation back.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(super) pipeline: Pipeline,
    /// `None` once the outcome has been handed over.
    pub(super) slot: Option<usize>,
}

impl Future for Ticket {
    type Output = Result<Reply, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(slot) = self.slot else {
            return Poll::Pending;
        };
        let mut state = self.pipeline.state();
        if let Slot::Waiting { waker, .. } = &mut state.slots[slot] {
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let taken = state.slots.remove(slot);
        drop(state);
        self.slot = None;
        match taken {
            Slot::Ready(outcome) => Poll::Ready(outcome),
            Slot::Waiting { .. } | Slot::Abandoned { .. } => Poll::Pending,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        let mut state = self.pipeline.state();
        match state.slots[slot].followers().map(std::mem::take) {
            None => drop(state.slots.remove(slot)),
            Some(followers) => state.slots[slot] = Slot::Abandoned { followers },
        }
    }
}
