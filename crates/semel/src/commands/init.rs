//! `semel init`

use semel_build::detect::{self, Host, Proposal};
use semel_model::project::FILE_NAME;
use serde_json::json;

use super::Outcome;
use crate::cli::InitArgs;
use crate::output::Output;
use crate::report::{Exit, Failure};
use crate::settings::Settings;

pub(super) fn run(args: &InitArgs, settings: &Settings, output: Output) -> Outcome {
    let dir = settings.directory();
    let proposal = detect::propose(dir, &Host::look()).map_err(|error| {
        let hint = error.hint().map(str::to_owned);
        Failure::from_error(Exit::Usage, &error).hints(hint)
    })?;
    let path = dir.join(FILE_NAME);
    if args.print {
        print(&proposal, output);
        return Ok(Exit::Done);
    }
    match semel_store::durable::create(
        &path,
        proposal.semel_toml.as_bytes(),
        semel_store::durable::Access::Shared,
    ) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Failure::new(
                Exit::Conflict,
                format!("{FILE_NAME} is there already; it is never overwritten"),
            )
            .hint("to see what would be proposed: semel init --print"));
        }
        Err(error) => {
            let failure = Failure::from_error(Exit::Fault, &error);
            return Err(Failure {
                message: format!("cannot write {}: {}", path.display(), failure.message),
                ..failure
            });
        }
    }
    if output.is_json() {
        output.json(&json!({"wrote": path, "looked_at": proposal.looked_at, "warnings": proposal.warnings, "text": proposal.semel_toml}));
        return Ok(Exit::Done);
    }
    for line in &proposal.looked_at {
        output.say(format!("  looked at {line}"));
    }
    output.done(format!(
        "wrote {FILE_NAME} ({} lines); nothing else was touched",
        proposal.semel_toml.lines().count()
    ));
    proposal.warnings.iter().for_each(|warning| output.warn(warning));
    output.next(format!("{} && git commit -m 'Build with Semel' && semel build", proposal.to_add));
    Ok(Exit::Done)
}

/// The file alone is data; what stands in its way is said beside it.
fn print(proposal: &Proposal, output: Output) {
    if output.is_json() {
        output.json(&json!({"looked_at": proposal.looked_at, "warnings": proposal.warnings, "text": proposal.semel_toml}));
    } else {
        output.data(proposal.semel_toml.trim_end());
        proposal.warnings.iter().for_each(|warning| output.warn(warning));
    }
}
