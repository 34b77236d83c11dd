//! `semel`: build once, deploy many, prove it.
//!
//! ```text
//! main → cli (what was asked) → settings (environment, files) → commands::<verb> → session (store or server) → report
//! ```
//!
//! One file per verb in [`commands`]. Everything that changes a store goes through the typed client of the API, to the
//! router inside this process or to a server.

mod cli;
mod help;
mod commands;
mod credentials;
mod project;
mod session;
mod workdir;
mod process;
mod settings;

mod output;
mod progress;
mod report;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Verb};
use crate::output::Output;
use crate::report::Failure;
use crate::settings::Settings;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return report::usage(&error),
    };
    let output = Output::new(&cli);
    if let Verb::Sandbox(args) = &cli.verb {
        // Restricts the thread that it is called on, so there is no other one yet.
        return commands::sandbox::run(args, &output);
    }
    let settings = Settings::read();
    log_to_stderr(&settings);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report::failure(&output, &Failure::fault(format!("cannot start: {error}"))),
    };
    let done = runtime.block_on(commands::run(cli, settings, output));
    // Work that nobody waits for any more, such as a blocking read, does not keep the program.
    runtime.shutdown_timeout(std::time::Duration::from_millis(50));
    match (done, output::loss()) {
        (Ok(_), Some(error)) => report::loss(&output, error),
        (Ok(exit), None) => exit.into(),
        (Err(failure), _) => report::failure(&output, &failure),
    }
}

fn log_to_stderr(settings: &Settings) {
    use tracing_subscriber::EnvFilter;
    let filter = settings.variable("SEMEL_LOG").unwrap_or("error");
    let started = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_target(false)
        .try_init();
    drop(started);
}
