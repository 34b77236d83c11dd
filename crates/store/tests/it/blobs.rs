//! Blobs: verified before they are visible, never rewritten, healed by good bytes.

use bytes::Bytes;
use futures_util::stream;
use proptest::prelude::*;
use semel_model::digest::{Algorithm, Digest};
use semel_store::Store;
use semel_store::blobs::BlobError;
use semel_store::durable::{self, Access};

use crate::world::World;

fn pieces(
    parts: &[&'static [u8]],
) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Unpin + use<> {
    stream::iter(parts.iter().map(|part| Ok(Bytes::from_static(part))).collect::<Vec<_>>())
}

#[tokio::test]
async fn bytes_are_visible_only_under_their_own_digest() {
    let world = World::on_sqlite();
    let store = world.new_store().await;
    let wrong = Digest::of(b"other");
    let refused = store.blobs().put_stream(pieces(&[b"se", b"mel"]), &wrong).await;
    assert!(matches!(refused, Err(BlobError::WrongDigest { found, .. }) if found == Digest::of(b"semel")));
    assert!(!store.blobs().contains(&wrong) && !store.blobs().contains(&Digest::of(b"semel")));
    assert!(store.blobs().uploads().files().unwrap().is_empty());

    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let digest = Digest::of_with(algorithm, b"semel");
        assert!(store.blobs().put_stream(pieces(&[b"se", b"mel"]), &digest).await.unwrap().fresh);
        assert!(!store.blobs().put_stream(pieces(&[b"semel"]), &digest).await.unwrap().fresh);
        assert_eq!(store.blobs().read(&digest).unwrap(), b"semel");
    }
}

#[tokio::test]
async fn a_small_blob_is_stored_only_under_the_digest_that_was_announced() {
    let world = World::on_sqlite();
    let store = world.new_store().await;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let (digest, wrong) = (Digest::of_with(algorithm, b"semel"), Digest::of_with(algorithm, b"other"));
        let refused = store.blobs().put_announced(b"semel", &wrong).await;
        assert!(matches!(refused, Err(BlobError::WrongDigest { found, .. }) if found == digest));
        assert!(!store.blobs().contains(&wrong) && !store.blobs().contains(&digest));
        assert!(store.blobs().put_announced(b"semel", &digest).await.unwrap().fresh);
        assert!(!store.blobs().put_announced(b"semel", &digest).await.unwrap().fresh);
        assert_eq!(store.blobs().read(&digest).unwrap(), b"semel");
    }
    assert!(store.blobs().uploads().files().unwrap().is_empty());
}

#[tokio::test]
async fn any_algorithm_checks_an_upload_whatever_was_announced_for_it() {
    let world = World::on_sqlite();
    let store = world.new_store().await;
    let both = [Algorithm::Sha256, Algorithm::Sha512];
    for (announced, algorithm) in both.into_iter().flat_map(|one| both.map(|other| (one, other))) {
        let id = store.blobs().begin_upload().unwrap();
        store.blobs().expect_algorithm(&id, announced).unwrap();
        assert_eq!(store.blobs().append_to_upload(&id, 0, Bytes::from_static(b"se")).await.unwrap(), 2);
        let refused = store.blobs().append_to_upload(&id, 1, Bytes::from_static(b"x")).await;
        assert!(matches!(refused, Err(BlobError::OutOfOrder { have: 2, start: 1 })));
        assert_eq!(store.blobs().extend_upload(&id, Some(2), pieces(&[b"m", b"el"])).await.unwrap(), 5);
        let digest = Digest::of_with(algorithm, b"semel");
        store.blobs().finish_upload(&id, &digest).await.unwrap();
        assert_eq!(store.blobs().read(&digest).unwrap(), b"semel");
    }
}

#[tokio::test]
async fn a_damaged_blob_is_named_and_healed_by_good_bytes() {
    let world = World::on_sqlite();
    let store = world.new_store().await;
    let digest = store.blobs().put(b"precious").unwrap().digest;
    for damage in [b"precioux".as_slice(), b"prec", b""] {
        #[expect(clippy::disallowed_methods, reason = "the test damages the store on purpose")]
        std::fs::write(store.blobs().path(&digest), damage).unwrap();
        assert!(matches!(store.blobs().read(&digest), Err(BlobError::Damaged(_))));
        assert!(matches!(store.blobs().verify(&digest), Err(BlobError::Damaged(_))));
        assert!(store.blobs().put(b"precious").unwrap().fresh);
        assert_eq!(store.blobs().verify(&digest).unwrap(), 8);
    }
}

