//! The attribute `#[memoize]` of the crate `everfresh`, which documents it.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod expand;
mod settings;

use proc_macro::TokenStream;
use syn::{ItemFn, parse_macro_input};

/// Caches the results of an async function, and declares a constant for the memo. See `everfresh::memoize`.
#[proc_macro_attribute]
pub fn memoize(settings: TokenStream, function: TokenStream) -> TokenStream {
    let settings = parse_macro_input!(settings as settings::Settings);
    let function = parse_macro_input!(function as ItemFn);
    expand::expand(settings, function).unwrap_or_else(|error| error.to_compile_error()).into()
}
