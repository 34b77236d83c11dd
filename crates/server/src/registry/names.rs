//! Whether a component is there at all.

use semel_model::name::ComponentName;
use semel_oci::error::ErrorCode;
use semel_store::projections::component;
use semel_store::sql::Conn;

use super::Result;
use crate::error::Refusal;

/// Refuses when there is no such component.
pub(super) async fn require_component(conn: &mut Conn, name: &ComponentName) -> Result<()> {
    match component::get(conn, name).await? {
        Some(_) => Ok(()),
        None => {
            Err(Refusal::new(ErrorCode::NameUnknown, format!("there is no component {name} in this store")))
        }
    }
}
