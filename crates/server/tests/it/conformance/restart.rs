//! What a client began goes on when the server has come back.

use semel_model::digest::Digest;

use super::{ALGORITHMS, Registry};
use crate::{House, pattern};

/// The same store under a server that knows nothing of the one before.
async fn come_back(registry: Registry, house: House) -> (Registry, House) {
    let House { directory, .. } = house;
    let house = House::on(directory).await;
    (Registry { transport: house.transport.clone(), ..registry }, house)
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart() {
    for algorithm in ALGORITHMS {
        let Some((registry, house)) = Registry::own().await else { return };
        let bytes = pattern(300_000);
        let digest = Digest::of_with(algorithm, &bytes);
        let upload = registry.start().await;
        for (range, chunk) in [("0-999", bytes.slice(..1_000)), ("1000-99999", bytes.slice(1_000..100_000))] {
            let heard = registry.send("PATCH", &upload, &[("content-range", range)], chunk).await;
            assert_eq!(heard.status, 202);
        }

        let (registry, _house) = come_back(registry, house).await;
        let heard = registry.send("GET", &upload, &[], "").await;
        assert_eq!(
            (heard.status, heard.header("location"), heard.header("range")),
            (204, &*upload, "0-99999")
        );
        let again =
            registry.send("PATCH", &upload, &[("content-range", "0-999")], bytes.slice(..1_000)).await;
        assert_eq!((again.status, again.header("range")), (416, "0-99999"));
        let headers = [("content-range", "100000-199999")];
        let heard = registry.send("PATCH", &upload, &headers, bytes.slice(100_000..200_000)).await;
        assert_eq!((heard.status, heard.header("range")), (202, "0-199999"));
        let headers = [("content-range", "200000-299999")];
        let finish = format!("{upload}?digest={digest}");
        let heard = registry.send("PUT", &finish, &headers, bytes.slice(200_000..)).await;
        assert_eq!(heard.status, 201, "{heard:?}");
        assert_eq!(registry.get(&format!("blobs/{digest}")).await.body, bytes);
    }
}

#[tokio::test]
async fn what_was_accepted_is_there_after_a_restart() {
    let Some((registry, house)) = Registry::own().await else { return };
    let image = registry.push("1.0.0", "content").await;
    registry.put("latest", &image).await;
    let (registry, _house) = come_back(registry, house).await;
    for reference in ["1.0.0", "latest", image.digest().as_str()] {
        assert_eq!(registry.get(&format!("manifests/{reference}")).await.body, image.bytes, "{reference}");
    }
    assert_eq!(registry.get(&format!("blobs/{}", Digest::of(b"content"))).await.body, "content");
}
