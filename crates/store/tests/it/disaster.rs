//! What is lost can be recovered, what is damaged is named, and an old copy cannot fork history.

use std::path::{Path, PathBuf};

use semel_model::digest::Digest;
use semel_model::entry::{Change, HoldReleased, Leaf};
use semel_model::note::Checkpoint;
use semel_store::ledger::{self, AppendError};
use semel_store::projections;
use semel_store::{OpenError, Place, Store, audit, backup, recover};

use super::world;
use crate::{actor, fill, now};

#[expect(clippy::disallowed_methods, reason = "the tests damage stores on purpose")]
fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "the tests damage stores on purpose")]
fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).unwrap();
}

async fn dump(store: &Store) -> Vec<(&'static str, Vec<String>)> {
    projections::dump(&mut store.reader().await.unwrap()).await.unwrap()
}

fn entry_file(store: &Store) -> PathBuf {
    std::fs::read_dir(store.dir().join("ledger")).unwrap().next().unwrap().unwrap().path()
}

/// Some change.
fn release() -> Change {
    Change::HoldReleased(HoldReleased { environment: "production".parse().unwrap(), component: None })
}

#[tokio::test]
async fn a_deleted_database_is_recovered_from_files_identically() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 20).await;
    let before = dump(&store).await;
    let head = ledger::head(&mut store.reader().await.unwrap()).await.unwrap();
    store.close().await;
    drop(store);
    world.lose_database();
    assert!(matches!(Store::open(&world.place()).await, Err(OpenError::NoDatabase { .. })));
    let recovered = recover::recover(&world.place()).await.unwrap();
    assert_eq!((recovered.entries, recovered.taken), (head.size, head.size));
    let store = Store::open(&world.place()).await.unwrap();
    assert_eq!(dump(&store).await, before);
    assert_eq!(ledger::head(&mut store.reader().await.unwrap()).await.unwrap(), head);
    assert_eq!(audit::verify(&store).await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test]
async fn a_rebuild_changes_nothing_and_mends_an_edited_table() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 5).await;
    let before = dump(&store).await;
    recover::rebuild(&store).await.unwrap();
    assert_eq!(dump(&store).await, before);
    let mut turn = store.turn().await.unwrap();
    turn.db().execute("UPDATE version SET digest = 'sha256:0' WHERE name = '1.0.3'", &[]).await.unwrap();
    turn.append(Vec::new()).await.unwrap();
    let problems = audit::verify(&store).await.unwrap().problems;
    assert!(problems.len() == 1 && problems[0].contains("table version"), "{problems:?}");
    recover::rebuild(&store).await.unwrap();
    assert_eq!(dump(&store).await, before);
}

#[tokio::test]
async fn an_older_copy_refuses_to_sign_and_catches_up_from_the_newer_files() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 3).await;
    let saved = world.path().join("backup");
    let copied = backup::backup(&store, &saved, now()).await.unwrap();
    assert_eq!(copied.blobs, 3);
    assert_eq!(backup::backup(&store, &saved, now()).await.unwrap().kept, 3);
    let who = actor(&store).await;
    store.turn().await.unwrap().record(&who, now(), vec![release()]).await.unwrap();
    let newer = std::fs::read(entry_file(&store)).unwrap();

    let elsewhere = world.place_of("restored");
    backup::restore(&saved, &elsewhere).await.unwrap();
    let old = Store::open(&elsewhere).await.unwrap();
    let refused = old.turn().await.unwrap().record(&who, now(), vec![release()]).await;
    assert!(matches!(refused, Err(AppendError::Behind { .. })), "{refused:?}");
    write(&entry_file(&old), &newer);
    assert_eq!(recover::recover(&elsewhere).await.unwrap().taken, 1);
    old.turn().await.unwrap().record(&who, now(), vec![release()]).await.unwrap();
    assert_eq!(audit::verify(&old).await.unwrap().problems, Vec::<String>::new());
}

