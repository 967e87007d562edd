//! The `tasklist` program: see `tasklist --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tasklist::cli::run()
}
