//! Other people's clients against `semel serve`, the program on a socket.
//!
//! Every client goes through the same [story]; what it alone can do is in its file.

mod story;

mod attachments;
mod buildah;
mod built;
mod curl;
mod docker;
mod oras;
mod podman;
mod shapes;
mod skopeo;
mod umoci;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::environment::{Ran, Serving, TestEnvironment, finish};
use crate::http::{self, Answer};

/// A component, the same for all.
const NAME: &str = "shop/api";

/// A served store, and a place where clients find settings of their own instead of the machine's.
struct Shop {
    environment: TestEnvironment,
    serving: Serving,
}

impl Shop {
    fn open() -> Self {
        Self::around(TestEnvironment::empty())
    }

    fn around(environment: TestEnvironment) -> Self {
        let serving = environment.serve();
        let shop = Self { environment, serving };
        let settings = shop.path(".config/containers");
        fs::create_dir_all(&settings).unwrap();
        fs::write(settings.join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)
            .unwrap();
        fs::write(settings.join("containers.conf"), CONTAINERS).unwrap();
        shop
    }

    /// A path that belongs to this test.
    fn path(&self, name: &str) -> PathBuf {
        self.environment.beside(name)
    }

    /// `HOST:PORT/NAME:TAG`, or with `@` before a digest.
    fn reference(&self, reference: &str) -> String {
        let separator = if reference.starts_with("sha256:") { '@' } else { ':' };
        format!("{}/{NAME}{separator}{reference}", self.serving.address)
    }

    /// A client, to be run here. podman and buildah keep their images in the directory `storage`.
    fn program(&self, program: &str, storage: &str) -> Command {
        let place = self.path(storage);
        let settings = self.path(&format!("{storage}.conf"));
        let text = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            place.join("graph"),
            place.join("run")
        );
        fs::write(&settings, text).unwrap();
        let mut command = self.environment.program(program);
        command.env("CONTAINERS_STORAGE_CONF", settings);
        command.env("CONTAINERS_CONF", self.path(".config/containers/containers.conf"));
        command
    }

    /// Runs a client.
    fn run(&self, program: &str, words: &[&str]) -> Ran {
        let mut command = self.program(program, "images");
        command.args(words);
        finish(command, "")
    }

    /// Runs a client, which must succeed, and gives what it printed.
    fn ok(&self, program: &str, words: &[&str]) -> String {
        succeeded(program, self.run(program, words))
    }

    /// Asks the server.
    fn get(&self, path: &str) -> Answer {
        let path = format!("/v2/{NAME}/{path}");
        http::send(&self.serving.address, "GET", &path, &[("accept", "*/*")], b"").unwrap()
    }

    /// The manifest that the server gives.
    fn manifest(&self, reference: &str) -> Answer {
        let answer = self.get(&format!("manifests/{reference}"));
        assert_eq!(answer.status, 200, "{reference}: {answer:?}");
        answer
    }

    /// The digest that the server gives for a name.
    fn digest(&self, tag: &str) -> String {
        self.manifest(tag).header("docker-content-digest").to_owned()
    }

    /// How often a manifest was sent under a name, by the status of the answers.
    fn sent(&self, tag: &str) -> Value {
        let path = format!(" PUT /v2/{NAME}/manifests/{tag} ");
        let log = self.serving.log();
        let with =
            |status: &str| log.lines().filter(|line| line.contains(&format!("{path}{status} "))).count();
        json!({"201": with("201"), "409": with("409"), "all": log.matches(&path).count()})
    }

    /// A directory from which an image is built: one program, one text, nothing below it.
    fn context(&self, label: &str) -> PathBuf {
        let dir = self.path(&format!("context-{label}"));
        fs::create_dir_all(&dir).unwrap();
        if let Some(busybox) = busybox() {
            fs::copy(busybox, dir.join("busybox")).unwrap();
        }
        fs::write(dir.join("greeting"), label).unwrap();
        fs::write(dir.join("Dockerfile"), DOCKERFILE).unwrap();
        dir
    }
}

/// What [`Shop::context`] builds.
const DOCKERFILE: &str =
    "FROM scratch\nCOPY greeting busybox /\nCMD [\"/busybox\", \"cat\", \"/greeting\"]\n";

/// Containers that need no more than a test has: no network of their own, no systemd, limits that are allowed everywhere.
const CONTAINERS: &str = r#"[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"#;

/// A shell without any library, to be put into images.
fn busybox() -> Option<&'static Path> {
    ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.is_file())
}

/// What a client printed that must have succeeded.
fn succeeded(what: &str, ran: Ran) -> String {
    assert_eq!(ran.code, 0, "{what}: {}{}", ran.stdout, ran.stderr);
    ran.stdout
}

/// A version of one release and the other names that it gets.
#[test]
fn the_names_of_two_releases_in_a_row_are_all_accepted() {
    let shop = Shop::open();
    for (version, commit) in [("1.4.2", "sha-4f1c2ab"), ("1.4.3", "sha-93be01d")] {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [],
            "annotations": {"version": version},
        });
        for tag in [version, "1.4", "1", "latest", commit] {
            let path = format!("/v2/{NAME}/manifests/{tag}");
            let headers = [("content-type", "application/vnd.oci.image.index.v1+json")];
            let body = manifest.to_string();
            let answer = http::send(&shop.serving.address, "PUT", &path, &headers, body.as_bytes()).unwrap();
            assert_eq!(answer.status, 201, "{tag}: {answer:?}");
            assert_eq!(shop.manifest(tag).body, body.as_bytes(), "{tag}");
        }
    }
    for (older, newer) in [("1.4.2", "1.4.3"), ("sha-4f1c2ab", "sha-93be01d")] {
        assert_ne!(shop.digest(older), shop.digest(newer), "a version stays");
    }
    for moved in ["1.4", "1", "latest"] {
        assert_eq!(shop.digest(moved), shop.digest("1.4.3"), "a channel moves");
    }
}
