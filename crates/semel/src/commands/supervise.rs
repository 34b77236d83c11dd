//! `semel supervise`: the supervisor of one directory target. Started by `semel deploy`.

use semel_targets::directory::{Supervise, Timing, supervise};

use super::Outcome;
use crate::cli::SuperviseArgs;
use crate::report::{Exit, Failure};
use crate::session::now;

pub(super) async fn run(args: &SuperviseArgs) -> Outcome {
    let options = Supervise { timing: Timing::STANDARD, clock: now };
    supervise(&args.root, options).await.map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    Ok(Exit::Done)
}