#[tokio::test]
async fn an_upload_survives_its_process_and_refuses_pieces_out_of_order() {
    let world = World::on_sqlite();
    let store = world.new_store().await;
    let id = store.blobs().begin_upload().unwrap();
    assert_eq!(store.blobs().extend_upload(&id, Some(0), pieces(&[b"sem"])).await.unwrap(), 3);
    let refused = store.blobs().extend_upload(&id, Some(7), pieces(&[b"x"])).await;
    assert!(matches!(refused, Err(BlobError::OutOfOrder { have: 3, start: 7 })));
    // Another process knows nothing of the running hash.
    let moved = hex::encode([7u8; 16]);
    let (from, to) = (store.blobs().uploads().path(&id), store.blobs().uploads().path(&moved));
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test plays another process")]
    std::fs::rename(from, to).unwrap();
    store.blobs().extend_upload(&moved, Some(3), pieces(&[b"el"])).await.unwrap();
    assert_eq!(store.blobs().finish_upload(&moved, &Digest::of(b"semel")).await.unwrap().size, 5);
    assert!(matches!(store.blobs().upload_size(&moved), Err(BlobError::UnknownUpload(_))));
    assert!(matches!(store.blobs().upload_size("../../semel.db"), Err(BlobError::UnknownUpload(_))));
}

#[tokio::test]
async fn one_server_at_a_time_works_on_an_upload_and_what_is_published_stays_as_it_is() {
    let world = World::on_sqlite();
    let (one, other) = (world.new_store().await, Store::open(&world.place()).await.unwrap());
    let id = one.blobs().begin_upload().unwrap();
    let (to_one, body) = tokio::sync::mpsc::channel::<Bytes>(1);
    let body = stream::unfold(body, async |mut body| Some((Ok(body.recv().await?), body)));
    let adding = tokio::spawn({
        let (blobs, id) = (one.blobs().clone(), id.clone());
        async move { blobs.extend_upload(&id, Some(0), Box::pin(body)).await }
    });
    to_one.send(Bytes::from_static(b"sem")).await.unwrap();
    while other.blobs().upload_size(&id).unwrap() < 3 {
        tokio::task::yield_now().await;
    }
    let digest = Digest::of(b"semel");
    let busy = |refused| matches!(refused, BlobError::BusyUpload(busy) if busy == id);
    assert!(busy(other.blobs().extend_upload(&id, Some(3), pieces(&[b"el"])).await.unwrap_err()));
    assert!(busy(other.blobs().append_to_upload(&id, 3, Bytes::from_static(b"el")).await.unwrap_err()));
    assert!(busy(other.blobs().finish_upload(&id, &Digest::of(b"sem")).await.unwrap_err()));
    drop(to_one);
    assert_eq!(adding.await.unwrap().unwrap(), 3);
    other.blobs().append_to_upload(&id, 3, Bytes::from_static(b"el")).await.unwrap();
    other.blobs().finish_upload(&id, &digest).await.unwrap();

    // A crash after the link leaves the name of the session.
    std::fs::hard_link(one.blobs().path(&digest), one.blobs().uploads().path(&id)).unwrap();
    let refused = one.blobs().append_to_upload(&id, 5, Bytes::from_static(b"x")).await;
    assert!(matches!(refused, Err(BlobError::UnknownUpload(_))));
    assert!(!one.blobs().finish_upload(&id, &digest).await.unwrap().fresh);
    assert_eq!(one.blobs().verify(&digest).unwrap(), 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_cut_into_pieces_gives_the_same_blob(content in proptest::collection::vec(any::<u8>(), 0..5_000), cut in 1usize..700) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::on_sqlite();
            let store = world.new_store().await;
            let digest = Digest::of(&content);
            let parts: Vec<_> = content.chunks(cut).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
            store.blobs().put_stream(stream::iter(parts), &digest).await.unwrap();
            assert_eq!(store.blobs().read(&digest).unwrap(), content);
        });
    }
}

#[tokio::test]
async fn blobs_that_are_stored_together_are_all_there_also_when_two_are_the_same() {
    let world = World::on_sqlite();
    let store = world.new_store().await;
    let blobs = store.blobs();
    let parts: [&[u8]; 4] = [b"one", b"two", b"one", b"{}"];
    let stored = blobs.put_all(&parts).unwrap();
    for (stored, bytes) in stored.iter().zip(parts) {
        assert_eq!(stored.digest, Digest::of(bytes));
        assert_eq!(blobs.read(&stored.digest).unwrap(), bytes);
    }
    assert_eq!(stored.len(), parts.len());
    assert!(store.blobs().uploads().files().unwrap().is_empty());
}

#[tokio::test]
async fn what_cannot_be_listed_is_not_taken_for_empty() {
    let world = World::on_sqlite();
    let store = world.new_store().await;
    let digest = store.blobs().put(b"semel").unwrap().digest;
    let listed = store.blobs().list().unwrap();
    assert!(listed.contains(&digest), "nothing is listed of a kind of which nothing was ever stored");
    durable::create(&store.dir().join("blobs/sha512"), b"in the way", Access::Shared).unwrap();
    assert_eq!(store.blobs().list().unwrap_err().kind(), std::io::ErrorKind::NotADirectory);
}
