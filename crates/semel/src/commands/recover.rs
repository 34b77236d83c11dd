//! `semel recover`: a lost database from the store's own files.

use semel_store::recover::{self, RecoverError};
use serde_json::json;

use super::Outcome;
use crate::cli::Cli;
use crate::output::Output;
use crate::report::{Exit, Failure};
use crate::session;
use crate::settings::Settings;

pub(super) async fn run(cli: &Cli, settings: &Settings, output: Output) -> Outcome {
    let place = session::embedded(cli, settings)?;
    let recovered = recover::recover(&place).await.map_err(|error| {
        let exit = match error {
            RecoverError::Open(_) => Exit::Usage,
            RecoverError::NotSigned(_) | RecoverError::Gap { .. } => Exit::Verification,
            _ => Exit::Fault,
        };
        Failure::from_error(exit, &error)
    })?;
    match recovered.taken {
        0 => output
            .done(format!("nothing was lost: the database has all {} entries already", recovered.entries)),
        taken => output.done(format!(
            "{taken} of {} entries were recovered from the entry files, every one signed",
            recovered.entries
        )),
    }
    if let Some(aside) = &recovered.aside {
        output.warn(format!("the database was damaged and is kept as {}", aside.display()));
    }
    output.next("semel audit verify");
    if output.is_json() {
        output.json(&json!({
            "entries": recovered.entries,
            "taken": recovered.taken,
            "aside": recovered.aside,
        }));
    }
    Ok(Exit::Done)
}
