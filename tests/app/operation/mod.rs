//! The app as its operator sees it: settings, commands, migrations, logs and metrics.

mod migrations;
mod observability;
mod program;
mod secrets;
mod settings;
mod shell;
