//! A directory of its own for one test, with stores on one of the two databases.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use semel_store::{Place, Store};
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::now;

/// Where a test has its stores and keys.
pub(crate) struct World {
    dir: TempDir,
    server: Option<&'static Cluster>,
    databases: Mutex<BTreeSet<String>>,
}

impl World {
    /// Stores with their tables beside them.
    pub(crate) fn on_sqlite() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), server: None, databases: Mutex::default() }
    }

    /// Stores with their tables in a server, where there is one.
    pub(crate) fn on_postgres() -> Option<Self> {
        Cluster::get().map(|server| Self { server: Some(server), ..Self::on_sqlite() })
    }

    /// Another machine of the same kind: another directory, other keys.
    pub(crate) fn elsewhere(&self) -> Self {
        Self { server: self.server, ..Self::on_sqlite() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The place of the store that most tests have.
    pub(crate) fn place(&self) -> Place {
        self.place_of("store")
    }

    /// The place of another store of this machine.
    pub(crate) fn place_of(&self, name: &str) -> Place {
        let database = self.server.map(|server| server.url(&self.database(name)).parse().unwrap());
        Place { dir: self.path().join(name), keys: self.path().join("keys"), database }
    }

    pub(crate) async fn new_store(&self) -> Store {
        Store::open_or_create(&self.place(), now()).await.unwrap()
    }

    /// What happens to the database of a store when its disk is gone.
    pub(crate) fn lose_database(&self) {
        match self.server {
            Some(server) => {
                server.drop(&self.database("store"));
                server.create(&self.database("store"));
            }
            None => {
                for name in ["semel.db", "semel.db-wal", "semel.db-shm"] {
                    drop(std::fs::remove_file(self.place().dir.join(name)));
                }
            }
        }
    }

    /// The name of a store's database, which is created when it is first asked for.
    fn database(&self, store: &str) -> String {
        let random = self.path().file_name().unwrap().to_string_lossy();
        let name = format!("{}-{store}", random.trim_start_matches('.'));
        if let Some(server) = self.server
            && self.databases.lock().unwrap().insert(name.clone())
        {
            server.create(&name);
        }
        name
    }
}
