//! The output of commands: results go to standard output, notes to standard error. A closed one is not an
//! error.

use std::{
    fmt::Display,
    io::{Write, stderr, stdout},
};

/// Prints a line of a result.
pub(super) fn print_line(line: impl Display) {
    let _ = writeln!(stdout(), "{line}");
}

/// Prints a note or an error.
pub(super) fn note(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}
