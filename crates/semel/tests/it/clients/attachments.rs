//! Tags such as `sha256-….sig`, under which cosign keeps signatures where a registry has no referrers.

use semel_model::digest::Digest;
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::manifest::ImageManifest;
use semel_oci::media_type;

use super::curl::Curl;
use super::story::Client as _;
use super::{Shop, succeeded};
use crate::environment::has;

/// What cosign calls the layers of a signature.
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

#[test]
fn signatures_are_added_under_their_tag_and_never_removed() {
    if !has("curl") {
        return;
    }
    let shop = Shop::open();
    let curl = Curl(&shop);
    curl.make("first");
    succeeded("push", curl.push("first", &shop.reference("1.4.2")));
    for suffix in ["sig", "att", "sbom"] {
        let tag = format!("{}.{suffix}", shop.digest("1.4.2").replace(':', "-"));
        let mut pushed = Vec::new();
        for signatures in [&["ana"][..], &["ana", "ben"]] {
            let manifest = signed_by(&curl, signatures);
            succeeded(&tag, curl.manifest(&tag, media_type::OCI_MANIFEST, &manifest));
            assert_eq!(shop.manifest(&tag).body, manifest.as_bytes(), "{tag} shows what was added");
            pushed.push(manifest);
        }
        let fewer = curl.manifest(&tag, media_type::OCI_MANIFEST, &signed_by(&curl, &["ben"]));
        assert!(fewer.code != 0 && fewer.stdout.contains("DENIED"), "{tag} loses nothing: {fewer:?}");
        let deleted = ["--request", "DELETE", "--output", "/dev/null", "--write-out", "%{http_code}"];
        assert_eq!(curl.ask(&deleted, &format!("manifests/{tag}"), "").stdout, "405", "{tag}");
        for manifest in pushed {
            let digest = Digest::of(manifest.as_bytes());
            assert_eq!(shop.manifest(digest.as_str()).body, manifest.as_bytes(), "{tag} keeps {digest}");
        }
    }
    shop.environment.ok(&["audit", "verify"]);
}

/// A manifest with one layer for each signature.
fn signed_by(curl: &Curl<'_>, signatures: &[&str]) -> String {
    let layer = |name: &&str| {
        let payload = format!("{{\"signed by\":\"{name}\"}}");
        curl.blob(&payload);
        Descriptor::of(SIMPLE_SIGNING, payload.as_bytes())
    };
    curl.blob("{}");
    let manifest = ImageManifest {
        artifact_type: None,
        config: Descriptor::of(media_type::OCI_CONFIG, b"{}"),
        layers: signatures.iter().map(layer).collect(),
        subject: None,
        annotations: Annotations::new(),
    };
    String::from_utf8(manifest.encode().bytes.to_vec()).unwrap()
}
