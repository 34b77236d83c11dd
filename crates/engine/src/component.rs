//! Components: created by their first authorised name, with one home.

use semel_model::entry::{Change, ComponentCreated};
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
    let created =
        ComponentCreated { component: name.clone(), policy: TagPolicy::Release, home: home.to_owned() };
    batch.change(Change::ComponentCreated(created));
    Ok(Component { name: name.clone(), policy: TagPolicy::Release, home: home.to_owned(), last_build: 0 })
}

/// A component that must be there.
pub async fn get(conn: &mut Conn, name: &ComponentName) -> Result<Component, EngineError> {
    component::get(conn, name).await?.ok_or_else(|| {
        EngineError::not_found(format!("there is no component {name} in this store")).with_hint("semel build")
    })
}
