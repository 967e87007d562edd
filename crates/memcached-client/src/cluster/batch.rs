//! Splits batches by server, and puts the outcomes back in order. Does no I/O.

use crate::{address::ServerAddress, error::Error};

/// An element of a batch and its server, or the reason why it cannot be sent.
pub(crate) type BatchItem<T> = Result<(T, Place), Error>;

/// The server for a key.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) server: usize,
    /// Whether the server stands in for the key's own server.
    pub(crate) stand_in: bool,
}

/// The part of a batch that goes to one server.
pub(crate) struct ServerBatch<P> {
    pub(crate) server: usize,
    /// The indices of the parts in the whole batch.
    positions: Vec<usize>,
    pub(crate) parts: Vec<P>,
}

/// Splits a batch by server, and leaves out the elements that cannot be sent.
pub(crate) fn split_by_server<'b, B, P>(
    items: &'b [BatchItem<B>],
    part_of: impl Fn(&'b B) -> P,
) -> Vec<ServerBatch<P>> {
    let mut batches: Vec<ServerBatch<P>> = Vec::new();
    for (position, item) in items.iter().enumerate() {
        let Ok((part, place)) = item else { continue };
        let existing = batches.iter().position(|batch| batch.server == place.server);
        let index = existing.unwrap_or_else(|| {
            // Most batches go to one server, so the first one gets room for all parts.
            let room = if batches.is_empty() { items.len() - position } else { 0 };
            let (positions, parts) = (Vec::with_capacity(room), Vec::with_capacity(room));
            batches.push(ServerBatch { server: place.server, positions, parts });
            batches.len() - 1
        });
        batches[index].positions.push(position);
        batches[index].parts.push(part_of(part));
    }
    batches
}

/// Returns one outcome per element of a batch, in order. `replies` are those of `batches`; the error
/// of one of the `servers` is the outcome of all its parts.
pub(crate) fn in_order<B, P, T>(
    servers: &[ServerAddress],
    items: &[BatchItem<B>],
    batches: &[ServerBatch<P>],
    replies: impl Iterator<Item = Result<Vec<Result<T, Error>>, Error>>,
) -> Vec<Result<T, Error>> {
    let mut outcomes: Vec<_> =
        items.iter().map(|item| item.as_ref().err().map(|error| Err(error.clone()))).collect();
    for (batch, reply) in batches.iter().zip(replies) {
        match reply {
            Ok(answers) => {
                let mut answers = answers.into_iter();
                for position in &batch.positions {
                    let answer = answers.next().unwrap_or_else(|| {
                        let (server, reason) =
                            (servers[batch.server].clone(), "no answer".to_owned());
                        Err(Error::Refused { server, key: None, status: None, reason })
                    });
                    outcomes[*position] = Some(answer);
                }
            }
            Err(error) => {
                for position in &batch.positions {
                    outcomes[*position] = Some(Err(error.clone()));
                }
            }
        }
    }
    // Each place has the outcome of its server, or the reason why it was not sent.
    outcomes.into_iter().flatten().collect()
}
