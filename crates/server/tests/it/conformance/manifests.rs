//! Artefacts of every form: taken as they are, and given back byte for byte.

use bytes::Bytes;
use semel_model::digest::{Algorithm, Digest};
use semel_oci::descriptor::Descriptor;
use semel_oci::media_type;
use serde_json::{Value, json};

use super::{ALGORITHMS, Document, Registry};
use crate::refused;

const ARTEFACT: &str = "application/vnd.example.thing.v1";
const FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

/// What is pushed together: blobs first, then manifests, each of which needs only what was before it.
pub(super) struct Set {
    pub(super) name: &'static str,
    pub(super) blobs: Vec<Bytes>,
    pub(super) manifests: Vec<Document>,
}

impl Set {
    fn new(name: &'static str, blobs: &[&'static str], manifests: Vec<Document>) -> Self {
        Self {
            name,
            blobs: blobs.iter().map(|blob| Bytes::from_static(blob.as_bytes())).collect(),
            manifests,
        }
    }

    pub(super) async fn push_blobs(&self, registry: &Registry) {
        for blob in &self.blobs {
            registry.push_blob(blob.clone()).await;
        }
    }
}

fn descriptor(media_type: &str, content: &str) -> Descriptor {
    Descriptor::of(media_type, content.as_bytes())
}

/// An image manifest, with further fields or others instead.
fn image(changes: &Value) -> Document {
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, "{\"os\":\"linux\"}"),
        "layers": [descriptor(media_type::OCI_LAYER_GZIP, "layer one"), descriptor(media_type::OCI_LAYER_GZIP, "layer two")],
    });
    for (field, value) in changes.as_object().unwrap() {
        document[field] = value.clone();
    }
    Document::new(document["mediaType"].as_str().unwrap(), &document)
}

const IMAGE: [&str; 3] = ["{\"os\":\"linux\"}", "layer one", "layer two"];

fn index(manifests: &[&Document], changes: &Value) -> Document {
    let plain = Document::index(manifests);
    let mut document: Value = serde_json::from_slice(&plain.bytes).unwrap();
    for (field, value) in changes.as_object().unwrap() {
        document[field] = value.clone();
    }
    Document::new(document["mediaType"].as_str().unwrap(), &document)
}

pub(super) fn sets() -> Vec<Set> {
    [images(), indexes(), artefacts(), subjects(), docker()].into_iter().flatten().collect()
}

fn images() -> Vec<Set> {
    let uncompressed = json!([descriptor(media_type::OCI_LAYER_TAR, "layer one")]);
    let zstd = json!([descriptor(media_type::OCI_LAYER_ZSTD, "layer one")]);
    let annotations: serde_json::Map<String, Value> =
        (0..390).map(|number| (format!("org.example.{number}"), json!("x".repeat(10_000)))).collect();
    let embedded = json!({"mediaType": "text/plain", "digest": Digest::of(b"at hand"), "size": 7, "data": "YXQgaGFuZA=="});
    let unknown = json!({"org.example": {"deep": [1, 2.5e3, null, "é\u{7f}"]}, "layers": [], "Zeta": true});
    let elsewhere = json!([
        {"mediaType": FOREIGN, "digest": Digest::of(b"elsewhere"), "size": 9, "urls": ["https://example.com/x"]},
        descriptor(DOCKER_FOREIGN, "elsewhere too"),
    ]);
    vec![
        Set::new("image", &IMAGE, vec![image(&json!({}))]),
        Set::new("uncompressed", &IMAGE, vec![image(&json!({"layers": uncompressed}))]),
        Set::new("zstd", &IMAGE, vec![image(&json!({"layers": zstd}))]),
        Set::new("large", &IMAGE, vec![image(&json!({"annotations": annotations}))]),
        Set::new("data", &IMAGE, vec![image(&json!({"layers": [embedded]}))]),
        Set::new("unknown-fields", &IMAGE, vec![image(&unknown)]),
        Set::new("no-layers", &IMAGE, vec![image(&json!({"layers": []}))]),
        Set::new("elsewhere", &IMAGE, vec![image(&json!({"layers": elsewhere}))]),
    ]
}

