//! Every face over HTTP: the OCI registry, the JSON API, and the typed client of the API.
//!
//! | path | face | where |
//! |---|---|---|
//! | `/v2/…` | OCI distribution-spec 1.1 | `registry` |
//! | `/api/v1/…` | JSON | [`api`] |
//! | `/healthz` | 200 while the store can be read and written, else 503 with the reason | [`mod@router`] |
//! | `/metrics` | what is counted, for Prometheus | `metrics` |
//!
//! [`router()`] is the whole of it as one service, called inside the process or, by [`serve`], from the network: there is one
//! API and one set of tests. Handlers extract, call the engine and render; they decide nothing about the domain, and know
//! nothing of terminals.

pub mod router;
pub mod serve;
mod linger;

pub mod api;
pub mod limits;
mod registry;

mod error;
mod metrics;

pub mod client;

use std::sync::Arc;

use http::HeaderMap;
use jiff::Timestamp;
use semel_model::actor::Actor;
use semel_store::Store;
use semel_store::ledger::AppendError;

use crate::metrics::Metrics;

pub use crate::error::{Answer, answer_to};
use crate::limits::{Limits, OpenUploads};
pub use crate::router::router;

/// The header of an API request that says who asks: a claim, recorded as one.
pub const ACTOR_HEADER: &str = "semel-actor";
/// The header of an API request that says through which door it came: `cli` or `api`.
pub const VIA_HEADER: &str = "semel-via";

/// The most bytes of a claimed name that are taken.
const MAX_NAME_BYTES: usize = 256;

/// What every handler shares. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    clock: fn() -> Timestamp,
    actor_name: String,
    local: bool,
    sessions: registry::Sessions,
    limits: Limits,
    open_uploads: OpenUploads,
    memory: registry::Memory,
    metrics: Arc<Metrics>,
}

/// Who asks, and through which door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name that is claimed.
    pub name: String,
    /// `cli`, `api` or `registry`.
    pub via: &'static str,
}

impl App {
    /// Serves a store. `actor_name` is the server's own user, who stands for all who say nothing about themselves.
    pub fn new(store: Store, clock: fn() -> Timestamp, actor_name: impl Into<String>) -> Self {
        Self::with(store, clock, actor_name.into(), false, Limits::default())
    }

    /// As [`App::new`], with limits of one's own.
    pub fn limited(
        store: Store,
        clock: fn() -> Timestamp,
        actor_name: impl Into<String>,
        limits: Limits,
    ) -> Self {
        Self::with(store, clock, actor_name.into(), false, limits)
    }

    /// As [`App::new`], for a caller in this very process, who is told what went wrong inside.
    pub fn local(store: Store, clock: fn() -> Timestamp, actor_name: impl Into<String>) -> Self {
        Self::with(store, clock, actor_name.into(), true, Limits::default())
    }

    fn with(store: Store, clock: fn() -> Timestamp, actor_name: String, local: bool, limits: Limits) -> Self {
        Self(Arc::new(Inner {
            store,
            clock,
            actor_name,
            local,
            sessions: registry::Sessions::default(),
            limits,
            open_uploads: OpenUploads::default(),
            memory: registry::Memory::default(),
            metrics: Arc::default(),
        }))
    }

    /// Whether only this process can ask.
    pub(crate) fn is_local(&self) -> bool {
        self.0.local
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.0.clock)()
    }

    /// The name of the server's own user.
    pub fn actor_name(&self) -> &str {
        &self.0.actor_name
    }

    /// Who sends an API request, as the request claims.
    pub fn caller(&self, headers: &HeaderMap) -> Caller {
        let claimed = headers.get(ACTOR_HEADER).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
        let name = claimed.map(str::trim).filter(|name| !name.is_empty() && name.len() <= MAX_NAME_BYTES);
        let via = match headers.get(VIA_HEADER).map(http::HeaderValue::as_bytes) {
            Some(b"cli") => "cli",
            _ => "api",
        };
        Caller { name: name.unwrap_or(self.actor_name()).to_owned(), via }
    }

    /// The actor of an API request, under whose pseudonym its changes are recorded.
    pub async fn actor(&self, headers: &HeaderMap) -> Result<Actor, AppendError> {
        let caller = self.caller(headers);
        self.store().local_actor(&caller.name, caller.via).await
    }

    /// The actor of a registry request: the server's own user, until there is sign-in.
    pub(crate) async fn registry_actor(&self) -> Result<Actor, AppendError> {
        self.store().local_actor(self.actor_name(), "registry").await
    }

    /// What one client may take.
    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(crate) fn open_uploads(&self) -> &OpenUploads {
        &self.0.open_uploads
    }

    pub(crate) fn memory(&self) -> &registry::Memory {
        &self.0.memory
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    pub(crate) fn sessions(&self) -> &registry::Sessions {
        &self.0.sessions
    }
}
