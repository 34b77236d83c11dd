//! Drafts: `semel push --draft` holds a name for a while, `semel publish [COMPONENT@]VERSION` uses it up.

use semel_engine::draft::{Drafted, OpenDraft, PublishDraft};
use semel_engine::publish::Bind;
use semel_model::duration::Span;
use semel_model::name::{CommitId, ComponentName, Tag};

use super::{Outcome, component, push};
use crate::cli::Cli;
use crate::report::{Exit, Failure};
use crate::session::Session;

/// Holds the name for what was copied, instead of binding it.
pub(super) async fn open(bind: Bind, term: Option<Span>, session: &Session) -> Outcome {
    let Bind { component, tag, digest, .. } = bind;
    let drafted = session.client.call(&OpenDraft { component, tag, digest, term }).await?;
    let output = session.output;
    match &drafted {
        Drafted::Open { component, version, digest, until } => {
            output.done(format!("{component} {version} is held for {digest} until {until}"));
            output.next(format!(
                "semel verify {component}@{digest}   and then   semel publish {component}@{version}"
            ));
            if output.is_json() {
                output.json(&drafted);
            } else {
                output.data(&format!("{component}@{digest}"));
            }
            Ok(Exit::Done)
        }
        Drafted::Refused(refused) => {
            let next = refused.next_free.as_ref().map(|next| format!("the next free version is {next}"));
            Err(Failure::new(Exit::Conflict, refused.reason.clone()).hints(next).answer(&drafted))
        }
    }
}

/// The draft that a word names, when it names no place where bytes are: `[COMPONENT@]VERSION`.
pub(super) fn named(
    text: &str,
    cli: &Cli,
    session: &Session,
) -> Result<Option<(ComponentName, Tag)>, Failure> {
    let (name, tag) = match text.split_once('@') {
        Some((name, tag)) => (Some(name), tag),
        None => (None, text),
    };
    let Ok(tag) = tag.parse() else { return Ok(None) };
    match name.map(str::parse) {
        Some(Ok(name)) => Ok(Some((name, tag))),
        Some(Err(_)) => Ok(None),
        None => Ok(Some((component(cli, session)?, tag))),
    }
}

/// Publishes a draft.
pub(super) async fn publish(
    component: ComponentName,
    tag: Tag,
    commit: Option<CommitId>,
    session: &Session,
) -> Outcome {
    let bound = session.client.call(&PublishDraft { component: component.clone(), tag, commit }).await?;
    push::tell(&bound, &component, None, session)
}
