//! Whether a component is there at all.

use semel_model::name::ComponentName;
use semel_oci::error::ErrorCode;
use semel_store::projections::{artefact, component};
use semel_store::sql::Conn;

use super::Result;
use crate::error::Refusal;

/// Refuses when there is no such component. One without a name for anything is there with its first manifest.
pub(super) async fn require_component(conn: &mut Conn, name: &ComponentName) -> Result<()> {
    if component::get(conn, name).await?.is_some() || artefact::has_manifests(conn, name).await? {
        return Ok(());
    }
    Err(Refusal::new(ErrorCode::NameUnknown, format!("there is no component {name} in this store")))
}
