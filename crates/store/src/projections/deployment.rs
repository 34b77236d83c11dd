//! Deployments, observations and holds.

use semel_model::deployment::Observed;
use semel_model::digest::Digest;
use semel_model::entry::{
    DeploymentFailed, DeploymentStarted, DeploymentSucceeded, Entry, FailedOutcome, HoldReleased, HoldSet,
    ObservationChanged,
};
use semel_model::name::{ComponentName, EnvironmentName};
use semel_model::promotion::SuccessFact;
use semel_model::version::Version;

use crate::sql::{Conn, Row, SqlError, opt_text, text};

/// How far a deployment came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentState {
    /// Begun; its outcome is not recorded.
    Started,
    /// It ran and was observed to.
    Succeeded,
    /// It started and was not well.
    Failed,
    /// Something outside it went wrong.
    Errored,
    /// The target did not switch it on.
    Refused,
}

/// A deployment as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Which component.
    pub component: ComponentName,
    /// Where.
    pub environment: EnvironmentName,
    /// Its place in the order of the binding's deployments.
    pub generation: u64,
    /// The deployment key.
    pub key: Digest,
    /// The artefact.
    pub digest: Digest,
    /// Its version.
    pub version: Option<Version>,
    /// The config snapshot.
    pub config: Digest,
    /// The target's specification.
    pub target: Digest,
    /// The decision that allowed it.
    pub decision: Digest,
    /// The generation that it went back from.
    pub rollback_of: Option<u64>,
    /// How far it came.
    pub state: DeploymentState,
    /// Why it did not succeed.
    pub reason: Option<String>,
    /// The generation that ran again after it.
    pub restored: Option<u64>,
    /// When it was begun.
    pub started: String,
    /// When its outcome was recorded.
    pub finished: Option<String>,
}

/// The columns that [`read`] takes, in its order.
macro_rules! select_deployment {
    ($rest:literal) => {
        concat!("SELECT component, environment, generation, deployment_key, digest, version, config, target, decision, rollback_of, state, reason, restored, started, finished ", "FROM deployment ", $rest)
    };
}

pub(super) async fn started(
    conn: &mut Conn,
    entry: &Entry,
    body: &DeploymentStarted,
) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO deployment (component, environment, generation, deployment_key, digest, version, config, target, \
         decision, rollback_of, state, started) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'started', $11)",
        &[
            text(&body.component),
            text(&body.environment),
            body.generation.into(),
            text(&body.key),
            text(&body.digest),
            opt_text(body.version.as_ref()),
            text(&body.config),
            text(&body.target),
            text(&body.decision),
            body.rollback_of.into(),
            text(&entry.time),
        ],
    )
    .await
    .map(drop)
}

pub(super) async fn succeeded(
    conn: &mut Conn,
    entry: &Entry,
    body: &DeploymentSucceeded,
) -> Result<(), SqlError> {
    let needs = serde_json::to_string(&body.needs).expect("a list of texts is JSON");
    conn.execute(
        "UPDATE deployment SET state = 'succeeded', finished = $4, needs = $5, reason = NULL, restored = NULL \
         WHERE component = $1 AND environment = $2 AND generation = $3",
        &[
            text(&body.component),
            text(&body.environment),
            body.generation.into(),
            text(&entry.time),
            needs.into(),
        ],
    )
    .await
    .map(drop)
}

pub(super) async fn failed(conn: &mut Conn, entry: &Entry, body: &DeploymentFailed) -> Result<(), SqlError> {
    let state = match body.outcome {
        FailedOutcome::Failed => "failed",
        FailedOutcome::Errored => "errored",
        FailedOutcome::Refused => "refused",
    };
    conn.execute(
        "UPDATE deployment SET state = $4, finished = $5, reason = $6, restored = $7 \
         WHERE component = $1 AND environment = $2 AND generation = $3",
        &[
            text(&body.component),
            text(&body.environment),
            body.generation.into(),
            state.into(),
            text(&entry.time),
            body.reason.as_str().into(),
            body.restored.into(),
        ],
    )
    .await
    .map(drop)
}

