//! Wrong bytes are refused and named, and nothing that runs is touched; what a crash left is done again.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use semel_model::deployment::{Plan, RunState, drift};
use semel_targets::directory::{Depth, Outcome};

use crate::place::{Artefact, DEPLOY, Place, STAYS, Shelf, layer, of_layer, other_service, service};

async fn refused(place: &Place, generation: u64, artefact: &Artefact, shelf: Shelf) -> String {
    match place.converge(&place.order(generation, artefact, &[]), &shelf).await.unwrap() {
        Outcome::Errored { reason, restored: None } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_is_refused_and_named() {
    let place = Place::new();
    let before = place.deploy(1, &service(true), &[]).await;
    let artefact = other_service("new");
    let layer = artefact.blobs[&artefact.layer].clone();
    let mut flipped = layer.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let longer = [layer.as_slice(), b"and more"].concat();
    let cases =
        [layer[..layer.len() / 2].to_vec(), layer[..0].to_vec(), flipped, longer, b"something else".to_vec()];
    for (generation, bytes) in (2..).zip(cases) {
        let reason =
            refused(&place, generation, &artefact, Shelf::of(&artefact).with(&artefact.layer, bytes)).await;
        assert!(reason.contains(&format!("blob {} is damaged", artefact.layer)), "{reason}");
    }
    let now = place.observe(Depth::Full).await;
    assert_eq!((now.key, now.since), (before.key, before.since));
    assert!(!place.store(&artefact).exists());
    place.deploy(9, &artefact, &[]).await;
}

/// Its digest is right: whoever stored it stored these bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_broken_in_itself_is_refused_and_nothing_of_it_stays() {
    let place = Place::new();
    let whole = layer(&[("/app/run", STAYS)]);
    // RFC 1952, 2.3.1: the checksum is behind everything that is unpacked.
    let mut flipped = whole.clone();
    flipped[whole.len() - 8] ^= 1;
    let longer = [whole.as_slice(), b"and more behind it"].concat();
    let plain = b"not compressed".to_vec();
    for (generation, (layer, said)) in (1..).zip([
        (flipped, "corrupt gzip stream does not have a matching checksum"),
        (longer, "invalid gzip header"),
        (plain, "it is not compressed, and its media type says that it is compressed with gzip"),
    ]) {
        let artefact = of_layer(layer, &serde_json::json!({"v": 1, "entrypoint": ["/app/run"]}));
        let reason = refused(&place, generation, &artefact, Shelf::of(&artefact)).await;
        let expected =
            format!("cannot unpack layer {}: cannot read the layer's tar stream: {said}", artefact.layer);
        assert_eq!(reason, expected);
        assert_eq!(std::fs::read_dir(place.root.join("store")).unwrap().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_missing_and_a_manifest_that_is_another_are_named() {
    let place = Place::new();
    let mut artefact = service(true);
    artefact.blobs.remove(&artefact.layer);
    let reason = refused(&place, 1, &artefact, Shelf::of(&artefact)).await;
    assert!(
        reason.contains(&format!("cannot fetch blob {}: there is no such blob", artefact.layer)),
        "{reason}"
    );
    let mut order = place.order(2, &artefact, &[]);
    order.manifest.push(b' ');
    let outcome = place.converge(&order, &Shelf::of(&artefact)).await.unwrap();
    let Outcome::Errored { reason, .. } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("it was damaged on its way"), "{reason}");
    assert_eq!(place.observe(Depth::Full).await.state, RunState::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_leads_out_of_itself_is_refused() {
    let place = Place::new();
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..10].copy_from_slice(b"../../evil");
    header.set_size(1);
    header.set_mode(0o755);
    header.set_cksum();
    builder.append(&header, &b"x"[..]).unwrap();
    let layer = builder.into_inner().unwrap().finish().unwrap();
    let artefact = of_layer(layer, &serde_json::json!({"v": 1, "entrypoint": ["/evil"]}));
    let reason = refused(&place, 1, &artefact, Shelf::of(&artefact)).await;
    assert!(reason.contains("`../../evil` leads out of the artefact"), "{reason}");
    assert!(!place.root.join("evil").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_with_a_loader_of_its_own_is_sent_to_podman() {
    let place = Place::new();
    let mut elf = vec![0_u8; 120];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[32..40].copy_from_slice(&64_u64.to_le_bytes());
    elf[54..56].copy_from_slice(&56_u16.to_le_bytes());
    elf[56..58].copy_from_slice(&1_u16.to_le_bytes());
    elf[64..68].copy_from_slice(&3_u32.to_le_bytes());
    elf[72..80].copy_from_slice(&120_u64.to_le_bytes());
    elf[96..104].copy_from_slice(&10_u64.to_le_bytes());
    elf.write_all(b"/lib/ld.so").unwrap();
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, content) in [("app", elf.as_slice()), ("lib/ld.so", b"loader")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, path, content).unwrap();
    }
    let layer = builder.into_inner().unwrap().finish().unwrap();
    let artefact = of_layer(layer, &serde_json::json!({"v": 1, "entrypoint": ["/app"]}));
    let reason = refused(&place, 1, &artefact, Shelf::of(&artefact)).await;
    assert!(reason.contains("/lib/ld.so inside the artefact") && reason.contains("podman"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_behind_is_swept_and_done_again() {
    let place = Place::new();
    let artefact = service(true);
    place.deploy(1, &artefact, &[]).await;
    // Unpacked, but the record that comes last is not there; and half a release under a temporary name.
    let new = other_service("new");
    std::fs::create_dir_all(place.store(&new).join("half")).unwrap();
    std::fs::create_dir_all(place.root.join("store/.tmp-1-1/half")).unwrap();
    std::fs::create_dir_all(place.root.join("generations/.tmp-1-2")).unwrap();
    place.deploy(2, &new, &[]).await;
    assert!(!place.store(&new).join("half").exists());
    for dir in ["store", "generations"] {
        let names = std::fs::read_dir(place.root.join(dir)).unwrap().map(|e| e.unwrap().file_name());
        assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with(".tmp-")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_fence_and_the_link_is_repaired_by_the_same_order() {
    let place = Place::new();
    let (old, new) = (service(true), other_service("new"));
    place.deploy(1, &old, &[]).await;
    let key = place.order(2, &new, &[]).desired.key;
    let fence = serde_json::json!({
        "newest": {"generation": {"ledger": 2, "step": 0}, "key": key},
        "current": {"ledger": 2, "step": 0},
    });
    std::fs::write(place.root.join("fence.json"), fence.to_string()).unwrap();
    let outcome = place.converge(&place.order(2, &new, &[]), &Shelf::of(&new)).await.unwrap();
    let Outcome::Succeeded { plan: Plan::Switch, observed, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(observed.artefact, Some(new.digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_lays_an_edited_release_out_anew() {
    let mut place = Place::new();
    let good = other_service("good");
    place.deploy(1, &good, &[]).await;
    place.healthy_within = semel_model::duration::Span::seconds(1);
    let bad = service(false);
    crate::place::edit(&place.store(&good).join("app/note"), "not what was built");
    let shelf =
        good.blobs.iter().fold(Shelf::of(&bad), |shelf, (digest, bytes)| shelf.with(digest, bytes.clone()));
    let outcome = place.converge(&place.order(2, &bad, &[]), &shelf).await.unwrap();
    let Outcome::Failed { restored, reason, .. } = outcome else { panic!("{outcome:?}") };
    assert!(restored.is_some(), "{reason}");
    assert_eq!(std::fs::read(place.store(&good).join("app/note")).unwrap(), b"good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_killed_at_any_moment_is_completed_by_the_same_order() {
    let place = Place::new();
    place.deploy(1, &service(true), &[]).await;
    let mut cut_short = 0;
    for round in 0..24_u64 {
        let generation = round + 2;
        let mut deploying = tokio::process::Command::new(std::env::current_exe().unwrap());
        deploying.args(["a_deployment_is_this_binary_told_which_generation", "--exact"]);
        deploying.env(DEPLOY, format!("{generation} {}", place.root.display()));
        let mut deploying = deploying.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Spread over the whole of a deployment, which takes about this long.
        let killed = tokio::time::timeout(Duration::from_millis(4 * round), deploying.wait()).await.is_err();
        cut_short += u32::from(killed);
        deploying.kill().await.unwrap();
        let artefact = other_service(&generation.to_string());
        place.deploy(generation, &artefact, &[]).await;
        let desired = place.order(generation, &artefact, &[]).desired;
        assert_eq!(drift(&desired, Some(&place.observe(Depth::Full).await)), [], "after {} ms", 4 * round);
    }
    assert!(cut_short > 3, "many were to be cut short: {cut_short}");
}
