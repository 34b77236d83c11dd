//! Docker Engine: builds, pushes, pulls and runs, with a daemon of its own.

use std::fs;
use std::process::{Child, Stdio};

use super::story::{self, Client};
use super::{Shop, busybox, succeeded};
use crate::environment::{Ran, finish, has_all, met};

/// One engine for what is made and another one for what is pulled.
pub(super) struct Docker<'a> {
    shop: &'a Shop,
    maker: Engine<'a>,
    puller: Engine<'a>,
}

/// A daemon that ends with the test.
struct Engine<'a> {
    shop: &'a Shop,
    host: String,
    daemon: Child,
}

impl<'a> Engine<'a> {
    /// Starts a daemon in namespaces of its own: when their first process ends, the system ends every process in them and
    /// undoes what they mounted. That process ends with this one.
    fn start(shop: &'a Shop, name: &str) -> Self {
        let dir = shop.path(name);
        fs::create_dir(&dir).unwrap();
        let place = |below: &str| dir.join(below).display().to_string();
        let host = format!("unix://{}", place("socket"));
        let mut command = shop.program("setpriv", "images");
        command.args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--fork",
            "--pid",
            "--mount",
            "--mount-proc",
            "--kill-child=KILL",
        ]);
        command.args([
            "dockerd",
            "--host",
            &host,
            "--data-root",
            &place("data"),
            "--exec-root",
            &place("exec"),
        ]);
        command.args(["--pidfile", &place("pid"), "--iptables=false", "--ip6tables=false", "--bridge=none"]);
        let log = fs::File::create(place("log")).unwrap();
        let daemon = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut engine = Self { shop, host, daemon };
        engine.wait(&place("log"));
        engine
    }

    fn wait(&mut self, log: &str) {
        while self.run(&["version"]).code != 0 {
            let ended = self.daemon.try_wait().unwrap();
            assert!(ended.is_none(), "dockerd: {}", fs::read_to_string(log).unwrap());
        }
    }

    fn run(&self, words: &[&str]) -> Ran {
        let mut command = self.shop.program("docker", "images");
        // The builder of the engine itself; the other one is a program that may not be there.
        command.env("DOCKER_HOST", &self.host).env("DOCKER_BUILDKIT", "0");
        command.args(words);
        finish(command, "")
    }

    fn ok(&self, words: &[&str]) -> String {
        succeeded(&format!("docker {words:?}"), self.run(words))
    }

    /// The digest under which an image was pulled.
    fn digest_of(&self, reference: &str) -> String {
        let known = self.ok(&["image", "inspect", "--format", "{{index .RepoDigests 0}}", reference]);
        known.trim().rsplit_once('@').unwrap().1.to_owned()
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

impl<'a> Docker<'a> {
    fn start(shop: &'a Shop) -> Self {
        Self { shop, maker: Engine::start(shop, "maker"), puller: Engine::start(shop, "puller") }
    }

    /// Whether it can be had.
    pub(super) fn is_here() -> bool {
        met(rustix::process::geteuid().is_root(), "Docker Engine is started as root only")
            && has_all(&["docker", "dockerd", "setpriv", "unshare"])
            && met(busybox().is_some(), "busybox is not installed")
    }
}

impl Client for Docker<'_> {
    fn make(&self, label: &str) {
        let context = self.shop.context(label).display().to_string();
        self.maker.ok(&["build", "--quiet", "--network=host", "--tag", &format!("made:{label}"), &context]);
    }

    fn push(&self, label: &str, reference: &str) -> Ran {
        self.maker.ok(&["tag", &format!("made:{label}"), reference]);
        self.maker.run(&["push", reference])
    }

    fn pull(&self, reference: &str) -> String {
        self.puller.ok(&["pull", "--quiet", reference]);
        let digest = self.puller.digest_of(reference);
        self.puller.ok(&["rmi", "--force", reference]);
        digest
    }
}

#[test]
fn docker_goes_through_the_story_and_runs_what_it_pulled() {
    if !Docker::is_here() {
        return;
    }
    let shop = Shop::open();
    let docker = Docker::start(&shop);
    let digest = story::tell(&shop, &docker);
    let reference = shop.reference(&digest);
    assert_eq!(docker.puller.ok(&["run", "--rm", "--quiet", "--network=host", &reference]), "first");
}

/// Runs the images in an empty engine, and gives what they print.
pub(super) fn ran(shop: &Shop, digests: &[String]) -> Vec<String> {
    let engine = Engine::start(shop, "engine");
    let run =
        |digest: &String| engine.ok(&["run", "--rm", "--quiet", "--network=host", &shop.reference(digest)]);
    digests.iter().map(run).collect()
}

/// Pulls the references into an empty engine, for a platform if one is named, and gives the digests.
pub(super) fn pulled(shop: &Shop, references: &[(&str, &[&str])]) -> Vec<String> {
    let engine = Engine::start(shop, "engine");
    let pull = |(reference, words): &(&str, &[&str])| {
        let reference = shop.reference(reference);
        engine.ok(&[&["pull", "--quiet"], *words, &[&reference]].concat());
        engine.digest_of(&reference)
    };
    references.iter().map(pull).collect()
}
