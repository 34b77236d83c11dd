//! `semel attest`

use bytes::Bytes;
use semel_engine::attest::Attest;
use semel_model::pipeline::EvidenceResult;
use semel_model::statement::predicate_name;

use super::Outcome;
use crate::cli::{AttestArgs, Cli, ResultWord};
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn run(args: &AttestArgs, cli: &Cli, session: &Session) -> Outcome {
    let (component, version) = super::artefact(&args.version, cli, session)?;
    super::require_fixed_word(&component, &version, session).await?;
    let report = match &args.report {
        Some(path) => {
            let path = session.settings.directory().join(path);
            let bytes = std::fs::read(&path).map_err(|error| {
                let exit =
                    if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Fault };
                Failure::new(exit, format!("cannot read {}: {error}", path.display()))
            })?;
            let stored = session.client.registry().put_bytes(&component, Bytes::from(bytes)).await;
            Some(stored.map_err(|error| Failure::from_error(Exit::Fault, &error))?)
        }
        None => None,
    };
    let attest = Attest {
        component,
        version: version.clone(),
        kind: args.kind.clone(),
        result: args.result.map(result),
        report,
        environment: args.environment.clone(),
        comment: args.message.clone(),
    };
    let attached = session.client.call(&attest).await?;
    let output = session.output;
    if output.is_json() {
        output.json(&attached);
        return Ok(Exit::Done);
    }
    let kind = predicate_name(&attached.predicate_type);
    let word = if attached.already { "was already attached to" } else { "attached to" };
    output.done(format!(
        "{kind} = {} ({}) {word} {}, signed",
        attached.result,
        attached.summary,
        attached.artefact.name()
    ));
    output
        .next(format!("semel promote {version} ENV{}", super::naming(&attached.artefact.component, session)));
    if output.is_quiet() {
        output.data(attached.envelope.as_str());
    }
    Ok(Exit::Done)
}

fn result(word: ResultWord) -> EvidenceResult {
    match word {
        ResultWord::Pass => EvidenceResult::Pass,
        ResultWord::Fail => EvidenceResult::Fail,
        ResultWord::Warn => EvidenceResult::Warn,
        ResultWord::Inconclusive => EvidenceResult::Inconclusive,
        ResultWord::Info => EvidenceResult::Info,
    }
}
