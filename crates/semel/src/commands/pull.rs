//! `semel pull`: copy an artefact into an OCI layout.

use semel_oci::copy::{Endpoint, copy};
use semel_oci::layout::Layout;
use semel_oci::reference::Place;
use semel_server::api::calls::Inspect;
use serde_json::json;

use super::Outcome;
use super::push::{HOME_ANNOTATION, REVISION_ANNOTATION, count};
use crate::cli::{Cli, PullArgs};
use crate::output::{Output, bytes};
use crate::progress::Transfer;
use crate::report::{Exit, Failure};
use crate::session::Session;
use crate::settings::Settings;

pub(super) async fn run(args: &PullArgs, cli: &Cli, settings: Settings, output: Output) -> Outcome {
    let session = Session::open(cli, settings, output).await?;
    let (component, version) = super::artefact(&args.version, cli, &session)?;
    let found = session.client.call(&Inspect { component: component.clone(), version }).await?;
    let place: Place = args.to.parse().map_err(|error| Failure::from_error(Exit::Usage, &error))?;
    let Place::Layout { directory, tag, .. } = place else {
        return Err(Failure::usage(format!("`{}` is no OCI layout", args.to)).hint("write oci:DIR"));
    };
    let dir = session.settings.directory().join(&directory);
    let layout = Layout::create(&dir).await.map_err(|error| Failure::from_error(Exit::Usage, &error))?;
    let name = tag
        .as_ref()
        .map(ToString::to_string)
        .or_else(|| found.artefact.version.as_ref().map(ToString::to_string));
    let from = Endpoint::Registry { client: session.client.registry(), name: component };
    let transfer = Transfer::new(&output, "pull");
    let copied = copy(
        &from,
        &Endpoint::Layout(layout.clone()),
        &found.artefact.digest,
        name.as_deref(),
        &transfer.listener(),
    )
    .await;
    transfer.finish();
    let copied = copied.map_err(|error| Failure::from_error(Exit::Verification, &error))?;
    let home = format!("{}/{}", found.home, found.artefact.component);
    layout
        .annotate(&copied.descriptor.digest, HOME_ANNOTATION, &home)
        .await
        .map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    if let Some(commit) = &found.artefact.commit {
        layout
            .annotate(&copied.descriptor.digest, REVISION_ANNOTATION, commit.as_str())
            .await
            .map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    }
    output.done(format!(
        "{} is in {} ({} copied, {} there already)",
        found.artefact.name(),
        dir.display(),
        bytes(copied.bytes_copied),
        count(copied.blobs_skipped)
    ));
    if output.is_json() {
        output.json(&json!({"artefact": found.artefact, "layout": dir, "name": name}));
    } else {
        output.data(copied.descriptor.digest.as_str());
    }
    Ok(Exit::Done)
}
