//! The command line.
//!
//! Exit codes: 0 for success, 1 for a failure, 2 for an invalid command line or setting.

mod cache;
mod check;
mod output;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use actix_web::rt::signal::unix::{SignalKind, signal};
use clap::{Parser, Subcommand};

use crate::{
    app::Application,
    cli::{
        cache::CacheCommand,
        output::{note, print_line},
    },
    config::{CacheConfig, Config, ConfigError, Environment},
    db::Db,
    server::shutdown,
};

/// A task list. Settings come from the environment; docs/reference.md lists them.
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
    /// Check database, migrations and cache, and print what to do if one does not work
    Check,
    /// Talk to the cache servers; needs no database and no secret key
    #[command(subcommand)]
    Cache(CacheCommand),
}

/// The exit code and message of a failure.
struct Failure(u8, String);

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self(2, error.to_string())
    }
}

impl From<String> for Failure {
    fn from(problem: String) -> Self {
        Self(1, problem)
    }
}

/// Runs the command of the process's arguments.
#[must_use]
pub fn run() -> ExitCode {
    let Arguments { uds, command } = Arguments::parse();
    match execute(command, uds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, problem)) => {
            note(format_args!("tasklist: {problem}"));
            ExitCode::from(code)
        }
    }
}

fn execute(command: Option<Command>, uds: Option<PathBuf>) -> Result<(), Failure> {
    let environment = Environment::load(Path::new(".env"))?;
    if let Some(Command::Cache(command)) = command {
        let config = CacheConfig::from_environment(&environment, false)?;
        return Ok(block_on(cache::run(command, &config))?);
    }
    let mut config = Config::from_environment(&environment)?;
    config.server.uds = uds;
    start_logger(&config.log_filter);
    match command {
        Some(Command::Migrate) => migrate(&config)?,
        Some(Command::Check) => block_on(check::run(&config))?,
        _ => serve(config)?,
    }
    Ok(())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    actix_web::rt::System::new().block_on(future)
}

fn start_logger(filter: &str) {
    env_logger::Builder::new().parse_filters(filter).init();
}

fn serve(mut config: Config) -> Result<(), String> {
    // Each connection is an open file. The default limit is often 1,024, and the hard limit higher.
    if let Ok(files) = rlimit::increase_nofile_limit(u64::MAX) {
        config.fit_into_open_files(files);
    }
    block_on(async move {
        // A write beyond the limit of a file's size (`ulimit -f`) becomes an error, which is a 503.
        // Without a handler the signal ends the process.
        let _ = signal(SignalKind::from_raw(libc::SIGXFSZ));
        let application =
            Application::build(config, shutdown::signal()).map_err(|e| e.to_string())?;
        print_line(application.summary());
        application.run().await.map_err(|e| format!("the server stopped: {e}"))
    })
}

fn migrate(config: &Config) -> Result<(), String> {
    let db = Db::new(&config.database);
    let applied = db.migrate().map_err(|e| e.to_string())?;
    match applied.as_slice() {
        [] => print_line("The database is up to date."),
        names => names.iter().for_each(|name| print_line(format_args!("Applied {name}"))),
    }
    Ok(())
}
