//! The session of one command: which store or server is used, and the client that speaks to it.
//!
//! `--store DIR` or `--server URL`; else `SEMEL_STORE` or `SEMEL_SERVER`; else `store = "…"` in `semel.toml`; else the
//! user's own store. With a store, the client calls the server's router inside this process. A store whose tables are in
//! PostgreSQL needs the name of the database too: `--database`, `SEMEL_DATABASE` or the file `SEMEL_DATABASE_FILE`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use semel_oci::transport::Transport;
use semel_server::App;
use semel_server::api::calls::{StoreDescription, StoreFacts};
use semel_server::client::Client;
use semel_store::sql::DatabaseUrl;
use semel_store::{OpenError, Place, Store};

use crate::cli::Cli;
use crate::output::Output;
use crate::project;
use crate::report::{Exit, Failure};
use crate::settings::Settings;
use crate::workdir::WorkDir;

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
        (Where::Store(dir), _) => in_directory(dir, cli, settings),
        (Where::Server(url), _) => {
            Err(Failure::usage(format!("this needs the store itself, not the server {url}"))
                .hint("run it where the store is: --store DIR"))
        }
    }
}

pub(crate) fn in_directory(dir: PathBuf, cli: &Cli, settings: &Settings) -> Result<Place, Failure> {
    Ok(Place { dir, keys: settings.keys(), database: database(cli, settings)? })
}

/// The database that is named, if one is. A password in the arguments is refused: every process of the machine can read them.
fn database(cli: &Cli, settings: &Settings) -> Result<Option<DatabaseUrl>, Failure> {
    let parse = |text: &str| {
        text.trim().parse::<DatabaseUrl>().map_err(|error| Failure::from_error(Exit::Usage, &error))
    };
    if let Some(text) = &cli.database {
        let url = parse(text)?;
        return match url.has_password() {
            true => Err(Failure::usage("a password among the arguments can be read by everybody here")
                .hint("SEMEL_DATABASE, SEMEL_DATABASE_FILE, PGPASSWORD or ~/.pgpass may hold it")),
            false => Ok(Some(url)),
        };
    }
    match (settings.variable("SEMEL_DATABASE"), settings.variable("SEMEL_DATABASE_FILE")) {
        (Some(_), Some(_)) => {
            Err(Failure::usage("SEMEL_DATABASE and SEMEL_DATABASE_FILE are both set")
                .hint("unset one of them"))
        }
        (Some(text), None) => parse(text).map(Some),
        (None, Some(name)) => {
            from_file(&settings.directory().join(name)).and_then(|text| parse(&text)).map(Some)
        }
        (None, None) => Ok(None),
    }
}

/// A file that may hold a password is its owner's and his group's alone.
fn from_file(path: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| {
        Failure::usage(format!("cannot read {}, the SEMEL_DATABASE_FILE", path.display()))
            .because([error.to_string()])
    };
    let open_to_others = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o007 != 0;
    if open_to_others {
        return Err(Failure::usage(format!(
            "everybody can read {}, which may hold a password",
            path.display()
        ))
        .hint(format!("chmod 600 {}", path.display())));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// Opens a store, or creates it.
pub(crate) async fn open_store(place: &Place) -> Result<Store, Failure> {
    Store::open_or_create(place, now()).await.map_err(unopened)
}

/// Opens a store that is there already.
pub(crate) async fn open_existing(place: &Place) -> Result<Option<Store>, Failure> {
    match Store::open(place).await {
        Ok(store) => Ok(Some(store)),
        Err(OpenError::Missing(_)) => Ok(None),
        Err(error) => Err(unopened(error)),
    }
}

/// Opens the store that somebody named. A name may be mistyped: who only looks is told that nothing is there, and who
/// puts something in hears that the store is new.
async fn open_named(place: &Place, may_begin: bool, output: Output) -> Result<Store, Failure> {
    match open_existing(place).await? {
        Some(store) => Ok(store),
        None if may_begin => {
            let store = open_store(place).await?;
            output.say(format!(
                "  note: there was no store in {}: a new one is there now",
                place.dir.display()
            ));
            Ok(store)
        }
        None => Err(no_store(place)),
    }
}

/// There is no store where one is needed.
pub(crate) fn no_store(place: &Place) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no store in {}", place.dir.display()))
        .hint("name the one that is meant: --store DIR; the first build or push makes a new one")
}

fn unopened(error: OpenError) -> Failure {
    let exit = match error {
        OpenError::Newer { .. }
        | OpenError::NotAStore(_)
        | OpenError::HalfRestored(_)
        | OpenError::NetworkFileSystem { .. }
        | OpenError::NotWritable { .. }
        | OpenError::DatabaseNotNamed(_)
        | OpenError::DatabaseNamed(_)
        | OpenError::ForeignDatabase { .. } => Exit::Usage,
        _ => Exit::Fault,
    };
    let failure = Failure::from_error(exit, &error);
    match error {
        OpenError::Sql(error) if error.is_damage() => {
            failure.hint("semel recover puts it aside and makes it anew from the ledger's files")
        }
        OpenError::NoDatabase { dir, .. } => failure.hint(format!("semel recover --store {}", dir.display())),
        OpenError::DatabaseNotNamed(_) => failure.hint("SEMEL_DATABASE=postgres://USER@HOST/NAME"),
        OpenError::DatabaseNamed(_) => failure.hint("leave SEMEL_DATABASE and --database out"),
        OpenError::ForeignDatabase { .. } => failure.hint("create an empty database and name that one"),
        OpenError::NotWritable { dir, .. } => failure.hint(format!(
            "make a copy that can be written to, and name that: cp -a {} COPY && semel --store COPY status",
            dir.display()
        )),
        OpenError::NotAStore(_) => failure.hint("name another directory: --store DIR"),
        _ => failure,
    }
}

impl Session {
    /// Opens the session of a command.
    pub(crate) async fn open(cli: &Cli, settings: Settings, output: Output) -> Result<Self, Failure> {
        let user = settings.user();
        let (place, named) = place(cli, &settings)?;
        let (transport, store) = match place {
            Where::Store(dir) => {
                let place = in_directory(dir, cli, &settings)?;
                let store = if named {
                    open_named(&place, cli.verb.may_begin_a_store(), output).await?
                } else {
                    open_store(&place).await?
                };
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

    /// A directory to work in, which goes with the command.
    pub(crate) fn work_dir(&self) -> Result<WorkDir, Failure> {
        let base = self.settings.work();
        WorkDir::new(&base, now().into()).map_err(|error| {
            Failure::fault(format!("cannot make a directory to work in below {}: {error}", base.display()))
                .hint("name another one: XDG_CACHE_HOME=DIR")
        })
    }

    /// What store it is.
    pub(crate) async fn facts(&self) -> Result<&StoreDescription, Failure> {
        let ask = || async { Ok::<_, Failure>(self.client.call(&StoreFacts {}).await?) };
        self.facts.get_or_try_init(ask).await
    }
}
