//! What the tests of this repository share.
