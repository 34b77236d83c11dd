//! `semel completions` and `semel man`

use serde_json::json;

use super::Outcome;
use crate::cli::{self, CompletionsArgs, ManArgs};
use crate::output::Output;
use crate::report::{Exit, Failure};

pub(super) fn completions(args: &CompletionsArgs, output: Output) -> Exit {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut cli::whole(), "semel", &mut text);
    output.bytes(&text);
    Exit::Done
}

pub(super) fn man(args: &ManArgs, output: Output) -> Outcome {
    let written =
        std::fs::create_dir_all(&args.to).and_then(|()| clap_mangen::generate_to(cli::whole(), &args.to));
    written.map_err(|error| {
        Failure::new(Exit::Fault, format!("cannot write the manual pages to {}: {error}", args.to.display()))
    })?;
    output.done(format!("the manual pages are in {}", args.to.display()));
    output.next(format!("man -l {}/semel.1", args.to.display()));
    if output.is_json() {
        output.json(&json!({"directory": args.to}));
    }
    Ok(Exit::Done)
}
