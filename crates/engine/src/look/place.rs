//! `semel where`: a commit, a version or a digest: what it was built as, where it may run, where it runs and ran.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::name::{CommitId, ComponentName, EnvironmentName};
use semel_model::version::{VersionWord, known_as};
use semel_store::Store;
use semel_store::projections::deployment::{self, DeploymentState};
use semel_store::projections::{artefact as artefacts, build, promotion};
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};

use crate::artefact::{self, Artefact};
use crate::error::EngineError;
use crate::pipeline;

/// An artefact and its whereabouts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Whereabouts {
    /// The artefact.
    pub artefact: Artefact,
    /// The commits that share it.
    pub commits: Vec<CommitId>,
    /// The environments of its component, in the order of the pipeline.
    pub environments: Vec<Presence>,
}

/// An artefact in an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Presence {
    /// Where.
    pub environment: EnvironmentName,
    /// Whether a promotion was granted.
    pub promoted: bool,
    /// Since when it runs there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_since: Option<String>,
    /// From when to when it ran there before.
    pub ran: Vec<Stay>,
    /// What runs there instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
}

/// A time in which an artefact ran somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stay {
    /// Which deployment.
    pub generation: u64,
    /// From when.
    pub from: String,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Finds what a word means, in one component or in all, and where it is. A bare word of hexadecimal digits is tried as a
/// commit and as a digest.
pub async fn locate(
    store: &Store,
    component: Option<&ComponentName>,
    word: &str,
    now: Timestamp,
) -> Result<Vec<Whereabouts>, EngineError> {
    let mut conn = store.reader().await?;
    let mut found = find_all(&mut conn, component, word, now).await?;
    found.sort_by(|a, b| a.component.cmp(&b.component).then_with(|| b.number.cmp(&a.number)));
    found.dedup_by(|a, b| a.component == b.component && a.digest == b.digest);
    if found.is_empty() {
        return Err(EngineError::not_found(format!("nothing in this store is known as {word}"))
            .with_hint("a commit, a version (with -c COMPONENT), a build number or a digest"));
    }
    let mut places = Vec::new();
    for artefact in found {
        places.push(whereabouts(store, &mut conn, artefact).await?);
    }
    Ok(places)
}

async fn find_all(
    conn: &mut Conn,
    component: Option<&ComponentName>,
    word: &str,
    now: Timestamp,
) -> Result<Vec<Artefact>, EngineError> {
    let mut found = Vec::new();
    let hex = word.strip_prefix("commit:").or_else(|| word.strip_prefix("sha256:")).unwrap_or(word);
    let is_hex = hex.len() >= 7 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex {
        if !word.starts_with("sha256:") {
            found.extend(by_commit(conn, hex).await?);
        }
        if !word.starts_with("commit:") {
            let published = artefacts::by_digest(conn, &format!("sha256:{hex}")).await?;
            found.extend(published.into_iter().map(Artefact::from));
        }
        found.retain(|one| component.is_none_or(|name| one.component == *name));
    }
    if let (Some(name), Ok(parsed), true) = (component, word.parse::<VersionWord>(), found.is_empty()) {
        found.extend(match artefact::find(conn, name, &parsed, now).await {
            // What looks like a commit is one whose build came to nothing, rather than the name of an environment.
            Err(EngineError::NotFound { .. }) if is_hex && hex == word => {
                artefact::by_commit(conn, name, hex).await?
            }
            found => Some(found?),
        });
    }
    Ok(found)
}

async fn by_commit(conn: &mut Conn, hex: &str) -> Result<Vec<Artefact>, EngineError> {
    let mut found = Vec::new();
    for (_, one) in build::by_commit(conn, hex).await? {
        if let Some(published) = artefacts::by_number(conn, &one.component, one.number).await? {
            found.push(published.into());
        }
    }
    Ok(found)
}

async fn whereabouts(store: &Store, conn: &mut Conn, artefact: Artefact) -> Result<Whereabouts, EngineError> {
    let mut environments = Vec::new();
    if let Some(in_force) = pipeline::find(store, conn, &artefact.component).await? {
        for environment in in_force.pipeline.in_order() {
            environments.push(presence(conn, &artefact, environment).await?);
        }
    }
    let commits = match artefact.number {
        Some(number) => build::commits_of(conn, &artefact.component, number).await?,
        None => artefact.commit.iter().cloned().collect(),
    };
    Ok(Whereabouts { artefact, commits, environments })
}

async fn presence(
    conn: &mut Conn,
    artefact: &Artefact,
    environment: &EnvironmentName,
) -> Result<Presence, EngineError> {
    let component = &artefact.component;
    let promoted = promotion::grant(conn, component, environment, &artefact.digest).await?.is_some();
    let mut history = deployment::list(conn, component, environment, 1_000).await?;
    history.retain(|one| one.state == DeploymentState::Succeeded);
    let mut presence = Presence {
        environment: environment.clone(),
        promoted,
        running_since: None,
        ran: Vec::new(),
        instead: None,
    };
    let mut until: Option<String> = None;
    for (position, one) in history.iter().enumerate() {
        let from = one.finished.clone().unwrap_or_else(|| one.started.clone());
        if one.digest == artefact.digest {
            if position == 0 {
                presence.running_since = Some(from.clone());
            } else {
                presence.ran.push(Stay {
                    generation: one.generation,
                    from: from.clone(),
                    until: until.clone(),
                });
            }
        } else if position == 0 {
            presence.instead = Some(known_as(one.version.as_ref(), &one.digest));
        }
        until = Some(from);
    }
    Ok(presence)
}
