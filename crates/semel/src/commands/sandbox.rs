//! `semel sandbox`: guards or confines a command of a build. Started by `semel build`, below which it is the only other
//! process of this program.

use std::process::ExitCode;

use crate::cli::SandboxArgs;
use crate::output::Output;
use crate::report::{self, Exit, Failure};

pub(crate) fn run(args: &SandboxArgs, output: &Output) -> ExitCode {
    match semel_build::sandbox::help(&args.order, &args.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let failure = Failure::from_error(Exit::Fault, &error);
            report::failure(output, &failure.because(["the command could not be isolated".to_owned()]))
        }
    }
}
