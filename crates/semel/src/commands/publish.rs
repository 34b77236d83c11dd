//! `semel publish`: give a draft its version, or record an artefact that something else built and keeps. What is promoted
//! must not be lost to another place's retention, so its bytes are copied as well.

use semel_engine::publish::Bind;
use semel_oci::copy::{Endpoint, Source};

use super::{Outcome, component, draft, push};
use crate::cli::{Cli, PublishArgs};
use crate::report::Failure;
use crate::session::Session;

pub(super) async fn run(args: &PublishArgs, cli: &Cli, session: &Session) -> Outcome {
    if let Some((component, tag)) = draft::named(&args.reference, cli, session)? {
        if args.version.is_some() {
            return Err(Failure::usage(format!("the draft {tag} has its name: --as is for other artefacts")));
        }
        return draft::publish(component, tag, super::commit(args.commit.as_ref())?, session).await;
    }
    let from = push::open(&args.reference, session).await?;
    let component = match (&cli.component, &from.source) {
        (None, Source::Endpoint(Endpoint::Registry { name, .. })) => {
            crate::project::find(session.settings.directory())?
                .map_or_else(|| name.clone(), |found| found.project.component)
        }
        _ => component(cli, session)?,
    };
    let Some(tag) = args.version.clone().or_else(|| from.tag.clone()) else {
        return Err(Failure::usage(format!("{} has no tag, so it needs a version", args.reference))
            .hint("--as VERSION"));
    };
    push::refuse_renamed_copy(&from, &component, &tag, session).await?;
    let copied = push::copy_in(&from, &component, push::With::of(args.alone), session).await?;
    let commit = match super::commit(args.commit.as_ref())? {
        Some(commit) => Some(commit),
        None => from.commit.clone(),
    };
    let bind = Bind {
        home: from.home_of(&component),
        component,
        tag,
        digest: copied.descriptor.digest.clone(),
        commit,
        location: Some(from.place.clone()),
        absent: false,
    };
    push::name(bind, &copied, session).await
}