pub(super) async fn observed(
    conn: &mut Conn,
    entry: &Entry,
    body: &ObservationChanged,
) -> Result<(), SqlError> {
    let place = [text(&body.component), text(&body.environment)];
    conn.execute("DELETE FROM observation WHERE component = $1 AND environment = $2", &place).await?;
    let [component, environment] = place;
    let observed = serde_json::to_string(&body.observed).expect("an observation is JSON");
    conn.execute(
        "INSERT INTO observation (component, environment, observed, time) VALUES ($1, $2, $3, $4)",
        &[component, environment, observed.into(), text(&entry.time)],
    )
    .await
    .map(drop)
}

pub(super) async fn hold_set(conn: &mut Conn, entry: &Entry, body: &HoldSet) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO hold (environment, component, reason, time) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (environment, component) DO UPDATE SET reason = $3, time = $4",
        &[
            text(&body.environment),
            body.component.as_ref().map_or("", ComponentName::as_str).into(),
            body.reason.as_str().into(),
            text(&entry.time),
        ],
    )
    .await
    .map(drop)
}

pub(super) async fn hold_released(conn: &mut Conn, body: &HoldReleased) -> Result<(), SqlError> {
    conn.execute(
        "DELETE FROM hold WHERE environment = $1 AND component = $2",
        &[text(&body.environment), body.component.as_ref().map_or("", ComponentName::as_str).into()],
    )
    .await
    .map(drop)
}

/// The deployments of a binding, newest first, at most `limit`.
pub async fn list(
    conn: &mut Conn,
    component: &ComponentName,
    environment: &EnvironmentName,
    limit: u64,
) -> Result<Vec<Deployment>, SqlError> {
    let rows = conn
        .rows(
            select_deployment!("WHERE component = $1 AND environment = $2 ORDER BY generation DESC LIMIT $3"),
            &[text(component), text(environment), limit.into()],
        )
        .await?;
    Ok(rows.iter().map(read).collect())
}

/// One deployment of a binding.
pub async fn get(
    conn: &mut Conn,
    component: &ComponentName,
    environment: &EnvironmentName,
    generation: u64,
) -> Result<Option<Deployment>, SqlError> {
    let row = conn
        .row(
            select_deployment!("WHERE component = $1 AND environment = $2 AND generation = $3"),
            &[text(component), text(environment), generation.into()],
        )
        .await?;
    Ok(row.as_ref().map(read))
}

/// The newest deployment of a binding that succeeded, `skip` of them left out.
pub async fn nth_success(
    conn: &mut Conn,
    component: &ComponentName,
    environment: &EnvironmentName,
    skip: u64,
) -> Result<Option<Deployment>, SqlError> {
    let row = conn
        .row(
            select_deployment!("WHERE component = $1 AND environment = $2 AND state = 'succeeded' ORDER BY generation DESC LIMIT 1 OFFSET $3"),
            &[text(component), text(environment), skip.into()],
        )
        .await?;
    Ok(row.as_ref().map(read))
}

