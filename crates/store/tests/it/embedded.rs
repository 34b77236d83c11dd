//! What only a database that is a file can suffer.

use std::path::Path;

use semel_model::entry::{Change, HoldReleased};
use semel_store::{OpenError, Store, audit, projections, recover};

use crate::world::World;
use crate::{actor, fill, now};

#[expect(clippy::disallowed_methods, reason = "the tests damage stores on purpose")]
fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

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
    write(&journal, &kept);
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

/// A file that is no database any more, one whose pages are damaged, and one with other entries in it.
#[tokio::test]
async fn a_damaged_database_is_put_aside_and_made_anew() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 3] = [
        ("zeros", |path| write(path, &vec![0; 65_536])),
        ("half", |path| {
            let bytes = std::fs::read(path).unwrap();
            write(path, &bytes[..bytes.len() / 2]);
        }),
        ("another entry", |path| {
            let bytes = std::fs::read(path).unwrap();
            let at = bytes.windows(8).position(|part| part == br#""HoldSet"#).unwrap();
            write(path, &[&bytes[..at + 1], b"X", &bytes[at + 2..]].concat());
        }),
    ];
    for (how, damage) in damages {
        let world = World::on_sqlite();
        let store = world.new_store().await;
        fill(&store, 4).await;
        let who = actor(&store).await;
        let before = projections::dump(&mut store.reader().await.unwrap()).await.unwrap();
        store.close().await;
        drop(store);
        let database = world.place().dir.join("semel.db");
        damage(&database);
        let damaged = std::fs::read(&database).unwrap();

        let release = HoldReleased { environment: "production".parse().unwrap(), component: None };
        // What one that was killed left.
        let left = world.place().dir.join(".tmp-recover-1");
        write(&left, b"half of it");
        let recovered = recover::recover(&world.place()).await.unwrap();
        assert!(!left.exists(), "{how}");
        assert_eq!(recovered.taken, recovered.entries, "{how}");
        let aside = recovered.aside.unwrap_or_else(|| panic!("{how}: it is kept"));
        assert_eq!(std::fs::read(aside).unwrap(), damaged, "{how}");
        let store = Store::open(&world.place()).await.unwrap();
        assert_eq!(projections::dump(&mut store.reader().await.unwrap()).await.unwrap(), before, "{how}");
        store.turn().await.unwrap().record(&who, now(), vec![Change::HoldReleased(release)]).await.unwrap();
        assert_eq!(audit::verify(&store).await.unwrap().problems, Vec::<String>::new(), "{how}");
        assert_eq!(recover::recover(&world.place()).await.unwrap().aside, None, "{how}: once is enough");
    }
}
