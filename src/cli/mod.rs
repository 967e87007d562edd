//! The command line: read it, read the settings, run.
//!
//! Exit codes: 0 done, 1 something failed, 2 the command line or a setting is wrong.

mod cache;

use std::{
    fmt::Display,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    app::Application,
    cli::cache::CacheCommand,
    config::{CacheConfig, Config, ConfigError, Environment},
    db::Db,
    http::shutdown,
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
    /// Tell whether database, migrations and cache work, and what to do if not
    Check,
    /// Talk to the cache servers; needs no database and no secret key
    #[command(subcommand)]
    Cache(CacheCommand),
}

/// Why the program ends, and with which exit code.
struct Failure(u8, String);

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self(2, error.to_string())
    }
}

/// What goes wrong once the settings are known.
impl From<String> for Failure {
    fn from(problem: String) -> Self {
        Self(1, problem)
    }
}

/// Runs the program that the process's arguments and environment ask for.
#[must_use]
pub fn run() -> ExitCode {
    let Arguments { uds, command } = Arguments::parse();
    match carry_out(command, uds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, problem)) => {
            let _ = writeln!(std::io::stderr(), "tasklist: {problem}");
            ExitCode::from(code)
        }
    }
}

fn carry_out(command: Option<Command>, uds: Option<PathBuf>) -> Result<(), Failure> {
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
        Some(Command::Check) => block_on(cache::check(&config))?,
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

fn serve(config: Config) -> Result<(), String> {
    // Each visitor is an open file; of many systems the usual limit is 1,024, and the one that may
    // be asked for is higher. Where it is not, the usual one stays.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    block_on(async move {
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