/// As when database and keys are brought back from a backup, and the entry files were not lost.
#[tokio::test]
async fn an_older_copy_with_keys_as_old_is_told_by_its_files_that_it_is_one() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 3).await;
    let saved = world.path().join("backup");
    backup::backup(&store, &saved, now()).await.unwrap();
    let who = actor(&store).await;
    store.turn().await.unwrap().record(&who, now(), vec![release()]).await.unwrap();
    let newer = std::fs::read(entry_file(&store)).unwrap();

    let other = world.elsewhere();
    backup::restore(&saved, &other.place()).await.unwrap();
    let old = Store::open(&other.place()).await.unwrap();
    write(&entry_file(&old), &newer);
    let refused = old.turn().await.unwrap().record(&who, now(), vec![release()]).await;
    assert!(matches!(refused, Err(AppendError::OtherFiles { .. })), "{refused:?}");
    assert_eq!(std::fs::read(entry_file(&old)).unwrap(), newer);
    assert_eq!(recover::recover(&other.place()).await.unwrap().taken, 1);
    old.turn().await.unwrap().record(&who, now(), vec![release()]).await.unwrap();
    assert_eq!(audit::verify(&old).await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_added_to_the_entry_files_of_another_store() {
    let Some(world) = world() else { return };
    for theirs in [1, 5] {
        let (store, other) = (world.new_store().await, world.elsewhere());
        let foreign = other.new_store().await;
        fill(&foreign, theirs).await;
        let file = entry_file(&store);
        let own = std::fs::read(&file).unwrap();
        let bytes = std::fs::read(entry_file(&foreign)).unwrap();
        write(&file, &bytes);
        let who = actor(&foreign).await;
        // Another process, which does not know where the files end.
        let store = Store::open(&world.place()).await.unwrap();
        let refused = store.turn().await.unwrap().record(&who, now(), vec![release()]).await;
        assert!(matches!(refused, Err(AppendError::OtherFiles { .. })), "{refused:?}");
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
        write(&file, &own);
        store.turn().await.unwrap().record(&who, now(), vec![release()]).await.unwrap();
        assert_eq!(audit::verify(&store).await.unwrap().problems, Vec::<String>::new());
    }
}

/// Power went before the newest checkpoint beside the keys was on the disk.
#[tokio::test]
async fn the_memory_of_the_key_catches_up_with_the_ledger() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 1).await;
    let remembered = async |store: &Store| {
        store.close().await;
        store.keys().last_checkpoint().unwrap().unwrap()
    };
    let lost = remembered(&store).await;
    let store = Store::open(&world.place()).await.unwrap();
    store.turn().await.unwrap().record(&actor(&store).await, now(), vec![release()]).await.unwrap();
    let newest = remembered(&store).await;
    assert_ne!(lost, newest);
    store.keys().remember_checkpoint(&lost).unwrap();
    let store = Store::open(&world.place()).await.unwrap();
    assert_eq!(remembered(&store).await, newest);
    assert_eq!(audit::verify(&Store::open(&world.place()).await.unwrap()).await.unwrap().problems, [""; 0]);
}

#[tokio::test]
async fn the_memory_of_the_key_is_not_replaced_by_another_history() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 1).await;
    let other = Checkpoint { origin: store.origin().to_owned(), size: 2, root: [7; 32] };
    let other = other.sign(&store.keys().ledger_key(store.ledger_key().as_ref()).unwrap());
    store.keys().remember_checkpoint(&other).unwrap();
    store.close().await;
    let store = Store::open(&world.place()).await.unwrap();
    assert_eq!(store.keys().last_checkpoint().unwrap().unwrap(), other);
    let refused = store.turn().await.unwrap().append(vec![Leaf::Signature(b"{}".to_vec())]).await;
    assert!(matches!(refused, Err(AppendError::Forked { signed: 2 })), "{refused:?}");
}