/// Where an artefact succeeded, oldest first.
pub async fn successes(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Vec<SuccessFact>, SqlError> {
    let rows = conn
        .rows(
            "SELECT environment, generation, finished FROM deployment \
             WHERE digest = $2 AND component = $1 AND state = 'succeeded' ORDER BY finished, generation",
            &[text(component), text(digest)],
        )
        .await?;
    let read = |row: Row| SuccessFact {
        environment: super::parsed(row.text(0)),
        generation: row.count(1),
        time: super::parsed(row.text(2)),
    };
    Ok(rows.into_iter().map(read).collect())
}

/// Where an artefact is being deployed, or is among the newest `window` successes, which are those that an environment may
/// go back to.
pub async fn within_reach(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
    window: u64,
) -> Result<Vec<(EnvironmentName, u64)>, SqlError> {
    let rows = conn
        .rows(
            "SELECT environment, generation FROM deployment WHERE component = $1 AND digest = $2 AND (state = 'started' \
             OR (state = 'succeeded' AND (SELECT COUNT(*) FROM deployment AS later \
             WHERE later.component = deployment.component AND later.environment = deployment.environment \
             AND later.state = 'succeeded' AND later.generation > deployment.generation) < $3)) \
             ORDER BY environment, generation",
            &[text(component), text(digest), window.into()],
        )
        .await?;
    Ok(rows.into_iter().map(|row| (super::parsed(row.text(0)), row.count(1))).collect())
}

/// When an artefact was last deployed anywhere, if it ever was.
pub async fn last_deployed(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Option<String>, SqlError> {
    let row = conn
        .row(
            "SELECT COALESCE(finished, started) FROM deployment WHERE component = $1 AND digest = $2 \
             ORDER BY started DESC LIMIT 1",
            &[text(component), text(digest)],
        )
        .await?;
    Ok(row.map(|row| row.text(0)))
}

/// The deployments of an artefact, newest first.
pub async fn of_digest(conn: &mut Conn, digest: &Digest) -> Result<Vec<Deployment>, SqlError> {
    let rows = conn
        .rows(select_deployment!("WHERE digest = $1 ORDER BY started DESC, generation DESC"), &[text(digest)])
        .await?;
    Ok(rows.iter().map(read).collect())
}

/// The configurations with which an artefact failed, in whatever environment.
pub async fn failed_configs(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Vec<Digest>, SqlError> {
    let rows = conn
        .rows(
            "SELECT DISTINCT config FROM deployment WHERE component = $1 AND digest = $2 AND state = 'failed' ORDER BY config",
            &[text(component), text(digest)],
        )
        .await?;
    Ok(rows.into_iter().map(|row| super::parsed(row.text(0))).collect())
}

fn read(row: &Row) -> Deployment {
    Deployment {
        component: super::parsed(row.text(0)),
        environment: super::parsed(row.text(1)),
        generation: row.count(2),
        key: super::parsed(row.text(3)),
        digest: super::parsed(row.text(4)),
        version: row.opt_text(5).map(super::version),
        config: super::parsed(row.text(6)),
        target: super::parsed(row.text(7)),
        decision: super::parsed(row.text(8)),
        rollback_of: row.opt_count(9),
        state: match row.text(10).as_str() {
            "succeeded" => DeploymentState::Succeeded,
            "failed" => DeploymentState::Failed,
            "errored" => DeploymentState::Errored,
            "refused" => DeploymentState::Refused,
            _ => DeploymentState::Started,
        },
        reason: row.opt_text(11),
        restored: row.opt_count(12),
        started: row.text(13),
        finished: row.opt_text(14),
    }
}

/// What was last observed in a binding that was news, and when anything was last observed there.
pub async fn observation(
    conn: &mut Conn,
    component: &ComponentName,
    environment: &EnvironmentName,
) -> Result<Option<(Observed, String)>, SqlError> {
    let row = conn
        .row(
            "SELECT observation.observed, COALESCE(observed_at.time, observation.time) FROM observation LEFT JOIN observed_at \
             ON observed_at.component = observation.component AND observed_at.environment = observation.environment \
             WHERE observation.component = $1 AND observation.environment = $2",
            &[text(component), text(environment)],
        )
        .await?;
    Ok(row.map(|row| {
        let observed = serde_json::from_str(&row.text(0)).expect("the fold writes only well-formed values");
        (observed, row.text(1))
    }))
}

/// Remembers that a binding was observed and nothing was new. Operational: not a change of meaning.
pub async fn touch_observation(
    conn: &mut Conn,
    component: &ComponentName,
    environment: &EnvironmentName,
    now: jiff::Timestamp,
) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO observed_at (component, environment, time) VALUES ($1, $2, $3) \
         ON CONFLICT (component, environment) DO UPDATE SET time = $3",
        &[text(component), text(environment), text(&now)],
    )
    .await
    .map(drop)
}

/// A hold that applies to a binding, with its reason and time.
pub async fn hold(
    conn: &mut Conn,
    component: &ComponentName,
    environment: &EnvironmentName,
) -> Result<Option<Hold>, SqlError> {
    let row = conn
        .row(
            "SELECT component, reason, time FROM hold WHERE environment = $1 AND component IN ('', $2) ORDER BY component",
            &[text(environment), text(component)],
        )
        .await?;
    Ok(row.map(|row| Hold {
        component: Some(row.text(0)).filter(|name| !name.is_empty()).map(super::parsed),
        reason: row.text(1),
        time: row.text(2),
    }))
}

/// A hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Only this component; none: every one.
    pub component: Option<ComponentName>,
    /// Why.
    pub reason: String,
    /// Since when.
    pub time: String,
}
