//! Components: created by their first authorised name or by hand, with one home and rules of their own.
//!
//! How tags are read (the policy) is chosen once: a name that was given means the same for ever. Patterns apply to names that
//! are not given yet, and how long bytes are kept may change at any time.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::allocation::Scheme;
use semel_model::entry::{Change, ComponentChanged, ComponentCreated};
use semel_model::keep::{Keep, Terms};
use semel_model::name::ComponentName;
use semel_model::version::{NamePattern, TagPolicy};
use semel_store::Store;
use semel_store::projections::component::{self, Component};
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::error::EngineError;

/// The component; recorded in the batch when this is its first name here. `home` is the store that gives it versions.
pub(crate) async fn ensure(
    conn: &mut Conn,
    batch: &mut Batch,
    name: &ComponentName,
    home: &str,
) -> Result<Component, EngineError> {
    match component::get(conn, name).await? {
        Some(known) => Ok(known),
        None => Ok(record(batch, name, TagPolicy::Release, home)),
    }
}

/// The same for a component that is about to be built. What its project proposes of its versions is taken with its first
/// build, unless somebody has said something else.
pub(crate) async fn ensure_building(
    conn: &mut Conn,
    batch: &mut Batch,
    name: &ComponentName,
    home: &str,
    proposed: Option<Scheme>,
) -> Result<Component, EngineError> {
    let known = ensure(conn, batch, name, home).await?;
    let building = with_proposed_scheme(known.clone(), proposed);
    if building.scheme != known.scheme {
        let (component, scheme) = (name.clone(), building.scheme);
        let taken = ComponentChanged { component, keep: None, patterns: None, scheme };
        batch.change(Change::ComponentChanged(taken));
    }
    Ok(building)
}

/// A component as its first build makes it.
pub(crate) fn with_proposed_scheme(known: Component, proposed: Option<Scheme>) -> Component {
    let is_open = known.scheme.is_none() && known.last_build == 0;
    Component { scheme: if is_open { proposed } else { known.scheme }, ..known }
}

fn record(batch: &mut Batch, name: &ComponentName, policy: TagPolicy, home: &str) -> Component {
    let component = Component { policy, ..new(name.clone(), home) };
    let home = component.home.clone();
    batch.change(Change::ComponentCreated(ComponentCreated { component: name.clone(), policy, home }));
    component
}

/// A component as it is when nothing else was said.
pub(crate) fn new(name: ComponentName, home: &str) -> Component {
    let (policy, keep, patterns) = (TagPolicy::Release, Keep::default(), Vec::new());
    let (scheme, moved, place) = (None, None, None);
    Component { name, policy, home: home.to_owned(), last_build: 0, keep, patterns, scheme, moved, place }
}

/// A component that must be there.
pub async fn get(conn: &mut Conn, name: &ComponentName) -> Result<Component, EngineError> {
    component::get(conn, name).await?.ok_or_else(|| {
        EngineError::not_found(format!("there is no component {name} in this store"))
            .with_hint(format!("semel build, semel push, or: semel component create {name}"))
    })
}

/// Creates a component before its first name, with rules of its own.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateComponent {
    /// Its name.
    pub component: ComponentName,
    /// How its tags are read, for ever.
    pub policy: TagPolicy,
    /// Which names are versions beside those that look like one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patterns: Option<Vec<NamePattern>>,
    /// How long bytes are kept, where that is not the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Terms>,
    /// How its versions look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
}

/// Gives a component other rules.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeComponent {
    /// Which component.
    pub component: ComponentName,
    /// Which names are versions beside those that look like one, from now on; none: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patterns: Option<Vec<NamePattern>>,
    /// How long bytes are kept, where that changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Terms>,
    /// How its versions look, from now on; none: as before. What was given stays, and is skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
}

/// A component in this store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ComponentFacts {
    /// Its name.
    pub name: ComponentName,
    /// The store that gives it versions.
    pub home: String,
    /// The newest build number.
    pub last_build: u64,
    /// How its tags are read.
    pub policy: TagPolicy,
    /// Which names are versions beside those that look like one.
    pub patterns: Vec<NamePattern>,
    /// How long bytes are kept.
    pub keep: Keep,
    /// How its versions look.
    #[serde(default)]
    pub scheme: Scheme,
}

impl From<Component> for ComponentFacts {
    fn from(known: Component) -> Self {
        let Component { name, policy, home, last_build, keep, patterns, scheme, .. } = known;
        Self { name, home, last_build, policy, patterns, keep, scheme: scheme.unwrap_or_default() }
    }
}

