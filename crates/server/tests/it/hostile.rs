//! Hostile requests: one test for each attack, named after it, with the case where it worked elsewhere.
//!
//! Where bytes on the wire matter, a socket is used; otherwise the router in this process. What concerns unpacking is in
//! `semel_targets::directory::unpack`; what concerns parsing also in the properties of `fuzz/`.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Request;
use semel_model::digest::{Algorithm, Digest};
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::manifest::{Index, MAX_MANIFEST_BYTES};
use semel_oci::media_type::{DOCKER_MANIFEST, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST};
use semel_oci::transport::Body;
use semel_server::App;
use semel_server::limits::{Limits, Reserve};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::serving::Open;
use crate::{Heard, House, image, now, pattern, refused};

const UPLOADS: &str = "/v2/shop/api/blobs/uploads/";

/// No disk has so much left.
const FULL: Reserve = Reserve { bytes: u64::MAX, percent: 100 };

impl House {
    async fn put_as(&self, reference: &str, media_type: &str, body: impl Into<Bytes>) -> Heard {
        let path = format!("/v2/shop/api/manifests/{reference}");
        self.send("PUT", &path, &[("content-type", media_type)], body).await
    }

    async fn upload(&self) -> String {
        let heard = self.send("POST", UPLOADS, &[], "").await;
        assert_eq!(heard.status, 202, "{heard:?}");
        heard.header("location").to_owned()
    }

    /// The same store behind another server.
    fn behind(&self, limits: Limits) -> Self {
        let app = App::limited(self.store.clone(), now, "ana", limits);
        let transport = semel_oci::transport::Transport::in_process(semel_server::router(app.clone()));
        let directory = tempfile::tempdir().unwrap();
        Self { directory, store: self.store.clone(), app, transport }
    }

    fn session_file(&self, upload: &str) -> PathBuf {
        self.store.blobs().uploads().path(upload.rsplit('/').next().unwrap())
    }
}

impl Open {
    /// Sends bytes as they are, and reads until the server hangs up.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut heard = Vec::new();
        // A server that hangs up in the middle of a request may do so with a reset.
        let _ = stream.read_to_end(&mut heard).await;
        String::from_utf8_lossy(&heard).into_owned()
    }
}

/// The statuses of all answers on one connection.
fn statuses(heard: &str) -> Vec<u16> {
    heard.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().unwrap()).collect()
}