#[tokio::test]
async fn a_restored_store_on_another_machine_has_its_keys_and_goes_on() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 2).await;
    backup::backup(&store, &world.path().join("backup"), now()).await.unwrap();
    let other = world.elsewhere();
    backup::restore(&world.path().join("backup"), &other.place()).await.unwrap();
    let restored = Store::open(&other.place()).await.unwrap();
    assert_eq!(actor(&restored).await, actor(&store).await);
    assert_eq!(audit::verify(&restored).await.unwrap().problems, Vec::<String>::new());
    let again = backup::restore(&world.path().join("backup"), &other.place()).await;
    assert!(matches!(again, Err(backup::BackupError::NotEmpty(_))));
}

#[tokio::test]
async fn a_copy_without_keys_reads_and_refuses_to_write() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 1).await;
    drop(store);
    let mut without = world.place();
    without.keys = world.path().join("no-keys");
    let copy = Store::open(&without).await.unwrap();
    assert_eq!(audit::verify(&copy).await.unwrap().problems, Vec::<String>::new());
    let refused = copy.turn().await.unwrap().append(vec![Leaf::Signature(b"{}".to_vec())]).await;
    assert!(matches!(refused, Err(AppendError::Key(_))), "{refused:?}");
}

/// Everything that is stored × every way of damaging it: `audit verify` names it.
#[tokio::test]
async fn every_damage_to_what_is_stored_is_named() {
    type Damage = fn(&[u8]) -> Option<Vec<u8>>;
    let damages: [(&str, Damage); 3] = [
        ("deleted", |_| None),
        ("truncated", |bytes| Some(bytes[..bytes.len() / 2].to_vec())),
        ("flipped", |bytes| {
            let mut bytes = bytes.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            Some(bytes)
        }),
    ];
    for what in ["blob", "entries"] {
        for (how, damage) in damages {
            let Some(world) = world() else { return };
            let store = world.new_store().await;
            fill(&store, 4).await;
            let path = match what {
                "blob" => store.blobs().path(&third()),
                _ => entry_file(&store),
            };
            match damage(&std::fs::read(&path).unwrap()) {
                Some(bytes) => write(&path, &bytes),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let report = audit::verify(&store).await.unwrap();
            assert!(!report.problems.is_empty(), "{what} {how}");
        }
    }
}

#[tokio::test]
async fn files_that_fell_behind_are_brought_level_by_the_next_append() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 4).await;
    let file = entry_file(&store);
    let whole = std::fs::read(&file).unwrap();
    // As after a crash between the database's commit and the end of the file's write.
    write(&file, &whole[..whole.len() - 100]);
    let who = actor(&store).await;
    store.turn().await.unwrap().record(&who, now(), vec![release()]).await.unwrap();
    assert!(std::fs::read(&file).unwrap().starts_with(&whole));
    assert_eq!(audit::verify(&store).await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_made_while_others_record_goes_on_where_it_was_made() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 2).await;
    let busy = Store::open(&world.place()).await.unwrap();
    let writer = tokio::spawn(async move {
        let who = actor(&busy).await;
        for _ in 0..60 {
            busy.turn().await.unwrap().record(&who, now(), vec![release()]).await.unwrap();
        }
    });
    let saved = world.path().join("backup");
    backup::backup(&store, &saved, now()).await.unwrap();
    writer.await.unwrap();
    let other = world.elsewhere();
    backup::restore(&saved, &other.place()).await.unwrap();
    let restored = Store::open(&other.place()).await.unwrap();
    let who = actor(&restored).await;
    restored.turn().await.unwrap().record(&who, now(), vec![release()]).await.unwrap();
    assert_eq!(audit::verify(&restored).await.unwrap().problems, Vec::<String>::new());
}

/// The third blob that [`fill`] stores.
fn third() -> Digest {
    Digest::of(&crate::manifest(2))
}

