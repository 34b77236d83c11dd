//! What only a database that is a file can suffer.

use semel_store::{OpenError, Store, audit, projections, recover};

use crate::fill;
use crate::world::World;

#[tokio::test]
async fn the_journal_of_a_lost_database_is_not_played_into_the_recovered_one() {
    let world = World::on_sqlite();
    let store = world.new_store().await;
    fill(&store, 5).await;
    let before = projections::dump(&mut store.reader().await.unwrap()).await.unwrap();
    let journal = world.place().dir.join("semel.db-wal");
    assert!(std::fs::metadata(&journal).unwrap().len() > 0, "the test needs a journal that is not empty");
    let kept = std::fs::read(&journal).unwrap();
    store.close().await;
    drop(store);
    world.lose_database();
    // As when only the database itself was lost.
    #[expect(clippy::disallowed_methods, reason = "the test damages the store on purpose")]
    std::fs::write(&journal, &kept).unwrap();
    recover::recover(&world.place()).await.unwrap();
    let store = Store::open(&world.place()).await.unwrap();
    assert_eq!(projections::dump(&mut store.reader().await.unwrap()).await.unwrap(), before);
    assert_eq!(audit::verify(&store).await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test]
async fn a_database_file_of_another_store_is_refused_by_name() {
    let (world, other) = (World::on_sqlite(), World::on_sqlite());
    let theirs = other.new_store().await;
    drop(world.new_store().await);
    for name in ["semel.db", "semel.db-wal"] {
        std::fs::copy(other.place().dir.join(name), world.place().dir.join(name)).unwrap();
    }
    drop(std::fs::remove_file(world.place().dir.join("semel.db-shm")));
    let refused = Store::open(&world.place()).await.unwrap_err();
    assert!(
        matches!(&refused, OpenError::ForeignDatabase { owner, .. } if owner == theirs.id()),
        "{refused}"
    );
}
