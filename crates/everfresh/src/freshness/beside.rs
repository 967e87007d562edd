//! Work that no answer waits for.

use std::{
    future::{Future, poll_fn},
    task::Poll,
};

/// Sends the requests of `work`, and leaves the rest of it to a task of its own. Returns its output if it needed
/// not wait, which is the case for an in-process cache.
///
/// If the runtime ends first, values are only not stored.
pub(crate) async fn beside<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let mut work = Box::pin(work);
    // The first poll sends the requests, so they precede those of later callers on this connection.
    let polled = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
    match polled {
        Poll::Ready(output) => Some(output),
        Poll::Pending => {
            tokio::spawn(work);
            None
        }
    }
}
