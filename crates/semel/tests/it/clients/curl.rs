//! curl: the protocol request by request, as a script speaks it.

use std::fs;

use semel_model::digest::Digest;
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::manifest::ImageManifest;
use semel_oci::media_type;

use super::story::{self, Client};
use super::{NAME, Shop, succeeded};
use crate::environment::{Ran, finish, has};

/// What follows from standard input are bytes, and nothing is done to them.
const BYTES: [&str; 4] = ["--data-binary", "@-", "--header", "content-type: application/octet-stream"];

/// curl, with the bytes of each image in files.
pub(super) struct Curl<'a>(pub(super) &'a Shop);

impl Curl<'_> {
    /// One request, whose body comes from standard input. The client fails when the server says no, and prints why.
    pub(super) fn ask(&self, words: &[&str], path: &str, body: &str) -> Ran {
        let url = match path.strip_prefix('/') {
            Some(_) => format!("http://{}{path}", self.0.serving.address),
            None => format!("http://{}/v2/{NAME}/{path}", self.0.serving.address),
        };
        let mut command = self.0.program("curl", "images");
        command.args(["--silent", "--show-error", "--fail-with-body"]).args(words).arg(url);
        finish(command, body)
    }

    pub(super) fn ok(&self, words: &[&str], path: &str, body: &str) -> String {
        succeeded(&format!("curl {words:?} {path}"), self.ask(words, path, body))
    }

    /// A blob in one request.
    pub(super) fn blob(&self, content: &str) -> Digest {
        let digest = Digest::of(content.as_bytes());
        self.ok(&BYTES, &format!("blobs/uploads/?digest={digest}"), content);
        digest
    }

    /// A blob in two pieces and a closing request.
    fn blob_in_pieces(&self, content: &str) {
        let (first, second) = content.split_at(content.len() / 2);
        let mut upload = self.location(&["--request", "POST"], "blobs/uploads/", "");
        for (piece, start) in [(first, 0), (second, first.len())] {
            let range = format!("content-range: {start}-{}", start + piece.len() - 1);
            let words = [&BYTES[..], &["--request", "PATCH", "--header", &range]].concat();
            upload = self.location(&words, &upload, piece);
        }
        let digest = Digest::of(content.as_bytes());
        self.ok(&["--request", "PUT"], &format!("{upload}?digest={digest}"), "");
    }

    /// Where an upload goes on.
    fn location(&self, words: &[&str], path: &str, body: &str) -> String {
        let head = self.ok(&[words, &["--output", "/dev/null", "--dump-header", "-"]].concat(), path, body);
        let value = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("location").then(|| value.to_owned())
        };
        head.lines().find_map(value).unwrap_or_else(|| panic!("no location: {head}"))
    }

    /// A manifest under a name.
    pub(super) fn manifest(&self, reference: &str, media_type: &str, manifest: &str) -> Ran {
        let kind = format!("content-type: {media_type}");
        let words = ["--request", "PUT", "--data-binary", "@-", "--header", &kind];
        self.ask(&words, &format!("manifests/{reference}"), manifest)
    }
}

impl Client for Curl<'_> {
    fn make(&self, label: &str) {
        let manifest = ImageManifest {
            artifact_type: None,
            config: Descriptor::of(media_type::OCI_CONFIG, config(label).as_bytes()),
            layers: vec![Descriptor::of(media_type::OCI_LAYER_TAR, layer(label).as_bytes())],
            subject: None,
            annotations: Annotations::new(),
        };
        fs::write(self.0.path(label), manifest.encode().bytes).unwrap();
    }

    fn push(&self, label: &str, reference: &str) -> Ran {
        self.blob(&config(label));
        self.blob_in_pieces(&layer(label));
        let manifest = fs::read_to_string(self.0.path(label)).unwrap();
        let (_, tag) = reference.rsplit_once(':').unwrap();
        self.manifest(tag, media_type::OCI_MANIFEST, &manifest)
    }

    fn pull(&self, reference: &str) -> String {
        let name = match reference.split_once('@') {
            Some((_, digest)) => digest,
            None => reference.rsplit_once(':').unwrap().1,
        };
        let accept = format!("accept: {}", media_type::OCI_MANIFEST);
        let manifest = self.ok(&["--header", &accept], &format!("manifests/{name}"), "");
        Digest::of(manifest.as_bytes()).to_string()
    }
}

fn config(label: &str) -> String {
    format!("{{\"architecture\":\"amd64\",\"os\":\"linux\",\"author\":\"{label}\"}}")
}

fn layer(label: &str) -> String {
    label.repeat(5_000)
}

#[test]
fn curl_goes_through_the_story() {
    if has("curl") {
        let shop = Shop::open();
        story::tell(&shop, &Curl(&shop));
    }
}

#[test]
fn curl_gets_whole_blobs_and_parts_of_them() {
    if !has("curl") {
        return;
    }
    let shop = Shop::open();
    let curl = Curl(&shop);
    let content: String = (0..40_000).map(|number| char::from(b'a' + (number % 23) as u8)).collect();
    let blob = format!("blobs/{}", curl.blob(&content));
    let cases: [(&[&str], &str); 6] = [
        (&[], &content),
        (&["--range", "2-11"], &content[2..12]),
        (&["--range", "39990-"], &content[39_990..]),
        (&["--range", "-7"], &content[39_993..]),
        (&["--range", "39990-99999"], &content[39_990..]),
        (&["--continue-at", "30000"], &content[30_000..]),
    ];
    for (words, expected) in cases {
        assert_eq!(curl.ok(words, &blob, ""), expected, "{words:?}");
    }
    let status = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    for (words, path, expected) in [
        (&["--range", "40000-"][..], blob.as_str(), "416"),
        (&["--head"], &blob, "200"),
        (&[], "manifests/9.9.9", "404"),
    ] {
        assert_eq!(curl.ask(&[&status[..], words].concat(), path, "").stdout, expected, "{words:?} {path}");
    }
}