#[tokio::test]
async fn a_restore_that_was_broken_off_is_no_store_and_goes_on() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 3).await;
    let saved = world.path().join("backup");
    backup::backup(&store, &saved, now()).await.unwrap();
    let other = world.elsewhere();
    let Place { dir, keys, .. } = other.place();
    backup::restore(&saved, &other.place()).await.unwrap();
    // As it is when half of the keys and of the blobs are there, and a file is being written.
    rename(&dir.join("store.json"), &dir.join("restoring.json"));
    drop(std::fs::remove_file(dir.join("semel.db")));
    std::fs::remove_file(dir.join(store.blobs().path(&third()).strip_prefix(store.dir()).unwrap())).unwrap();
    rename(&keys.join(store.id()), &keys.join(format!(".tmp-{}", store.id())));
    std::fs::remove_file(keys.join(format!(".tmp-{}/ledger", store.id()))).unwrap();
    write(&dir.join("ledger/.tmp-copy-1"), b"half of it");

    let opened = Store::open_or_create(&other.place(), now()).await;
    assert!(matches!(opened, Err(OpenError::HalfRestored(_))), "{opened:?}");
    let copied = backup::restore(&saved, &other.place()).await.unwrap();
    assert_eq!((copied.blobs, copied.kept), (1, 2));
    let restored = Store::open(&other.place()).await.unwrap();
    let who = actor(&restored).await;
    restored.turn().await.unwrap().record(&who, now(), vec![release()]).await.unwrap();
    assert_eq!(audit::verify(&restored).await.unwrap().problems, Vec::<String>::new());
    assert_eq!(
        std::fs::read_dir(dir.join("ledger")).unwrap().count(),
        1,
        "nothing is left of the first attempt"
    );
    assert!(matches!(backup::restore(&saved, &other.place()).await, Err(backup::BackupError::NotEmpty(_))));
}

#[tokio::test]
async fn a_copy_without_its_empty_directories_is_a_store_all_the_same() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 1).await;
    store.close().await;
    for name in ["trash", "uploads"] {
        std::fs::remove_dir_all(store.dir().join(name)).unwrap();
    }
    let store = Store::open(&world.place()).await.unwrap();
    let blob = store.blobs().put(b"something new").unwrap().digest;
    store.blobs().discard(&blob).unwrap();
    assert_eq!(store.blobs().trashed().unwrap().len(), 1);
}

#[tokio::test]
async fn a_backup_that_was_broken_off_leaves_the_one_before_it_whole() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 2).await;
    let saved = world.path().join("backup");
    let entries = backup::backup(&store, &saved, now()).await.unwrap().entries;
    let who = actor(&store).await;
    store.turn().await.unwrap().record(&who, now(), vec![release()]).await.unwrap();
    // The disk fails in the middle of the blobs.
    let path = store.blobs().path(&third());
    std::fs::create_dir_all(&path).unwrap();
    backup::backup(&store, &saved, now()).await.unwrap_err();
    let other = world.elsewhere();
    assert_eq!(backup::restore(&saved, &other.place()).await.unwrap().entries, entries);
    let restored = Store::open(&other.place()).await.unwrap();
    assert_eq!(audit::verify(&restored).await.unwrap().problems, Vec::<String>::new());

    std::fs::remove_dir(&path).unwrap();
    backup::backup(&store, &saved, now()).await.unwrap();
    let left =
        std::fs::read_dir(saved.join("store")).unwrap().chain(std::fs::read_dir(saved.join("keys")).unwrap());
    let left: Vec<_> = left.map(|item| item.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".tmp-")), "{left:?}");
}

#[tokio::test]
async fn what_is_damaged_is_named_and_not_copied_as_if_it_were_whole() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 4).await;
    let path = store.blobs().path(&third());
    let whole = std::fs::read(&path).unwrap();
    let damaged: Vec<u8> = whole.iter().map(|byte| byte ^ 1).collect();
    write(&path, &damaged);
    let saved = world.path().join("backup");
    assert_eq!(backup::backup(&store, &saved, now()).await.unwrap().damaged, [third()]);
    write(&path, &whole);
    let copied = backup::backup(&store, &saved, now()).await.unwrap();
    assert_eq!((copied.blobs, copied.damaged), (1, Vec::new()), "what was healed is copied");

    write(&saved.join("store").join(path.strip_prefix(store.dir()).unwrap()), &damaged);
    let restored = backup::restore(&saved, &world.elsewhere().place()).await.unwrap();
    assert_eq!(restored.damaged, [third()]);
}
