//! Values: how they are computed, kept, and cleared.

mod at_hand;
mod clear;
mod events;
mod many;
mod memos;
pub mod not_kept;
mod stale;
