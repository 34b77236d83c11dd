//! The session of one command: which store or server is used, and the client that speaks to it.
//!
//! `--store DIR` or `--server URL`; else `SEMEL_STORE` or `SEMEL_SERVER`; else `store = "…"` in `semel.toml`; else the
//! user's own store. With a store, the client calls the server's router inside this process.

use std::path::PathBuf;

use jiff::Timestamp;
use semel_oci::transport::Transport;
use semel_server::App;
use semel_server::api::calls::{StoreDescription, StoreFacts};
use semel_server::client::Client;
use semel_store::{OpenError, Place, Store};

use crate::cli::Cli;
use crate::output::Output;
use crate::project;
use crate::report::{Exit, Failure};
use crate::settings::Settings;

/// The clock of the program.
#[expect(clippy::disallowed_methods, reason = "the binary is where the clock is read")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// Where the ledger is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Where {
    /// A directory.
    Store(PathBuf),
    /// A server.
    Server(String),
}

/// Everything that a verb needs.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) output: Output,
    /// The store, when it is embedded.
    pub(crate) store: Option<Store>,
    facts: tokio::sync::OnceCell<StoreDescription>,
}

/// Which store or server is meant, and whether somebody named it.
pub(crate) fn place(cli: &Cli, settings: &Settings) -> Result<(Where, bool), Failure> {
    let named = match (&cli.store, &cli.server) {
        (Some(dir), _) => Some(Where::Store(settings.directory().join(dir))),
        (None, Some(url)) => Some(Where::Server(url.clone())),
        (None, None) => match (settings.variable("SEMEL_STORE"), settings.variable("SEMEL_SERVER")) {
            (Some(_), Some(_)) => {
                return Err(
                    Failure::usage("SEMEL_STORE and SEMEL_SERVER are both set").hint("unset one of them")
                );
            }
            (Some(dir), None) => Some(Where::Store(settings.directory().join(dir))),
            (None, Some(url)) => Some(Where::Server(url.to_owned())),
            (None, None) => from_project(settings)?,
        },
    };
    Ok(match named {
        Some(place) => (place, true),
        None => (Where::Store(settings.own_store()), false),
    })
}

fn from_project(settings: &Settings) -> Result<Option<Where>, Failure> {
    let Some(found) = project::find(settings.directory())? else { return Ok(None) };
    Ok(found.project.store.map(|store| {
        if store.starts_with("http://") || store.starts_with("https://") {
            Where::Server(store)
        } else {
            Where::Store(found.dir.join(store))
        }
    }))
}

/// The place of an embedded store, for verbs that need the directory itself.
pub(crate) fn embedded(cli: &Cli, settings: &Settings) -> Result<Place, Failure> {
    match place(cli, settings)? {
        (Where::Store(dir), _) => Ok(Place { dir, keys: settings.keys() }),
        (Where::Server(url), _) => {
            Err(Failure::usage(format!("this needs the store itself, not the server {url}"))
                .hint("run it where the store is: --store DIR"))
        }
    }
}

/// Opens a store, or creates it.
pub(crate) async fn open_store(place: &Place) -> Result<Store, Failure> {
    Store::open_or_create(place, now()).await.map_err(|error| {
        let exit = match error {
            OpenError::Newer { .. } | OpenError::NotAStore(_) | OpenError::NetworkFileSystem { .. } => {
                Exit::Usage
            }
            _ => Exit::Fault,
        };
        let failure = Failure::from_error(exit, &error);
        match error {
            OpenError::NoDatabase(dir) => failure.hint(format!("semel recover --store {}", dir.display())),
            OpenError::NotAStore(_) => failure.hint("name another directory: --store DIR"),
            _ => failure,
        }
    })
}

impl Session {
    /// Opens the session of a command.
    pub(crate) async fn open(cli: &Cli, settings: Settings, output: Output) -> Result<Self, Failure> {
        let (place, _) = place(cli, &settings)?;
        Self::at(place, settings, output).await
    }

    /// Opens a session at a place.
    pub(crate) async fn at(place: Where, settings: Settings, output: Output) -> Result<Self, Failure> {
        let user = settings.user();
        let (transport, store) = match place {
            Where::Store(dir) => {
                let store = open_store(&Place { dir, keys: settings.keys() }).await?;
                let router = semel_server::router(App::local(store.clone(), now, user.clone()));
                (Transport::in_process(router), Some(store))
            }
            Where::Server(url) => {
                let remote =
                    Transport::remote(&url).map_err(|error| Failure::from_error(Exit::Usage, &error))?;
                (remote, None)
            }
        };
        Ok(Self {
            client: Client::new(transport, user),
            settings,
            output,
            store,
            facts: tokio::sync::OnceCell::new(),
        })
    }

    /// What store it is.
    pub(crate) async fn facts(&self) -> Result<&StoreDescription, Failure> {
        let ask = || async { Ok::<_, Failure>(self.client.call(&StoreFacts {}).await?) };
        self.facts.get_or_try_init(ask).await
    }
}
