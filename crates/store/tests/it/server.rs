//! What only a database that is a server can suffer: it is named, it may be another store's, and its connections are lost.

use semel_store::durable::Access;
use semel_store::sql::SqlError;
use semel_store::{
    DatabaseKind, Identity, OpenError, Place, Store, audit, backup, ledger, projections, recover,
};

use super::world;
use crate::world::World;
use crate::{actor, fill, now};

/// Ends every other connection to a store's database, as a restart of the server would.
async fn cut_connections(store: &Store) {
    let cut = "SELECT CAST(pg_terminate_backend(pid) AS TEXT) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    store.reader().await.unwrap().rows(cut, &[]).await.unwrap();
}

#[tokio::test]
async fn a_lost_connection_is_made_anew_and_nothing_is_half_done() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 1).await;
    let knife = Store::open(&world.place()).await.unwrap();
    let mut reader = store.reader().await.unwrap();
    let size = ledger::size(&mut reader).await.unwrap();

    cut_connections(&knife).await;
    assert_eq!(ledger::size(&mut reader).await.unwrap(), size, "a read is asked again");
    fill_channel(&store, "one").await;

    let mut turn = store.turn().await.unwrap();
    turn.db()
        .execute("INSERT INTO identity (subject, issuer, name) VALUES ('x', 'local', 'x')", &[])
        .await
        .unwrap();
    cut_connections(&knife).await;
    let lost = turn.append(Vec::new()).await.unwrap_err();
    let mut causes = std::iter::successors(Some(&lost as &dyn std::error::Error), |error| error.source());
    let cause: &SqlError = causes.find_map(|cause| cause.downcast_ref()).expect("it is the database");
    assert!(cause.is_away(), "{cause}");
    assert!(cause.to_string().contains("the connection to the database was lost"), "{cause}");
    assert_eq!(store.name_of("x").await.unwrap(), "x", "the pseudonym itself: no name was kept");

    fill_channel(&store, "two").await;
    assert_eq!(audit::verify(&store).await.unwrap().problems, Vec::<String>::new());
}

async fn fill_channel(store: &Store, name: &str) {
    let moved = semel_model::entry::ChannelMoved {
        component: "shop/api".parse().unwrap(),
        channel: name.parse().unwrap(),
        from: None,
        to: None,
    };
    let changes = vec![semel_model::entry::Change::ChannelMoved(moved)];
    let who = actor(store).await;
    store.turn().await.unwrap().record(&who, now(), changes).await.unwrap();
}

#[tokio::test]
async fn the_ledger_cannot_be_truncated_and_not_by_a_replica_either() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    for table in ["TRUNCATE entry", "TRUNCATE node", "TRUNCATE checkpoint", "DELETE FROM entry"] {
        let mut turn = store.turn().await.unwrap();
        turn.db().script("SET LOCAL session_replication_role = replica").await.unwrap();
        let refused = turn.db().script(table).await.unwrap_err();
        let cause = std::error::Error::source(&refused).unwrap().to_string();
        assert!(cause.contains("the ledger is append-only"), "{table}: {cause}");
    }
}

#[tokio::test]
async fn a_store_is_opened_with_its_own_database_alone() {
    let Some(world) = world() else { return };
    let id = world.new_store().await.id().to_owned();
    let named = |dir: &str, database: &str| Place {
        dir: world.path().join(dir),
        database: world.place_of(database).database,
        ..world.place()
    };
    let embedded = Place::embedded(world.path().join("embedded"), world.path().join("keys"));
    drop(Store::create(&embedded, now()).await.unwrap());
    let other = Store::create(&named("other", "other"), now()).await.unwrap();

    let unnamed = Place { database: None, ..world.place() };
    assert!(matches!(Store::open(&unnamed).await, Err(OpenError::DatabaseNotNamed(_))));
    assert!(matches!(Store::open_or_create(&unnamed, now()).await, Err(OpenError::DatabaseNotNamed(_))));
    assert!(matches!(Store::open(&named("embedded", "store")).await, Err(OpenError::DatabaseNamed(_))));
    let foreign = Store::open(&named("store", "other")).await.unwrap_err();
    assert!(matches!(&foreign, OpenError::ForeignDatabase { owner, .. } if owner == other.id()), "{foreign}");
    let taken = Store::open_or_create(&named("third", "store"), now()).await.unwrap_err();
    assert!(matches!(&taken, OpenError::ForeignDatabase { owner, .. } if *owner == id), "{taken}");
    assert!(!world.path().join("third/store.json").exists(), "nothing was created");
    assert!(recover::recover(&named("store", "other")).await.is_err());
    assert_eq!(ledger::size(&mut other.reader().await.unwrap()).await.unwrap(), 1, "and nothing was changed");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_a_password() {
    let Some(world) = world() else { return };
    drop(world.new_store().await);
    let nowhere = format!("postgres://ana:geheim@localhost/semel?host={}", world.path().display());
    let place = Place { database: Some(nowhere.parse().unwrap()), ..world.place() };
    let error = whole(&Store::open(&place).await.unwrap_err());
    assert!(error.contains("cannot connect to the database postgres://ana@"), "{error}");
    assert!(!error.contains("geheim"), "{error}");
}

fn whole(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {}", whole(cause)));
    format!("{error}{}", cause.unwrap_or_default())
}

#[tokio::test]
async fn a_backup_of_either_database_is_restored_into_either() {
    let Some(world) = world() else { return };
    for (from, to) in [(World::on_sqlite(), world.elsewhere()), (world.elsewhere(), World::on_sqlite())] {
        let store = from.new_store().await;
        fill(&store, 3).await;
        let saved = from.path().join("backup");
        backup::backup(&store, &saved, now()).await.unwrap();
        let copied = backup::restore(&saved, &to.place()).await.unwrap();
        let restored = Store::open(&to.place()).await.unwrap();
        assert_eq!(dump(&restored).await, dump(&store).await);
        assert_eq!((copied.blobs, restored.id()), (3, store.id()));
        fill_channel(&restored, "next").await;
        assert_eq!(audit::verify(&restored).await.unwrap().problems, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_history_of_every_kind_is_folded_into_the_same_tables() {
    let Some(world) = world() else { return };
    let here = tempfile::tempdir().unwrap();
    let frozen = Store::open(&crate::frozen::thawed("store-1", here.path())).await.unwrap();
    let place = Place { database: world.place().database, ..crate::frozen::thawed("store-1", world.path()) };
    let identity = Identity { database: Some(DatabaseKind::Postgresql), ..frozen.identity().clone() };
    let path = place.dir.join("store.json");
    semel_store::durable::replace(&path, &serde_json::to_vec(&identity).unwrap(), Access::Shared).unwrap();
    assert!(matches!(Store::open(&place).await, Err(OpenError::NoDatabase { .. })));
    recover::recover(&place).await.unwrap();
    let recovered = Store::open(&place).await.unwrap();
    assert_eq!(dump(&recovered).await, dump(&frozen).await);
    assert_eq!(audit::verify(&recovered).await.unwrap().problems, Vec::<String>::new());
}

async fn dump(store: &Store) -> Vec<(&'static str, Vec<String>)> {
    projections::dump(&mut store.reader().await.unwrap()).await.unwrap()
}
