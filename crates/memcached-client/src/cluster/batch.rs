//! Batches: split by server, and put in order again. Does no I/O.

use crate::error::Error;

/// A part of a batch and where it is to be sent, or why it cannot be.
pub(crate) type Placed<T> = Result<(T, Place), Error>;

/// Where a key is to be sent.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) server: usize,
    /// Not its own server, but one that stands in.
    pub(crate) stand_in: bool,
}

/// What of a batch goes to one server.
pub(crate) struct Share<P> {
    pub(crate) server: usize,
    /// Where the parts stood in the batch.
    positions: Vec<usize>,
    pub(crate) parts: Vec<P>,
}

/// Splits a batch by server.
pub(crate) fn shares<'b, B, P>(
    batch: &'b [Placed<B>],
    part_of: impl Fn(&'b B) -> P,
) -> Vec<Share<P>> {
    let mut shares: Vec<Share<P>> = Vec::new();
    for (position, placed) in batch.iter().enumerate() {
        let Ok((part, place)) = placed else { continue };
        let index = shares.iter().position(|share| share.server == place.server);
        let index = index.unwrap_or_else(|| {
            // Mostly all of it goes to one server.
            let room = if shares.is_empty() { batch.len() - position } else { 0 };
            let (positions, parts) = (Vec::with_capacity(room), Vec::with_capacity(room));
            shares.push(Share { server: place.server, positions, parts });
            shares.len() - 1
        });
        shares[index].positions.push(position);
        shares[index].parts.push(part_of(part));
    }
    shares
}

/// The outcomes of a batch in the order of its parts. A server that failed failed all its parts.
pub(crate) fn in_order<B, P, T>(
    batch: &[Placed<B>],
    shares: &[Share<P>],
    answers: impl Iterator<Item = Result<Vec<Result<T, Error>>, Error>>,
) -> Vec<Result<T, Error>> {
    let mut outcomes: Vec<_> =
        batch.iter().map(|placed| placed.as_ref().err().map(|e| Err(e.clone()))).collect();
    for (share, answers) in shares.iter().zip(answers) {
        match answers {
            Ok(answers) => {
                for (position, answer) in share.positions.iter().zip(answers) {
                    outcomes[*position] = Some(answer);
                }
            }
            Err(error) => {
                for position in &share.positions {
                    outcomes[*position] = Some(Err(error.clone()));
                }
            }
        }
    }
    let lost = || Err(Error::Refused { status: None, reason: "no answer".to_owned() });
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect()
}