fn indexes() -> Vec<Set> {
    let amd64 = image(&json!({"annotations": {"for": "amd64"}}));
    let arm64 = image(&json!({"annotations": {"for": "arm64"}}));
    let both = index(&[&amd64, &arm64], &json!({"annotations": {"org.example": "both"}}));
    let nested = Document::index(&[&both]);
    let parts = vec![amd64, arm64, both];
    let empty = Document::index(&[]);
    vec![
        Set::new("index", &IMAGE, parts.clone()),
        Set::new("nested-index", &IMAGE, [parts, vec![nested]].concat()),
        Set::new("empty-index", &[], vec![empty]),
    ]
}

fn artefacts() -> Vec<Set> {
    let empty = || Descriptor::empty();
    let thing = image(&json!({"artifactType": ARTEFACT, "config": empty(), "layers": [empty()]}));
    let without = image(&json!({"artifactType": ARTEFACT, "config": empty(), "layers": []}));
    let list = index(&[&thing], &json!({"artifactType": ARTEFACT}));
    vec![
        Set::new("artefact", &["{}"], vec![thing.clone()]),
        Set::new("artefact-without-layers", &["{}"], vec![without]),
        Set::new("artefact-index", &["{}"], vec![thing, list]),
    ]
}

fn subjects() -> Vec<Set> {
    let subject = image(&json!({}));
    let missing = descriptor(media_type::OCI_MANIFEST, "not here");
    let about = |subject: &Descriptor| image(&json!({"artifactType": ARTEFACT, "subject": subject}));
    let list_about = index(&[], &json!({"subject": subject.descriptor()}));
    vec![
        Set::new("subject", &IMAGE, vec![subject.clone(), about(&subject.descriptor()), list_about]),
        Set::new("missing-subject", &IMAGE, vec![about(&missing)]),
    ]
}

/// Docker's manifest version 2, schema 2, and its list.
fn docker() -> Vec<Set> {
    let config = descriptor("application/vnd.docker.container.image.v1+json", IMAGE[0]);
    let layer = descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", "layer one");
    let image =
        image(&json!({"mediaType": media_type::DOCKER_MANIFEST, "config": config, "layers": [layer]}));
    let mut entry = serde_json::to_value(image.descriptor()).unwrap();
    entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
    let list = index(&[], &json!({"mediaType": media_type::DOCKER_MANIFEST_LIST, "manifests": [entry]}));
    vec![Set::new("docker", &IMAGE, vec![image.clone()]), Set::new("docker-list", &IMAGE, vec![image, list])]
}

