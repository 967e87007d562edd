//! An operation in flight, as its caller sees it.
//!
//! The socket wakes the caller of the only operation in flight, which reads, instead of the connection's task. That ends
//! when the caller has its outcome or is dropped, or when another operation is added, which wakes the task. So no
//! operation of another caller depends on one that is not polled.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    super::pipeline::{Pushed, Reply},
    io::Io,
    shared::Connection,
};
use crate::error::Error;

/// Awaits the responses of one operation. Dropping it does not cancel the operation.
#[derive(Debug)]
pub(in super::super) struct InFlight {
    connection: Arc<Connection>,
    /// `None` after the outcome has been returned.
    slot: Option<usize>,
    /// [`Pushed::is_alone`], until the task reads again.
    is_alone: bool,
    /// Whether it has been polled, so that the socket wakes the caller.
    is_polled: bool,
}

impl InFlight {
    /// Awaits an operation that has been added. Writes it, if its caller is alone.
    pub(in super::super) fn start(connection: Arc<Connection>, pushed: Pushed) -> Self {
        let Pushed { slot, is_alone } = pushed;
        if is_alone {
            connection.use_io(Io::write_alone);
        }
        Self { connection, slot: Some(slot), is_alone, is_polled: false }
    }

    /// Returns the number of the connection.
    pub(in super::super) fn connection(&self) -> u64 {
        self.connection.number
    }

    /// Reads from the socket until the outcome is there, or nothing more to read.
    fn poll_alone(&mut self, slot: usize, cx: &mut Context<'_>) -> Poll<Result<Reply, Error>> {
        let polled = self.connection.use_io(|io, pipeline| {
            let (outcome, is_alone) = loop {
                let has_read = io.read_alone(pipeline, cx);
                let (outcome, is_alone) = pipeline.poll_alone(slot, cx);
                if outcome.is_ready() || !has_read {
                    break (outcome, is_alone);
                }
            };
            if !is_alone {
                io.end_alone(pipeline);
            }
            (outcome, is_alone)
        });
        let (outcome, is_alone) =
            polled.unwrap_or_else(|| (self.connection.pipeline.poll(slot, cx), false));
        self.is_alone = is_alone;
        outcome
    }
}

impl Future for InFlight {
    type Output = Result<Reply, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(slot) = self.slot else {
            return Poll::Pending;
        };
        // If there was something to read before the first poll, the socket has woken the task, which reads it.
        let outcome = if self.is_alone && self.is_polled {
            self.poll_alone(slot, cx)
        } else {
            self.connection.pipeline.poll(slot, cx)
        };
        self.is_polled = true;
        if outcome.is_ready() {
            self.slot = None;
        }
        outcome
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        self.connection.pipeline.abandon(slot);
        if self.is_alone {
            self.connection.use_io(Io::end_alone);
        }
    }
}
