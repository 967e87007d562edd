//! The body of an answer: sent in pieces, so that a connection holds only the piece that is being
//! written; and shared, so that many readers of a large page hold it once.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use actix_web::{
    body::{BodySize, MessageBody},
    web::Bytes,
};
use pin_project_lite::pin_project;

use super::exchange::Answering;

/// A larger part of a body, in bytes, is sent in pieces.
const LARGE: usize = 64 * 1024;

/// The bytes that all large bodies together may hold for writing: Actix copies each piece.
const BUDGET: usize = 4 * 1024 * 1024;

/// The smallest and the largest piece. Large ones are faster.
const PIECE: RangeInclusive<usize> = 16 * 1024..=384 * 1024;

/// The number of large bodies that are being sent.
static IN_PROGRESS: AtomicUsize = AtomicUsize::new(0);

pin_project! {
    /// A body in pieces.
    pub(super) struct Pieces<B> {
        #[pin]
        body: B,
        // What is left of the last part of the body.
        rest: Option<Large>,
        // Dropped when the body has been handed over.
        _answering: Option<Answering>,
    }
}

impl<B: MessageBody> Pieces<B> {
    pub(super) fn new(body: B, answering: Option<Answering>) -> Self {
        Self { body, rest: None, _answering: answering }
    }
}

impl<B: MessageBody> MessageBody for Pieces<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let mut this = self.project();
        loop {
            if let Some(large) = this.rest {
                match large.next_piece() {
                    Some(piece) => return Poll::Ready(Some(Ok(piece))),
                    None => *this.rest = None,
                }
            }
            match ready!(this.body.as_mut().poll_next(cx)) {
                Some(Ok(part)) if part.len() > LARGE => *this.rest = Some(Large::new(part)),
                part => return Poll::Ready(part),
            }
        }
    }
}

/// What is left of a large part of a body.
struct Large(Bytes);

impl Large {
    fn new(bytes: Bytes) -> Self {
        IN_PROGRESS.fetch_add(1, Ordering::Relaxed);
        Self(share(bytes))
    }

    fn next_piece(&mut self) -> Option<Bytes> {
        let share = BUDGET / IN_PROGRESS.load(Ordering::Relaxed).max(1);
        let length = self.0.len().min(share.clamp(*PIECE.start(), *PIECE.end()));
        (length > 0).then(|| self.0.split_to(length))
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        IN_PROGRESS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The large bodies that are being sent, by their length.
static SHARED: Mutex<Option<HashMap<usize, Weak<Bytes>>>> = Mutex::new(None);

struct Shared(Arc<Bytes>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Returns the same bytes. If they are being sent to another client already, they are those.
fn share(bytes: Bytes) -> Bytes {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let shared = shared.get_or_insert_default();
    let length = bytes.len();
    let known = shared.get(&length).and_then(Weak::upgrade).filter(|known| **known == bytes);
    let known = known.unwrap_or_else(|| {
        let new = Arc::new(bytes);
        shared.retain(|_, other| other.strong_count() > 0);
        shared.insert(length, Arc::downgrade(&new));
        new
    });
    Bytes::from_owner(Shared(known))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[actix_web::test]
    async fn a_large_body_comes_in_pieces_and_whole() {
        let bytes: Bytes = (0..1_000_000_u32).map(|n| n.to_be_bytes()[3]).collect();
        let mut pieces = Box::pin(Pieces::new(bytes.clone(), None));
        let mut sent = Vec::new();
        while let Some(piece) = poll_fn(|cx| pieces.as_mut().poll_next(cx)).await {
            let piece = piece.unwrap();
            assert!(piece.len() <= *PIECE.end());
            sent.extend_from_slice(&piece);
        }
        assert_eq!(sent, bytes);
    }

    #[test]
    fn equal_large_bodies_are_held_once() {
        let body = |byte: u8| Bytes::from(vec![byte; LARGE + 1]);
        let (first, second, other) = (share(body(1)), share(body(1)), share(body(2)));
        assert_eq!(first.as_ptr(), second.as_ptr());
        assert_eq!(other, body(2));
    }
}
