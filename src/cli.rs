//! The command line: read it, read the settings, run.
//!
//! Exit codes: 0 done, 1 something failed, 2 the command line or a setting is wrong.

use std::{
    fmt::Display,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    config::{Config, Environment},
    db::Db,
    shutdown,
    startup::Application,
};

/// A task list. Settings come from the environment; see the README.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Listen on this unix socket instead of HOST and PORT
    #[arg(long, value_name = "PATH")]
    uds: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Apply the pending migrations to the database, then stop
    Migrate,
}

/// Runs the program that the process's arguments and environment ask for.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match read_config(arguments.uds) {
        Ok(config) => config,
        Err(problem) => return fail(2, &problem),
    };
    start_logger(&config.log_filter);
    let outcome = match arguments.command {
        None => serve(config),
        Some(Command::Migrate) => migrate(&config),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(1, &problem),
    }
}

fn read_config(uds: Option<PathBuf>) -> Result<Config, String> {
    let environment = Environment::load(Path::new(".env")).map_err(|e| e.to_string())?;
    let mut config = Config::from_environment(&environment).map_err(|e| e.to_string())?;
    config.server.uds = uds;
    Ok(config)
}

fn start_logger(filter: &str) {
    env_logger::Builder::new().parse_filters(filter).init();
}

fn serve(config: Config) -> Result<(), String> {
    actix_web::rt::System::new().block_on(async move {
        let application =
            Application::build(config, shutdown::signal()).map_err(|e| e.to_string())?;
        say(application.summary());
        application.run().await.map_err(|e| format!("the server stopped: {e}"))
    })
}

fn migrate(config: &Config) -> Result<(), String> {
    let db = Db::new(&config.database);
    let applied = db.migrate().map_err(|e| e.to_string())?;
    match applied.as_slice() {
        [] => say("The database is up to date."),
        names => names.iter().for_each(|name| say(format_args!("Applied {name}"))),
    }
    Ok(())
}

/// Prints a line for the person who started the program; a closed standard output is no error.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn fail(code: u8, problem: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "tasklist: {problem}");
    ExitCode::from(code)
}
