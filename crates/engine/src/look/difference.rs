//! `semel diff ENV ENV`: what differs between two environments.

use schemars::JsonSchema;
use semel_model::config::{Contract, Snapshot};
use semel_model::name::{ComponentName, ConfigKey, EnvironmentName};
use semel_store::Store;
use semel_store::projections::deployment::{self, Deployment};
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};

use super::commits::{self, Commit};
use crate::artefact::{self, Artefact};
use crate::deploy;
use crate::error::EngineError;
use crate::pipeline;

/// What differs between two environments of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// What runs in the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Artefact>,
    /// What runs in the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Artefact>,
    /// The commits between the two, newest first.
    pub commits: Vec<Commit>,
    /// Whether the second runs the older one.
    pub backwards: bool,
    /// How many commits the other one has besides: the two lie on different branches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<usize>,
    /// Configuration keys, never values.
    pub config: Vec<KeyDifference>,
    /// Keys of the contract that only one of the two artefacts has, or that changed.
    pub contract: Vec<String>,
}

impl Difference {
    /// Whether there is one.
    pub fn is_empty(&self) -> bool {
        self.from.as_ref().map(|a| &a.digest) == self.to.as_ref().map(|a| &a.digest)
            && self.config.is_empty()
            && self.contract.is_empty()
    }
}

/// How a key differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyDifference {
    /// The key.
    pub key: ConfigKey,
    /// `only in A`, `only in B`, `differs`; secrets of two environments cannot be compared.
    pub how: String,
}

/// Compares what two environments run.
pub async fn difference(
    store: &Store,
    component: &ComponentName,
    first: &EnvironmentName,
    second: &EnvironmentName,
) -> Result<Difference, EngineError> {
    let mut conn = store.reader().await?;
    let in_force = pipeline::get(store, &mut conn, component).await?;
    pipeline::binding(&in_force, first)?;
    pipeline::binding(&in_force, second)?;
    let from = deployment::nth_success(&mut conn, component, first, 0).await?;
    let to = deployment::nth_success(&mut conn, component, second, 0).await?;
    let a = artefact_of(&mut conn, from.as_ref()).await?;
    let b = artefact_of(&mut conn, to.as_ref()).await?;
    let between = commits::between(store, &mut conn, component, [a.as_ref(), b.as_ref()]).await?;
    Ok(Difference {
        commits: between.commits,
        backwards: between.backwards,
        others: Some(between.others).filter(|others| *others > 0),
        config: keys(store, first, second, from.as_ref(), to.as_ref())?,
        contract: contracts(store, &mut conn, a.as_ref(), b.as_ref()).await?,
        from: a,
        to: b,
    })
}

async fn artefact_of(conn: &mut Conn, one: Option<&Deployment>) -> Result<Option<Artefact>, EngineError> {
    match one {
        Some(one) => super::versions::running_version(conn, one).await.map(Some),
        None => Ok(None),
    }
}

fn keys(
    store: &Store,
    first: &EnvironmentName,
    second: &EnvironmentName,
    from: Option<&Deployment>,
    to: Option<&Deployment>,
) -> Result<Vec<KeyDifference>, EngineError> {
    let (Some(from), Some(to)) = (from, to) else { return Ok(Vec::new()) };
    let (a, b): (Snapshot, Snapshot) = (deploy::snapshot(store, from)?, deploy::snapshot(store, to)?);
    let mut names: Vec<&ConfigKey> = a.entries.keys().chain(b.entries.keys()).collect();
    names.sort();
    names.dedup();
    let how = |key: &ConfigKey| match (a.entries.get(key), b.entries.get(key)) {
        (Some(_), None) => Some(format!("only in {first}")),
        (None, Some(_)) => Some(format!("only in {second}")),
        // Commitments are made under each environment's own key, so that nobody can compare them.
        (Some(x), Some(y)) if x.commitment.is_some() || y.commitment.is_some() => None,
        (Some(x), Some(y)) if x.value != y.value => Some("differs".to_owned()),
        _ => None,
    };
    Ok(names.into_iter().filter_map(|key| Some(KeyDifference { key: key.clone(), how: how(key)? })).collect())
}

async fn contracts(
    store: &Store,
    conn: &mut Conn,
    a: Option<&Artefact>,
    b: Option<&Artefact>,
) -> Result<Vec<String>, EngineError> {
    let (Some(a), Some(b)) = (a, b) else { return Ok(Vec::new()) };
    let (_, first) = artefact::manifest(store, conn, &a.component, &a.digest).await?;
    let (_, second) = artefact::manifest(store, conn, &b.component, &b.digest).await?;
    Ok(contract_lines(&artefact::contract(&a.digest, &first)?, &artefact::contract(&b.digest, &second)?))
}

/// Keys that only one of two contracts has, or that changed.
pub(crate) fn contract_lines(first: &Contract, second: &Contract) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, rule) in &second.0 {
        match first.0.get(key) {
            None => lines.push(format!("+ {key} ({})", rule.kind)),
            Some(before) if before != rule => {
                lines.push(format!("~ {key} ({} → {})", before.kind, rule.kind));
            }
            Some(_) => {}
        }
    }
    lines.extend(
        first
            .0
            .iter()
            .filter(|(key, _)| !second.0.contains_key(*key))
            .map(|(key, rule)| format!("- {key} ({})", rule.kind)),
    );
    lines
}
