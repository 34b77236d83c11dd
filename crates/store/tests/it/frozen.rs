//! Stores of every released format are read for ever.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use semel_store::ledger;
use semel_store::projections::{self, artefact, deployment};
use semel_store::{Place, Store, audit, recover};

/// The formats that were released, with the number of entries that each example has.
const RELEASED: [(&str, u64); 1] = [("store-1", 80)];

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        if item.file_type().unwrap().is_dir() {
            copy(&item.path(), &to.join(item.file_name()));
        } else {
            std::fs::copy(item.path(), to.join(item.file_name())).unwrap();
        }
    }
}

/// A copy of a frozen store, on a machine that does not have its keys.
pub(crate) fn thawed(name: &str, dir: &Path) -> Place {
    let place = Place::embedded(dir.join("store"), dir.join("keys"));
    copy(&testdata().join(name), &place.dir);
    for empty in ["uploads", "trash"] {
        std::fs::create_dir_all(place.dir.join(empty)).unwrap();
    }
    place
}

#[test]
fn every_frozen_store_is_covered() {
    let there: BTreeSet<String> = std::fs::read_dir(testdata())
        .unwrap()
        .map(|item| item.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("store-"))
        .collect();
    assert_eq!(there, RELEASED.iter().map(|(name, _)| (*name).to_owned()).collect());
}

#[tokio::test]
async fn a_frozen_store_verifies_answers_and_is_recovered_identically() {
    for (name, entries) in RELEASED {
        let dir = tempfile::tempdir().unwrap();
        let place = thawed(name, dir.path());
        let store = Store::open(&place).await.unwrap();
        let report = audit::verify(&store).await.unwrap();
        assert_eq!((report.problems, report.entries), (Vec::new(), entries), "{name}");
        let mut conn = store.reader().await.unwrap();
        let component = "frozen/service".parse().unwrap();
        let version =
            artefact::version(&mut conn, &component, &"0.1.0".parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(
            version.digest.as_str(),
            "sha256:6741484ae986e72b19478303a6132c2a68173dd5cb1295a88dcd6fc932481441"
        );
        let runs =
            deployment::nth_success(&mut conn, &component, &"production".parse().unwrap(), 0).await.unwrap();
        assert_eq!(runs.unwrap().rollback_of, Some(3));
        let head = ledger::head(&mut conn).await.unwrap();
        assert_eq!(hex::encode(head.root), FROZEN_ROOT);
        let before = projections::dump(&mut conn).await.unwrap();
        drop(conn);
        recover::rebuild(&store).await.unwrap();
        assert_eq!(
            projections::dump(&mut store.reader().await.unwrap()).await.unwrap(),
            before,
            "{name} rebuilt"
        );
        store.close().await;
        drop(store);
        for file in ["semel.db", "semel.db-wal", "semel.db-shm"] {
            drop(std::fs::remove_file(place.dir.join(file)));
        }
        assert_eq!(recover::recover(&place).await.unwrap().entries, entries);
        let store = Store::open(&place).await.unwrap();
        assert_eq!(
            projections::dump(&mut store.reader().await.unwrap()).await.unwrap(),
            before,
            "{name} recovered"
        );
    }
}

const FROZEN_ROOT: &str = "e927347dcb6320542535387f79cc3379383bfa4bb187e7451c69b0a9a571513c";