/// Lets time pass until a task ends.
async fn let_time_pass<T>(task: impl Future<Output = T> + Send + 'static) -> T
where
    T: Send + 'static,
{
    tokio::time::pause();
    let task = tokio::spawn(task);
    while !task.is_finished() {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    tokio::time::resume();
    task.await.unwrap()
}

/// CVE-2026-31801 (zot): who could create could overwrite, by a name that was a special case.
#[tokio::test]
async fn a_name_overwritten_by_a_push() {
    let house = House::new().await;
    for name in ["1.0.0", "v2.0.0", "3.0.0-rc.1", "sha-4f1c2ab"] {
        let (one, two) = (format!("{name} one"), format!("{name} two"));
        let (one, two) = (house.prepare(&one).await, house.prepare(&two).await);
        let both = futures_util::future::join(house.put(name, &one), house.put(name, &two)).await;
        let mut answers = [both.0, both.1];
        answers.sort_by_key(|heard| heard.status);
        assert_eq!(answers[0].status, 201, "{name}");
        assert_eq!(answers[1].refusal(), refused(409, "DENIED"), "{name}");
        let bound = answers[1].detail()["bound"].clone();
        assert_eq!(answers[0].header("docker-content-digest"), bound, "{name}");
        let winner = if bound == one.descriptor.digest.as_str() { one } else { two };
        assert_eq!(house.put(name, &winner).await.status, 201, "{name}: the same again is no overwrite");
        assert_eq!(house.get(&format!("/v2/shop/api/manifests/{name}")).await.body, winner.bytes);
    }
}

/// CVE-2026-41888 (distribution): deleting a tag went another way than deleting a manifest, past the rule.
#[tokio::test]
async fn a_name_freed_by_deleting_it() {
    let house = House::new().await;
    let bound = house.push("1.0.0", "bound").await;
    let other = house.prepare("other").await;
    for reference in ["1.0.0", bound.descriptor.digest.as_str()] {
        let heard = house.send("DELETE", &format!("/v2/shop/api/manifests/{reference}"), &[], "").await;
        assert_eq!(heard.refusal(), refused(405, "UNSUPPORTED"), "{reference}");
        assert_eq!(house.put("1.0.0", &other).await.refusal(), refused(409, "DENIED"));
        assert_eq!(house.get("/v2/shop/api/manifests/1.0.0").await.body, bound.bytes);
    }
}

/// What runs is named by its digest: a channel that moves takes nothing with it.
#[tokio::test]
async fn a_channel_moved_under_those_who_use_it() {
    let house = House::new().await;
    let (old, new) = (house.push("stable", "old").await, house.push("stable", "new").await);
    assert_eq!(house.get("/v2/shop/api/manifests/stable").await.body, new.bytes);
    let heard = house.get(&format!("/v2/shop/api/manifests/{}", old.descriptor.digest)).await;
    assert_eq!((heard.status, heard.body), (200, old.bytes));
}

/// One content has one spelling of its digest, and it is computed here.
#[tokio::test]
async fn a_digest_in_another_spelling() {
    let house = House::new().await;
    let digest = house.push_blob("semel").await;
    let sha512 = Digest::of_with(Algorithm::Sha512, b"semel");
    let spellings = [
        digest.as_str().to_uppercase(),
        format!("sha256:{}", digest.hex().to_uppercase()),
        digest.as_str()[..70].to_owned(),
        format!("{digest}0"),
        format!("sha512:{}", digest.hex()),
        format!("sha256:{}", sha512.hex()),
        format!("sha1:{}", &digest.hex()[..40]),
        format!("sha256+b64:{}", digest.hex()),
        format!("sha256:sha256:{}", digest.hex()),
        format!("sha256:..%2f..%2f{}", &digest.hex()[..58]),
        format!("%20{digest}"),
        digest.hex().to_owned(),
    ];
    for spelling in spellings {
        let cases = [
            ("GET", format!("/v2/shop/api/blobs/{spelling}"), ""),
            ("GET", format!("/v2/shop/api/referrers/{spelling}"), ""),
            ("POST", format!("{UPLOADS}?digest={spelling}"), "semel"),
            ("PUT", format!("{}?digest={spelling}", house.upload().await), "semel"),
        ];
        for (method, path, body) in cases {
            let heard = house.send(method, &path, &[], body).await;
            // An escaped slash makes the path another one.
            let code = if heard.status == 404 { (404, "UNSUPPORTED") } else { (400, "DIGEST_INVALID") };
            assert_eq!(heard.refusal(), refused(code.0, code.1), "{method} {path}");
        }
    }
    let two = format!("{UPLOADS}?digest={digest}&digest={sha512}");
    assert_eq!(house.send("POST", &two, &[], "semel").await.refusal(), refused(400, "DIGEST_INVALID"));
    let one = image("semel", None);
    let claimed = Digest::of(b"something else");
    house.prepare("semel").await;
    let heard = house.put(claimed.as_str(), &one).await;
    assert_eq!(heard.refusal(), refused(400, "DIGEST_INVALID"), "a digest is computed, not believed");
}

/// CVE-2021-41190: a document that one client reads as an image and another one as an index.
#[tokio::test]
async fn a_manifest_that_is_two_things() {
    let house = House::new().await;
    let image: Value = serde_json::from_slice(&house.prepare("semel").await.bytes).unwrap();
    let with = |changes: Value| {
        let mut document = image.clone();
        document.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        document.to_string()
    };
    let cases = [
        (OCI_MANIFEST, with(json!({"manifests": []}))),
        (OCI_INDEX, with(json!({"manifests": []}))),
        (OCI_INDEX, with(json!({"mediaType": null, "manifests": []}))),
        ("", with(json!({"mediaType": null, "manifests": []}))),
        (OCI_INDEX, with(json!({}))),
        (DOCKER_MANIFEST, with(json!({}))),
        (OCI_MANIFEST, with(json!({"mediaType": OCI_INDEX}))),
        (OCI_MANIFEST, with(json!({"mediaType": "application/json"}))),
        ("application/json", with(json!({"mediaType": null}))),
        (OCI_MANIFEST, with(json!({"MediaType": OCI_INDEX}))),
        (OCI_MANIFEST, with(json!({"fsLayers": []}))),
        (OCI_MANIFEST, with(json!({"schemaVersion": 1}))),
    ];
    for (sent, body) in cases {
        let heard = house.put_as("1.0.0", sent, body.clone()).await;
        assert_eq!(heard.refusal(), refused(400, "MANIFEST_INVALID"), "{sent}: {body}");
    }
    let twice = [("content-type", OCI_MANIFEST), ("content-type", OCI_INDEX)];
    let heard = house.send("PUT", "/v2/shop/api/manifests/1.0.0", &twice, image.to_string()).await;
    assert_eq!(heard.refusal(), refused(400, "UNSUPPORTED"), "which of two types holds is nobody's guess");
    let heard = house.put_as("1.0.0", OCI_MANIFEST, image.to_string()).await;
    assert_eq!(heard.status, 201);
    let accept = [("accept", OCI_INDEX)];
    let heard = house.send("GET", "/v2/shop/api/manifests/1.0.0", &accept, "").await;
    assert_eq!(
        heard.header("content-type"),
        OCI_MANIFEST,
        "what was stored as one type is served as no other"
    );
}

/// Parser differentials: of what one reader takes the first and another one the last, neither is taken.
#[tokio::test]
async fn json_that_two_parsers_read_differently() {
    let house = House::new().await;
    let good = String::from_utf8(house.prepare("semel").await.bytes.to_vec()).unwrap();
    let inside = |text: &str| good.replacen('{', &format!("{{\"x\":{text},"), 1).into_bytes();
    let mut broken_text = inside("\"?\"");
    *broken_text.iter_mut().find(|byte| **byte == b'?').unwrap() = 0xff;
    let cases = [
        ("a key twice", good.replacen('{', "{\"schemaVersion\":2,", 1).into_bytes()),
        ("a key twice, once escaped", good.replacen('{', "{\"schema\\u0056ersion\":2,", 1).into_bytes()),
        ("a key twice inside", inside("[{\"a\":1,\"a\":1}]")),
        ("a byte order mark", [b"\xef\xbb\xbf", good.as_bytes()].concat()),
        ("no UTF-8", broken_text),
        ("half a surrogate pair", inside("\"\\ud800\"")),
        ("no number", inside("NaN")),
        ("a number beyond all", inside("1e999")),
        ("a leading zero", inside("01")),
        ("a comment", inside("/* */1")),
        ("a comma too many", inside("[1,]")),
        ("another document behind", [good.as_bytes(), b"{}"].concat()),
        ("a zero byte behind", [good.as_bytes(), b"\0"].concat()),
        ("33 levels", inside(&format!("{}{}", "[".repeat(33), "]".repeat(33)))),
        ("100,000 levels", "[".repeat(100_000).into_bytes()),
        ("300,000 values", inside(&format!("[{}0]", "0,".repeat(300_000)))),
        ("an array", format!("[{good}]").into_bytes()),
        ("nothing", Vec::new()),
    ];
    for (what, body) in cases {
        let heard = house.put_as("1.0.0", OCI_MANIFEST, body).await;
        assert_eq!(heard.refusal(), refused(400, "MANIFEST_INVALID"), "{what}");
    }
    let heard = house.put_as("1.0.0", OCI_MANIFEST, good + &" ".repeat(MAX_MANIFEST_BYTES)).await;
    assert_eq!(heard.refusal(), refused(413, "SIZE_INVALID"));
    assert_eq!(house.get("/v2/shop/api/manifests/1.0.0").await.status, 404, "nothing was stored");
}

/// Sizes that overflow, lists without end, a manifest that is part of itself.
#[tokio::test]
async fn descriptors_that_say_the_impossible() {
    let house = House::new().await;
    let blob = house.push_blob("semel").await;
    let layer = |size: &str| {
        format!(
            "{{\"schemaVersion\":2,\"config\":{{\"mediaType\":\"x\",\"digest\":\"{blob}\",\"size\":5}},\
             \"layers\":[{{\"mediaType\":\"{OCI_LAYER_GZIP}\",\"digest\":\"{blob}\",\"size\":{size}}}]}}"
        )
    };
    for size in [
        "-1",
        "9007199254740992",
        "9223372036854775808",
        "18446744073709551616",
        "5.0",
        "5e0",
        "\"5\"",
        "null",
    ] {
        let heard = house.put_as("1.0.0", OCI_MANIFEST, layer(size)).await;
        assert_eq!(heard.refusal(), refused(400, "MANIFEST_INVALID"), "{size}");
    }
    let entry = serde_json::to_string(&Descriptor::of(OCI_LAYER_GZIP, b"semel")).unwrap();
    let crowd = |count| format!("{{\"schemaVersion\":2,\"manifests\":[{}]}}", vec![&*entry; count].join(","));
    let heard = house.put_as("many", OCI_INDEX, crowd(20_000)).await;
    assert_eq!(heard.status, 201, "as many as fit are stored in one request");
    let heard = house.put_as("many", OCI_INDEX, crowd(100_000)).await;
    assert_eq!(heard.refusal(), refused(413, "SIZE_INVALID"));

    let itself = Digest::of(b"a digest that the manifest cannot have");
    let child = Descriptor::new(OCI_MANIFEST, itself.clone(), 100);
    let index =
        Index { artifact_type: None, manifests: vec![child], subject: None, annotations: Annotations::new() };
    let heard = house.put(itself.as_str(), &index.encode()).await;
    assert_eq!(heard.refusal(), refused(400, "DIGEST_INVALID"));
}

/// A manifest before its content would be a promise that a pull breaks.
#[tokio::test]
async fn a_manifest_without_its_content() {
    let house = House::new().await;
    let manifest = image("never pushed", None);
    let entry = Descriptor::of(OCI_MANIFEST, &manifest.bytes);
    let index =
        Index { artifact_type: None, manifests: vec![entry], subject: None, annotations: Annotations::new() };
    for manifest in [manifest, index.encode()] {
        let heard = house.put("1.0.0", &manifest).await;
        assert_eq!(heard.refusal().1, "MANIFEST_BLOB_UNKNOWN");
        assert_eq!(house.get("/v2/shop/api/manifests/1.0.0").await.status, 404);
    }
}

/// "Billion laughs": each level names the one below many times, and who follows every name is not done in a year. This one
/// takes seconds when each artefact is looked at once, and half an hour otherwise, with the store locked.
#[tokio::test]
async fn an_index_that_names_one_index_again_and_again() {
    let house = House::new().await;
    let index = |manifests: Vec<Descriptor>| {
        Index { artifact_type: None, manifests, subject: None, annotations: Annotations::new() }.encode()
    };
    let mut images = Vec::new();
    for number in 0..64 {
        let image = house.push(&format!("c{number}"), &number.to_string()).await;
        images.push(image.descriptor);
    }
    let one = index(images);
    assert_eq!(house.put("one", &one).await.status, 201);
    let many = index(vec![one.descriptor.clone(); 24_000]);
    assert!(
        (MAX_MANIFEST_BYTES / 2..=MAX_MANIFEST_BYTES).contains(&many.bytes.len()),
        "{}",
        many.bytes.len()
    );
    assert_eq!(house.put("many", &many).await.status, 201);
    assert_eq!(house.get("/v2/shop/api/manifests/many").await.body, many.bytes);
}

/// CVE-2023-2253 (distribution): the server made room for as many entries as the client asked for.
#[tokio::test]
async fn a_page_of_a_billion_entries() {
    let house = House::new().await;
    house.push("1.0.0", "semel").await;
    for list in ["/v2/_catalog", "/v2/shop/api/tags/list"] {
        for n in ["1000000000", "18446744073709551615", "18446744073709551616"] {
            let heard = house.get(&format!("{list}?n={n}")).await;
            assert_eq!((heard.status, heard.header("link")), (200, ""), "{list} {n}");
        }
        for query in ["n=-1", "n=1e9", "n=0x10", "last=%00", "last=%ff"] {
            let heard = house.get(&format!("{list}?{query}")).await;
            let refusal = (heard.status, heard.status == 200 || heard.refusal().1 == "UNSUPPORTED");
            let expected = if query == "last=%ff" { [200, 400] } else { [400, 400] };
            assert!(expected.contains(&refusal.0) && refusal.1, "{list} {query}: {heard:?}");
        }
    }
}

/// A poisoned `Location`: an answer that leads a client, or a cache between, to a host of the attacker's.
#[tokio::test]
async fn a_host_of_the_attackers_choice() {
    let open = Open::new().await;
    let address = open.address.clone();
    let request = |target: &str, headers: &str| {
        format!("POST {target} HTTP/1.1\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n")
            .into_bytes()
    };
    let forwarded = format!(
        "host: {address}\r\nx-forwarded-host: evil.example\r\nx-forwarded-proto: https\r\n\
         x-forwarded-for: 192.0.2.1\r\nforwarded: host=evil.example\r\nx-original-url: /v2/evil/tags/list\r\n\
         x-http-method-override: DELETE\r\n"
    );
    let heard = open.raw(&request(UPLOADS, &forwarded)).await;
    assert_eq!(statuses(&heard), [202], "{heard}");
    assert!(heard.contains(&format!("\r\nlocation: {UPLOADS}")), "a place is named without a host: {heard}");
    assert!(!heard.contains("evil.example"), "{heard}");
    let cases = [
        (UPLOADS.to_owned(), "host: evil.example\r\n".to_owned(), 403),
        (UPLOADS.to_owned(), format!("host: {address}@evil.example\r\n"), 403),
        (UPLOADS.to_owned(), format!("host: {address}\r\nhost: evil.example\r\n"), 403),
        (UPLOADS.to_owned(), format!("host: {address}\r\nhost: {address}\r\n"), 400),
        (UPLOADS.to_owned(), String::new(), 400),
        (format!("http://{address}{UPLOADS}"), String::new(), 400),
        (format!("http://evil.example{UPLOADS}"), format!("host: {address}\r\n"), 403),
        (format!("http://{address}{UPLOADS}"), format!("host: {address}\r\n"), 202),
        (UPLOADS.to_owned(), format!("host: {address}\r\norigin: http://evil.example\r\n"), 403),
    ];
    for (target, headers, status) in cases {
        let heard = open.raw(&request(&target, &headers)).await;
        assert_eq!(statuses(&heard), [status], "{target} {headers}: {heard}");
    }
    let heard = open.raw(b"GET /v2/ HTTP/1.0\r\n\r\n").await;
    assert!(heard.starts_with("HTTP/1.0 200 "), "HTTP/1.0 names no host: {heard}");
}

/// Two lengths of one body: what a proxy takes for its end is the beginning of the attacker's next request.
#[tokio::test]
async fn a_request_smuggled_in_a_body() {
    let open = Open::new().await;
    let host = &open.address;
    let post = format!("POST {UPLOADS} HTTP/1.1\r\nhost: {host}\r\n");
    let smuggled = format!("GET /v2/smuggled HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let length = smuggled.len() + 5;
    let chunked = "transfer-encoding: chunked\r\n";
    // Where one of two lengths may be believed, the connection ends with the answer (RFC 9112 §6.3).
    let cases = [
        (format!("content-length: {length}\r\n{chunked}\r\n0\r\n\r\n"), 202),
        (format!("{chunked}content-length: {length}\r\n\r\n0\r\n\r\n"), 202),
        ("content-length: 5\r\ncontent-length: 6\r\n\r\n".to_owned(), 400),
        ("content-length: 5, 6\r\n\r\n".to_owned(), 400),
        ("content-length: +5\r\n\r\n".to_owned(), 400),
        ("content-length: 18446744073709551616\r\n\r\n".to_owned(), 400),
        ("transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n".to_owned(), 400),
        ("transfer-encoding : chunked\r\n\r\n0\r\n\r\n".to_owned(), 400),
        (format!("x: a\r\n {chunked}\r\n0\r\n\r\n"), 400),
    ];
    for (rest, status) in cases {
        let heard = open.raw(format!("{post}{rest}{smuggled}").as_bytes()).await;
        assert_eq!(statuses(&heard), [status], "the second request is never answered: {rest}\n{heard}");
    }
    let digest = Digest::of(b"x");
    let bad_chunk = format!(
        "POST {UPLOADS}?digest={digest} HTTP/1.1\r\nhost: {host}\r\n{chunked}\r\nffffffffffffffff1\r\nx\r\n0\r\n\r\n"
    );
    let heard = open.raw(bad_chunk.as_bytes()).await;
    assert!(statuses(&heard).iter().all(|status| *status == 400), "{heard}");
}

/// Names are never paths: nothing of a request is joined to a directory before it was read as a name or a digest.
#[tokio::test]
async fn a_path_that_leads_out() {
    let open = Open::new().await;
    let store = open.house.store.dir().to_owned();
    let listed = || {
        let mut names: Vec<_> = std::fs::read_dir(store.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let before = listed();
    let long = "a".repeat(5_000);
    let names = [
        "..",
        ".",
        "%2e%2e",
        "%2E%2E/%2e%2e",
        "..%2f..%2fetc",
        "..%5c..",
        "a/../../b",
        "a//b",
        "a%00b",
        "a%0d%0ax",
        "%ff",
        "%",
        "%zz",
        "%252e%252e",
        "~root",
        "a\\b",
        "A",
        "a:b",
        "a@b",
        "\u{e4}",
        &long,
    ];
    for name in names {
        let digest = Digest::of(b"x");
        for (method, rest) in [
            ("POST", "blobs/uploads/".to_owned()),
            ("PUT", format!("blobs/uploads/{name}?digest={digest}")),
            ("PATCH", format!("blobs/uploads/{name}")),
            ("GET", format!("blobs/{name}")),
            ("PUT", format!("manifests/{name}")),
            ("GET", "tags/list".to_owned()),
        ] {
            let request = format!(
                "{method} /v2/{name}/{rest} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                open.address
            );
            let heard = open.raw(request.as_bytes()).await;
            let status = statuses(&heard);
            assert!(matches!(status[..], [400 | 404 | 405 | 414]), "{method} {name} {rest}: {heard}");
        }
    }
    for target in ["/v2/a\0b/tags/list", "/v2/a b/tags/list", "*", "v2/a/tags/list", "//v2/a/tags/list"] {
        let request = format!("GET {target} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", open.address);
        let heard = open.raw(request.as_bytes()).await;
        assert!(matches!(statuses(&heard)[..], [400 | 404]), "{target:?}: {heard}");
    }
    let head = format!("GET /v2/ HTTP/1.1\r\nhost: {}\r\nx: {}\r\n\r\n", open.address, "x".repeat(1 << 20));
    assert!(matches!(statuses(&open.raw(head.as_bytes()).await)[..], [431] | []), "a head without end");
    assert_eq!(listed(), before);
}

/// CVE-2011-3192 (httpd), "Apache Killer": many overlapping ranges, an answer many times the file.
#[tokio::test]
async fn ranges_that_multiply_an_answer() {
    let house = House::new().await;
    let bytes = pattern(3_000);
    let path = format!("/v2/shop/api/blobs/{}", house.push_blob(bytes.clone()).await);
    let many = format!("bytes=0-{}", ",0-".repeat(1_300));
    let overlapping = format!("bytes={}", vec!["0-2999"; 1_000].join(","));
    let whole = [
        "bytes=0-1,2-3",
        &many,
        &overlapping,
        "bytes=0-9,",
        "bytes=,0-9",
        "bytes=0-9;1-2",
        "bytes=0x0-9",
        "bytes=-",
        "bytes=--5",
        "bytes=0--5",
        "bits=0-9",
        "bytes:0-9",
    ];
    for range in whole {
        let heard = house.send("GET", &path, &[("range", range)], "").await;
        assert_eq!((heard.status, heard.body.len()), (200, 3_000), "{range:.60}");
    }
    let parts =
        [("bytes=0-18446744073709551616", 3_000), ("bytes=-18446744073709551616", 3_000), ("bytes=2999-", 1)];
    for (range, length) in parts {
        let heard = house.send("GET", &path, &[("range", range)], "").await;
        assert_eq!((heard.status, heard.body.len()), (206, length), "{range}");
    }
    for range in ["bytes=18446744073709551616-", "bytes=18446744073709551615-18446744073709551615"] {
        let heard = house.send("GET", &path, &[("range", range)], "").await;
        assert_eq!((heard.status, heard.header("content-range")), (416, "bytes */3000"), "{range}");
    }
    let twice = [("range", "bytes=0-0"), ("range", "bytes=0-2999")];
    assert_eq!(house.send("GET", &path, &twice, "").await.refusal(), refused(400, "UNSUPPORTED"));
}

/// A chunk whose place overflows, or that says two places.
#[tokio::test]
async fn a_chunk_at_an_impossible_place() {
    let house = House::new().await;
    let upload = house.upload().await;
    let cases = [
        ("0-18446744073709551615", 400),
        ("0-18446744073709551616", 400),
        ("18446744073709551615-18446744073709551615", 416),
        ("-1-3", 400),
        ("0-4/5", 400),
        ("bytes 0-4/*", 400),
        ("4-0", 400),
        ("1-5", 416),
        ("0-3", 400),
        ("\u{0660}-4", 400),
    ];
    for (range, status) in cases {
        let headers = [("content-range", range), ("content-length", "5")];
        let heard = house.send("PATCH", &upload, &headers, "semel").await;
        assert_eq!(heard.status, status, "{range}: {heard:?}");
        assert_eq!(house.get(&upload).await.header("range"), "0-0", "{range}");
    }
    let twice = [("content-range", "0-4"), ("content-range", "5-9")];
    assert_eq!(house.send("PATCH", &upload, &twice, "semel").await.refusal(), refused(400, "UNSUPPORTED"));
    let heard = house.send("PATCH", &upload, &[("content-range", "0-4")], "semel").await;
    assert_eq!((heard.status, heard.header("range")), (202, "0-4"), "the session is none the worse");
}

/// Sessions are opened and never finished, until there is room for nobody.
#[tokio::test]
async fn uploads_opened_without_end() {
    let mut house = House::new().await;
    let limits = Limits { uploads_per_client: 3, ..Limits::default() };
    house.app = App::limited(house.store.clone(), now, "ana", limits);
    let open = Open::of(house).await;
    let transport = open.transport();
    let send = async |method: &str, path: &str, body: &'static str| {
        crate::send(&transport, method, path, &[], Body::full(body)).await
    };
    let mut uploads = Vec::new();
    for _ in 0..3 {
        uploads.push(send("POST", UPLOADS, "").await.header("location").to_owned());
    }
    let heard = send("POST", UPLOADS, "").await;
    assert_eq!((heard.refusal(), heard.header("retry-after")), (refused(429, "TOOMANYREQUESTS"), "60"));
    let digest = Digest::of(b"semel");
    assert_eq!(send("PATCH", &uploads[0], "semel").await.status, 202, "those that are open go on");
    assert_eq!(send("PUT", &format!("{}?digest={digest}", uploads[0]), "").await.status, 201);
    assert_eq!(send("DELETE", &uploads[1], "").await.status, 204);
    for _ in 0..2 {
        assert_eq!(send("POST", UPLOADS, "").await.status, 202, "what has ended counts no more");
    }
    assert_eq!(send("POST", UPLOADS, "").await.status, 429);
    assert_eq!(
        open.house.send("POST", UPLOADS, &[], "").await.status,
        202,
        "others are not held responsible"
    );
    let minutes = |minutes: u64| SystemTime::from(now()) - Duration::from_secs(60 * minutes);
    for (minutes, status) in [(minutes(59), 429), (minutes(61), 202)] {
        let session = std::fs::File::open(open.house.session_file(&uploads[2])).unwrap();
        session.set_modified(minutes).unwrap();
        assert_eq!(send("POST", UPLOADS, "").await.status, status, "one that lies idle gives way");
    }
    assert_eq!(send("GET", &uploads[2], "").await.status, 404);
}

/// Sessions that nobody goes on with are removed when the server starts and every hour.
#[tokio::test]
async fn uploads_left_behind() {
    let house = House::new().await;
    let (old, young) = (house.upload().await, house.upload().await);
    house.send("PATCH", &old, &[], "semel").await;
    let leftover = house.store.dir().join("uploads/put-1-1-0123");
    std::fs::File::create_new(&leftover).unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    let now = SystemTime::from(now());
    let touched =
        [(&house.session_file(&old), day * 2), (&leftover, day * 2), (&house.session_file(&young), day / 2)];
    for (file, age) in touched {
        std::fs::File::options().write(true).open(file).unwrap().set_modified(now - age).unwrap();
    }
    let open = Open::of(house).await;
    while open.house.get(&old).await.status != 404 || leftover.exists() {
        tokio::task::yield_now().await;
    }
    for (method, query) in
        [("GET", ""), ("PATCH", ""), ("PUT", &*format!("?digest={}", Digest::of(b"semel")))]
    {
        let heard = open.house.send(method, &format!("{old}{query}"), &[], "").await;
        assert_eq!(heard.refusal(), refused(404, "BLOB_UPLOAD_UNKNOWN"), "{method}");
    }
    assert_eq!(open.house.get(&young).await.status, 204);
}

/// The disk fills up: what is stored stays, what is read goes on, and an upload goes on when there is room again.
#[tokio::test]
async fn a_disk_that_is_nearly_full() {
    let house = House::new().await;
    let image = house.push("1.0.0", "semel").await;
    let upload = house.upload().await;
    house.send("PATCH", &upload, &[], "sem").await;
    let full = house.behind(Limits { reserve: FULL, ..Limits::default() });
    let other = house.prepare("other").await;
    let at_once = format!("{UPLOADS}?digest={}", Digest::of(b"more"));
    let writes = [("POST", UPLOADS, ""), ("POST", &at_once, "more"), ("PATCH", &upload, "el")];
    for (method, path, body) in writes {
        let heard = full.send(method, path, &[], body).await;
        assert_eq!(heard.status, 507, "{method} {path}");
        let said = std::str::from_utf8(&heard.body).unwrap();
        assert!(said.contains("no room") && said.contains("is kept"), "{said}");
    }
    assert_eq!(full.put("1.0.1", &other).await.status, 507);
    assert_eq!(full.get("/v2/shop/api/manifests/1.0.0").await.body, image.bytes);
    assert_eq!(full.get(&upload).await.header("range"), "0-2", "the session keeps what it has");
    assert_eq!(house.send("PATCH", &upload, &[], "el").await.status, 202, "and goes on when there is room");
    let finish = format!("{upload}?digest={}", Digest::of(b"semel"));
    assert_eq!(full.send("PUT", &finish, &[], "").await.status, 201, "the end of an upload takes no room");
    let left = house.store.blobs().uploads().files().unwrap();
    assert!(left.is_empty(), "nothing is left of what was refused");
}

/// What says that it is larger than the disk is refused before the disk is full of it.
#[tokio::test]
async fn an_upload_that_cannot_fit() {
    let open = Open::new().await;
    let upload = open.house.upload().await;
    let head = format!(
        "PATCH {upload} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\nsemel",
        open.address,
        u64::MAX / 4
    );
    assert_eq!(statuses(&open.raw(head.as_bytes()).await), [507]);
    assert_eq!(open.house.get(&upload).await.header("range"), "0-0");
}

/// The disk is full in the middle of a write, on a disk of 8 MiB: this binary again, in a name space of its own.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_disk_that_is_full() {
    if !can_mount() {
        return;
    }
    let disk = tempfile::tempdir().unwrap();
    let script =
        "mount -t tmpfs -o size=8m none \"$TMPDIR\" && exec \"$0\" --exact hostile::an_upload_fills_the_disk";
    let ran = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("TMPDIR", disk.path())
        .env(SMALL_DISK, "8m")
        .output();
    let ran = ran.await.unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

/// Says to this binary that the directory for temporary files is a small disk.
const SMALL_DISK: &str = "SEMEL_TEST_SMALL_DISK";

/// Whether disks can be mounted without being root. On a build server they must be.
#[cfg(target_os = "linux")]
#[expect(clippy::print_stderr, reason = "a test that does nothing says so")]
#[expect(clippy::disallowed_methods, reason = "the environment of the test decides")]
fn can_mount() -> bool {
    let tried =
        std::process::Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]).output();
    let can = tried.is_ok_and(|output| output.status.success());
    assert!(can || std::env::var_os("CI").is_none(), "unshare is missing or not allowed");
    if !can {
        eprintln!("skipped: unshare is missing or not allowed");
    }
    can
}

/// What the test above runs.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the environment of the test decides")]
async fn an_upload_fills_the_disk() {
    if std::env::var_os(SMALL_DISK).is_none() {
        return;
    }
    let nothing = Reserve { bytes: 0, percent: 0 };
    let first = House::new().await;
    let house = first.behind(Limits { reserve: nothing, ..Limits::default() });
    let (kept, new) = (house.push("1.0.0", "kept").await, house.prepare("new").await);
    let ballast = std::env::temp_dir().join("ballast");
    std::fs::write(&ballast, vec![0; 3 << 20]).unwrap();
    let (bytes, upload) = (pattern(8 << 20), house.upload().await);
    // Of a stream, nobody knows beforehand that it does not fit.
    let stream = Body::from_reader(std::io::Cursor::new(bytes.clone()), None);
    let heard = crate::send(&house.transport, "PATCH", &upload, &[], stream).await;
    assert_eq!(heard.status, 507, "{heard:?}");
    assert_eq!(house.get("/v2/shop/api/manifests/1.0.0").await.body, kept.bytes, "reads go on");
    let mut mounted = 201;
    for number in 0..10_000 {
        // What is recorded takes room as well, sooner or later.
        let mount = format!("/v2/shop/c{number}/blobs/uploads/?mount={}", Digest::of(b"kept"));
        mounted = house.send("POST", &mount, &[], "").await.status;
        if mounted != 201 {
            break;
        }
    }
    assert_eq!(mounted, 507);

    let have: usize = house.get(&upload).await.header("range")[2..].parse::<usize>().unwrap() + 1;
    assert!(have > 1 << 20, "the session keeps what was written: {have}");
    std::fs::remove_file(&ballast).unwrap();
    let whole = bytes.slice(..have + (1 << 20));
    let finish = format!("{upload}?digest={}", Digest::of(&whole));
    let rest = format!("{have}-{}", whole.len() - 1);
    let heard = house.send("PUT", &finish, &[("content-range", &rest)], whole.slice(have..)).await;
    assert_eq!(heard.status, 201, "and goes on when there is room: {heard:?}");
    assert_eq!(house.get(heard.header("location")).await.body, whole);
    assert_eq!(house.put("1.0.1", &new).await.status, 201);
}

/// "R-U-Dead-Yet": a body that stops, or crawls, holds what it has for ever.
#[tokio::test]
async fn a_body_that_comes_too_slowly() {
    let house = House::new().await;
    for crawls in [false, true] {
        let upload = house.upload().await;
        let (mut sender, receiver) = tokio::io::duplex(1024);
        let request = Request::patch(&upload).body(Body::from_reader(receiver, None)).unwrap();
        let transport = house.transport.clone();
        let crawling = tokio::spawn(async move {
            sender.write_all(b"se").await.unwrap();
            // 30 seconds of the clock that the test turns.
            let mut pause = tokio::time::interval(Duration::from_secs(30));
            while crawls && sender.write_all(b"m").await.is_ok() {
                pause.tick().await;
            }
            // Silence, until the other side gives up.
            while sender.write_all(b"").await.is_ok() && !crawls {
                pause.tick().await;
            }
        });
        let answer = let_time_pass(async move { transport.send(request).await.unwrap() }).await;
        assert_eq!(answer.status().as_u16(), 408, "crawls: {crawls}");
        crawling.abort();
        let have = house.get(&upload).await.header("range").to_owned();
        assert!(have.starts_with("0-") && have != "0-0", "the session keeps what came: {have}");
        assert_eq!(house.send("PATCH", &upload, &[], "mel").await.status, 202);
    }
}

/// Bodies that begin and stop: each would keep a thread waiting, until none is left for anybody else.
#[test]
fn uploads_that_stand_still() {
    const THREADS: usize = 4;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).max_blocking_threads(THREADS).enable_all().build().unwrap();
    runtime.block_on(async {
        let house = House::new().await;
        let mut still = Vec::new();
        for number in 0..2 * THREADS {
            let (mut sender, receiver) = tokio::io::duplex(1024);
            sender.write_all(b"semel").await.unwrap();
            let path = format!("{UPLOADS}?digest={}", Digest::of(&[u8::try_from(number).unwrap()]));
            let request = Request::post(path).body(Body::from_reader(receiver, None)).unwrap();
            let transport = house.transport.clone();
            tokio::spawn(async move { transport.send(request).await });
            still.push(sender);
        }
        while house.store.blobs().uploads().files().unwrap().len() < still.len() {
            tokio::task::yield_now().await;
        }
        let others = async {
            house.push("1.0.0", "semel").await;
            house.get("/healthz").await.status
        };
        assert_eq!(tokio::time::timeout(Duration::from_secs(60), others).await, Ok(200));
    });
}

/// "Slowloris": a head that never ends.
#[tokio::test]
async fn a_head_that_never_ends() {
    let open = Open::new().await;
    let mut stream = TcpStream::connect(&open.address).await.unwrap();
    stream.write_all(format!("GET /v2/ HTTP/1.1\r\nhost: {}\r\nx: ", open.address).as_bytes()).await.unwrap();
    let heard = let_time_pass(async move {
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        heard
    });
    assert!(!heard.await.starts_with(b"HTTP/1.1 200"), "the server hung up");
}
