//! Components: created by their first authorised name, with one home.

use semel_model::entry::{Change, ComponentCreated};
use semel_model::keep::Keep;
use semel_model::name::ComponentName;
use semel_model::version::TagPolicy;
use semel_store::projections::component::{self, Component};
use semel_store::sql::Conn;

use crate::batch::Batch;
use crate::error::EngineError;

/// The component; recorded in the batch when this is its first name here. `home` is the store that gives it versions.
pub(crate) async fn ensure(
    conn: &mut Conn,
    batch: &mut Batch,
    name: &ComponentName,
    home: &str,
) -> Result<Component, EngineError> {
    if let Some(known) = component::get(conn, name).await? {
        return Ok(known);
    }
    let component = new(name.clone(), home);
    let created =
        ComponentCreated { component: name.clone(), policy: component.policy, home: component.home.clone() };
    batch.change(Change::ComponentCreated(created));
    Ok(component)
}

/// A component as it is when nothing else was said.
pub(crate) fn new(name: ComponentName, home: &str) -> Component {
    let (policy, keep, patterns) = (TagPolicy::Release, Keep::default(), Vec::new());
    Component { name, policy, home: home.to_owned(), last_build: 0, keep, patterns }
}

/// A component that must be there.
pub async fn get(conn: &mut Conn, name: &ComponentName) -> Result<Component, EngineError> {
    component::get(conn, name).await?.ok_or_else(|| {
        EngineError::not_found(format!("there is no component {name} in this store")).with_hint("semel build")
    })
}