/// What became of a component's rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ruled {
    /// The component as it is now.
    pub component: ComponentFacts,
    /// Whether it was so before.
    pub already: bool,
}

/// Creates a component. One that is there with the same rules stays as it is; one with another policy, or with other rules,
/// is not changed by the way.
pub async fn create(
    store: &Store,
    who: &Actor,
    request: CreateComponent,
    now: Timestamp,
) -> Result<Ruled, EngineError> {
    let mut turn = store.turn().await?;
    let mut batch = Batch::new(who, now);
    let name = &request.component;
    let present = component::get(turn.db(), name).await?;
    let already = present.is_some();
    let known = match present {
        Some(known) if known.policy != request.policy => return Err(other_policy(&known, request.policy)),
        Some(known) => known,
        None => record(&mut batch, name, request.policy, store.id()),
    };
    let rules = Rules { patterns: request.patterns, keep: request.keep, scheme: request.scheme };
    let changed = rule(&mut batch, known.clone(), rules)?;
    if already && changed != known {
        return Err(EngineError::Conflict {
            what: format!("{name} is there already, with other rules"),
            hint: Some(format!("semel component show {name}   or   semel component set {name} …")),
        });
    }
    turn.append(batch.into_leaves()).await?;
    Ok(Ruled { component: changed.into(), already })
}

fn other_policy(known: &Component, wanted: TagPolicy) -> EngineError {
    let Component { name, policy, .. } = known;
    EngineError::Conflict {
        what: format!(
            "{name} was created with the policy {policy}, and cannot have the policy {wanted}: what a name is does not change"
        ),
        hint: Some("give it another component name".to_owned()),
    }
}

/// Gives a component other rules. The same again changes nothing.
pub async fn change(
    store: &Store,
    who: &Actor,
    request: ChangeComponent,
    now: Timestamp,
) -> Result<Ruled, EngineError> {
    let mut turn = store.turn().await?;
    let mut batch = Batch::new(who, now);
    let known = get(turn.db(), &request.component).await?;
    let rules = Rules { patterns: request.patterns, keep: request.keep, scheme: request.scheme };
    let changed = rule(&mut batch, known.clone(), rules)?;
    turn.append(batch.into_leaves()).await?;
    Ok(Ruled { already: changed == known, component: changed.into() })
}

/// What somebody says about the rules of a component.
struct Rules {
    patterns: Option<Vec<NamePattern>>,
    keep: Option<Terms>,
    scheme: Option<Scheme>,
}

/// The component with these rules; recorded in the batch where they are others than it has.
fn rule(batch: &mut Batch, known: Component, rules: Rules) -> Result<Component, EngineError> {
    let patterns = rules.patterns.map(distinct).filter(|wanted| *wanted != known.patterns);
    if patterns.is_some() && known.policy != TagPolicy::Release {
        let Component { name, policy, .. } = &known;
        return Err(EngineError::precondition(format!(
            "{name} has the policy {policy}, under which no pattern says what a name is"
        )));
    }
    let scheme = rules.scheme.filter(|wanted| Some(*wanted) != known.scheme);
    let keep = rules.keep.map(|terms| terms.over(known.keep)).filter(|wanted| *wanted != known.keep);
    if patterns.is_some() || keep.is_some() || scheme.is_some() {
        let (component, patterns) = (known.name.clone(), patterns.clone());
        batch.change(Change::ComponentChanged(ComponentChanged { component, keep, patterns, scheme }));
    }
    Ok(Component {
        keep: keep.unwrap_or(known.keep),
        patterns: patterns.unwrap_or_else(|| known.patterns.clone()),
        scheme: scheme.or(known.scheme),
        ..known
    })
}

/// Each pattern once, in the order in which they were given.
fn distinct(patterns: Vec<NamePattern>) -> Vec<NamePattern> {
    let mut seen = Vec::with_capacity(patterns.len());
    for pattern in patterns {
        if !seen.contains(&pattern) {
            seen.push(pattern);
        }
    }
    seen
}

/// How many components are read at once.
const PAGE: u64 = 1_000;

/// All components of a store, in the order of their names.
pub async fn list(store: &Store) -> Result<Vec<ComponentFacts>, EngineError> {
    let mut conn = store.reader().await?;
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = component::list(&mut conn, &after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = last.name.to_string();
        all.extend(page.into_iter().map(ComponentFacts::from));
    }
}

/// One component.
pub async fn show(store: &Store, name: &ComponentName) -> Result<ComponentFacts, EngineError> {
    Ok(get(&mut store.reader().await?, name).await?.into())
}