/// The `subject` that a document names.
pub(super) fn subject_of(manifest: &Document) -> String {
    let document: Value = serde_json::from_slice(&manifest.bytes).unwrap();
    document["subject"]["digest"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn every_form_of_artefact_is_taken_and_given_back_byte_for_byte() {
    for set in sets() {
        let registry = Registry::new().await;
        set.push_blobs(&registry).await;
        for manifest in &set.manifests {
            let digest = manifest.digest();
            for reference in [digest.as_str(), set.name, digest.as_str()] {
                let heard = registry.put(reference, manifest).await;
                assert_eq!(heard.status, 201, "{}: {heard:?}", set.name);
                assert_eq!(heard.header("docker-content-digest"), digest.as_str(), "{}", set.name);
                assert_eq!(heard.header("location"), registry.path(&format!("manifests/{digest}")));
                assert_eq!(heard.header("oci-subject"), subject_of(manifest), "{}", set.name);
                assert_eq!(heard.header("oci-tag"), "", "no tag was given by a parameter");
            }
            for reference in [digest.as_str(), set.name] {
                assert_served(&registry, reference, manifest).await;
            }
        }
        assert_eq!(registry.get("tags/list").await.json()["tags"], json!([set.name]));
    }
}

async fn assert_served(registry: &Registry, reference: &str, manifest: &Document) {
    let digest = manifest.digest();
    let path = registry.path(&format!("manifests/{reference}"));
    for method in ["GET", "HEAD"] {
        let heard = registry.send(method, &path, &[("accept", "*/*")], "").await;
        assert_eq!(heard.status, 200, "{method} {path}");
        assert_eq!(heard.body, if method == "GET" { manifest.bytes.clone() } else { Bytes::new() });
        for (header, value) in [
            ("content-type", manifest.media_type.clone()),
            ("content-length", manifest.bytes.len().to_string()),
            ("docker-content-digest", digest.to_string()),
            ("etag", format!("\"{digest}\"")),
        ] {
            assert_eq!(heard.header(header), value, "{method} {path} {header}");
        }
        assert_eq!(heard.header("cache-control").contains("immutable"), reference == digest.as_str());
    }
}

#[tokio::test]
async fn a_manifest_may_be_stored_under_its_sha512() {
    let registry = Registry::new().await;
    let image = registry.prepare("content").await;
    let digest = Digest::of_with(Algorithm::Sha512, &image.bytes);
    let heard = registry.put(digest.as_str(), &image).await;
    assert_eq!((heard.status, heard.header("docker-content-digest")), (201, digest.as_str()));
    let heard = registry.get(&format!("manifests/{digest}")).await;
    assert_eq!((&heard.body, heard.header("docker-content-digest")), (&image.bytes, digest.as_str()));

    // All of it, down to the layers.
    let [config, layer] =
        [b"{}".as_slice(), b"a layer"].map(|bytes| Digest::of_with(Algorithm::Sha512, bytes));
    registry.push_blob_as(Algorithm::Sha512, "{}").await;
    registry.push_blob_as(Algorithm::Sha512, "a layer").await;
    let image = image_of(&config, &layer);
    let digest = Digest::of_with(Algorithm::Sha512, &image.bytes);
    assert_eq!(registry.put(digest.as_str(), &image).await.status, 201);
    assert_eq!(registry.get(&format!("manifests/{digest}")).await.body, image.bytes);
}

/// A client that pushes by tag says no digest, and means sha256: the same bytes are no overwrite, whatever they are called.
#[tokio::test]
async fn a_version_that_is_bound_under_sha512_is_the_same_when_its_bytes_are_pushed_by_tag() {
    let registry = Registry::new().await;
    let (image, other) = (registry.prepare("content").await, registry.prepare("other").await);
    let sha512 = Digest::of_with(Algorithm::Sha512, &image.bytes);
    assert_eq!(registry.put(&format!("{sha512}?tag=1.0.0"), &image).await.status, 201);
    for reference in ["1.0.0".to_owned(), format!("{}?tag=1.0.0", Digest::of(&image.bytes))] {
        let again = registry.put(&reference, &image).await;
        assert_eq!(again.status, 201, "{reference}: {again:?}");
        let digest = again.header("docker-content-digest").to_owned();
        assert_eq!(registry.get(&format!("manifests/{digest}")).await.body, image.bytes);
        let named = registry.get("manifests/1.0.0").await;
        assert_eq!(named.header("docker-content-digest"), sha512.as_str(), "it means what it meant");
        assert_eq!(registry.put("1.0.0", &other).await.refusal(), refused(409, "DENIED"));
    }
}

fn image_of(config: &Digest, layer: &Digest) -> Document {
    image(&json!({
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": config, "size": 2},
        "layers": [{"mediaType": media_type::OCI_LAYER_TAR, "digest": layer, "size": 7}],
    }))
}

#[tokio::test]
async fn a_push_by_digest_gives_as_many_tags_as_it_names_and_says_which() {
    let registry = Registry::new().await;
    let image = registry.prepare("content").await;
    for algorithm in ALGORITHMS {
        let digest = Digest::of_with(algorithm, &image.bytes);
        let tags: Vec<String> = (0..12).map(|number| format!("{}-{number}", algorithm.as_str())).collect();
        let parameters: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
        let heard = registry.put(&format!("{digest}?{}", parameters.join("&")), &image).await;
        assert_eq!((heard.status, heard.header("docker-content-digest")), (201, digest.as_str()));
        let accepted = heard.headers.get_all("oci-tag").iter().map(|tag| tag.to_str().unwrap());
        assert_eq!(accepted.collect::<Vec<_>>(), tags);
        for tag in tags {
            let heard = registry.head(&format!("manifests/{tag}")).await;
            assert_eq!((heard.status, heard.header("docker-content-digest")), (200, digest.as_str()));
        }
    }
}

#[tokio::test]
async fn too_many_tags_at_once_and_what_is_no_tag_are_refused_before_anything_is_stored() {
    let registry = Registry::new().await;
    let image = registry.prepare("content").await;
    let digest = image.digest();
    let many: Vec<String> = (0..65).map(|number| format!("tag=t{number}")).collect();
    let cases = [
        (many.join("&"), 414, "UNSUPPORTED"),
        ("tag=-x".to_owned(), 400, "NAME_INVALID"),
        ("tag=good&tag=".to_owned(), 400, "NAME_INVALID"),
        (format!("tag={}", "x".repeat(129)), 400, "NAME_INVALID"),
    ];
    for (query, status, code) in cases {
        let heard = registry.put(&format!("{digest}?{query}"), &image).await;
        assert_eq!(heard.refusal(), refused(status, code), "{query}");
        assert_eq!(registry.get(&format!("manifests/{digest}")).await.status, 404, "{query}");
    }
}

#[tokio::test]
async fn a_manifest_is_taken_only_with_what_it_needs() {
    let registry = Registry::new().await;
    let contents = ["config", "layer"].map(|part| format!("{part} of {}", registry.component));
    let [config, layer] = contents.each_ref().map(|content| descriptor(media_type::OCI_LAYER_TAR, content));
    let image = image(&json!({"config": config, "layers": [layer]}));
    let list = Document::index(&[&image]);
    for content in contents {
        let heard = registry.put("latest", &image).await;
        assert_eq!(heard.refusal(), refused(400, "MANIFEST_BLOB_UNKNOWN"));
        assert_eq!(heard.detail()["digest"], Digest::of(content.as_bytes()).as_str());
        registry.push_blob(content).await;
    }
    let heard = registry.put("latest", &list).await;
    assert_eq!(heard.refusal(), refused(400, "MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(heard.detail()["digest"], image.digest().as_str());
    assert_eq!(registry.get("manifests/latest").await.status, 404);
    assert_eq!(registry.put(image.digest().as_str(), &image).await.status, 201);
    assert_eq!(registry.put("latest", &list).await.status, 201);
}

/// Two readers would see two artefacts; whoever copies such an index stops at it.
#[tokio::test]
async fn an_index_says_of_its_parts_what_they_are() {
    let registry = Registry::new().await;
    let image = registry.prepare("content").await;
    assert_eq!(registry.put(image.digest().as_str(), &image).await.status, 201);
    let list = |media_type: &str, more: u64| {
        let right = image.descriptor();
        let part = Descriptor::new(media_type, right.digest, right.size + more);
        Document::new(
            media_type::OCI_INDEX,
            &json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [part]}),
        )
    };
    for (media_type, more, code) in [
        (media_type::OCI_INDEX, 0, "MANIFEST_INVALID"),
        (media_type::DOCKER_MANIFEST, 0, "MANIFEST_INVALID"),
        (media_type::OCI_MANIFEST, 1, "SIZE_INVALID"),
    ] {
        let heard = registry.put("latest", &list(media_type, more)).await;
        assert_eq!(heard.refusal(), refused(400, code), "{media_type} {more}");
    }
    assert_eq!(registry.put("latest", &list(media_type::OCI_MANIFEST, 0)).await.status, 201);
}

#[tokio::test]
async fn what_is_no_manifest_is_refused_and_says_why() {
    let registry = Registry::new().await;
    for blob in IMAGE {
        registry.push_blob(blob).await;
    }
    let oci = media_type::OCI_MANIFEST;
    let good = String::from_utf8(image(&json!({})).bytes.to_vec()).unwrap();
    let first = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let schema_one =
        json!({"schemaVersion": 1, "name": "x", "tag": "y", "fsLayers": [], "history": []}).to_string();
    let cases = [
        (oci, String::new(), "well-formed"),
        (oci, "{".to_owned(), "well-formed"),
        (oci, "[]".to_owned(), "well-formed"),
        (oci, good[..good.len() - 1].to_owned(), "well-formed"),
        (oci, format!("{good}{good}"), "well-formed"),
        (first, schema_one.clone(), "schemaVersion is 1"),
        (oci, schema_one, "schemaVersion is 1"),
        ("text/plain", good.clone(), "text/plain"),
        (media_type::OCI_INDEX, good.clone(), media_type::OCI_INDEX),
        (oci, json!({"schemaVersion": 2, "mediaType": oci}).to_string(), "lacks `config`"),
    ];
    for (media_type, bytes, why) in cases {
        let manifest = Document { bytes: bytes.clone().into(), media_type: media_type.to_owned() };
        let heard = registry.put("latest", &manifest).await;
        assert_eq!(heard.refusal(), refused(400, "MANIFEST_INVALID"), "{bytes}");
        assert!(heard.message().contains(why), "{} should say: {why}", heard.message());
    }
    let good = image(&json!({}));
    for wrong in ALGORITHMS.map(|algorithm| Digest::of_with(algorithm, b"another")) {
        assert_eq!(registry.put(wrong.as_str(), &good).await.refusal(), refused(400, "DIGEST_INVALID"));
        assert_eq!(registry.get(&format!("manifests/{wrong}")).await.status, 404);
    }
    let heard = registry.put("sha256:baddigeststring", &good).await;
    assert_eq!(heard.refusal(), refused(400, "DIGEST_INVALID"));
    let heard = registry.get("manifests/sha256:baddigeststring").await;
    assert_eq!(heard.refusal(), refused(400, "DIGEST_INVALID"));
    assert_eq!(registry.get("tags/list").await.status, 404, "nothing was stored");
}

#[tokio::test]
async fn a_manifest_may_be_large_but_not_endless() {
    let registry = Registry::new().await;
    for blob in IMAGE {
        registry.push_blob(blob).await;
    }
    let sized = |size: usize| {
        let plain = image(&json!({"annotations": {"": ""}})).bytes.len();
        let manifest = image(&json!({"annotations": {"": "x".repeat(size - plain)}}));
        assert_eq!(manifest.bytes.len(), size);
        manifest
    };
    let mib = 1024 * 1024;
    let manifest = sized(4 * mib);
    assert_eq!(registry.put("large", &manifest).await.status, 201);
    assert_served(&registry, "large", &manifest).await;
    for size in [4 * mib + 1, 10 * mib] {
        assert_eq!(
            registry.put("endless", &sized(size)).await.refusal(),
            refused(413, "SIZE_INVALID"),
            "{size}"
        );
    }
    assert_eq!(registry.get("manifests/endless").await.status, 404);
}

#[tokio::test]
async fn a_media_type_may_stand_in_the_body_alone() {
    let registry = Registry::new().await;
    let image = registry.prepare("content").await;
    let path = registry.path("manifests/latest");
    assert_eq!(registry.send("PUT", &path, &[], image.bytes.clone()).await.status, 201);
    assert_served(&registry, "latest", &image).await;
    let spelled = format!("{}; charset=utf-8", image.media_type);
    let heard = registry.send("PUT", &path, &[("content-type", &spelled)], image.bytes.clone()).await;
    assert_eq!(heard.status, 201);
    assert_served(&registry, "latest", &image).await;
}

#[tokio::test]
async fn what_is_not_here_is_unknown_by_name_and_by_digest() {
    let registry = Registry::new().await;
    let image = registry.push("latest", "content").await;
    let other = registry.beside("other");
    let absent = Digest::of(b"absent");
    let here = [absent.to_string(), "none".to_owned(), "-x".to_owned(), "x".repeat(129)];
    for reference in here {
        let rest = format!("manifests/{reference}");
        assert_eq!(registry.get(&rest).await.refusal(), refused(404, "MANIFEST_UNKNOWN"), "{reference}");
        let heard = registry.head(&rest).await;
        assert_eq!((heard.status, heard.body.len()), (404, 0), "{reference}");
    }
    // What is stored in one component is not in another.
    for reference in [image.digest().as_str(), "latest"] {
        let heard = other.get(&format!("manifests/{reference}")).await;
        assert_eq!(heard.refusal(), refused(404, "NAME_UNKNOWN"), "{reference}");
    }
}
