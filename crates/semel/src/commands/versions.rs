//! `semel versions`

use semel_server::api::calls::Versions;

use super::Outcome;
use crate::cli::{Cli, VersionsArgs};
use crate::output::{ago, table};
use crate::report::Exit;
use crate::session::{Session, now};

pub(super) async fn run(args: &VersionsArgs, cli: &Cli, session: &Session) -> Outcome {
    let component = super::component(cli, session)?;
    let answer = session.client.call(&Versions { component: component.clone(), limit: args.limit }).await?;
    let output = session.output;
    if output.is_json() {
        output.json(&answer);
    } else if output.is_quiet() {
        answer
            .versions
            .iter()
            .filter_map(|one| one.artefact.version.as_ref())
            .for_each(|v| output.data(&v.to_string()));
    } else if answer.versions.is_empty() {
        output.say(format!("{component} has no version yet"));
        output.next("semel build");
    } else {
        let rows = answer.versions.iter().map(|one| {
            let artefact = &one.artefact;
            let environments: Vec<&str> = one.environments.iter().map(|name| name.as_str()).collect();
            vec![
                artefact.version.as_ref().map_or_else(String::new, ToString::to_string),
                artefact.number.map_or_else(|| "-".to_owned(), |number| number.to_string()),
                artefact.commit.as_ref().map_or_else(|| "-".to_owned(), |commit| commit.short().to_owned()),
                artefact.digest.short().to_owned(),
                artefact.published.as_ref().map_or_else(String::new, |time| ago(time, now())),
                environments.join(", "),
            ]
        });
        output
            .data(&table(&["VERSION", "BUILD", "COMMIT", "DIGEST", "PUBLISHED", "RUNS IN"], rows.collect()));
    }
    Ok(Exit::Done)
}
