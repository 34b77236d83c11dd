//! podman: builds, pushes, pulls and runs.

use super::story::{self, Client};
use super::{Shop, busybox, succeeded};
use crate::environment::{Ran, finish, has, met};

/// podman, or buildah, whose words are the same: with one place for what is made and another one for what is pulled.
pub(super) struct Podman<'a> {
    pub(super) shop: &'a Shop,
    pub(super) program: &'static str,
}

impl Podman<'_> {
    /// Runs it with the images of a place.
    pub(super) fn run(&self, storage: &str, words: &[&str]) -> Ran {
        let mut command = self.shop.program(self.program, storage);
        command.args(words);
        finish(command, "")
    }

    pub(super) fn ok(&self, storage: &str, words: &[&str]) -> String {
        succeeded(&format!("{} {words:?}", self.program), self.run(storage, words))
    }
}

impl Client for Podman<'_> {
    fn make(&self, label: &str) {
        let context = self.shop.context(label).display().to_string();
        self.ok("made", &["build", "--isolation=chroot", "--tag", &format!("made:{label}"), &context]);
    }

    fn push(&self, label: &str, reference: &str) -> Ran {
        let made = format!("localhost/made:{label}");
        self.run("made", &["push", "--tls-verify=false", &made, &format!("docker://{reference}")])
    }

    fn pull(&self, reference: &str) -> String {
        self.ok("pulled", &["rmi", "--all", "--force"]);
        self.ok("pulled", &["pull", "--quiet", "--tls-verify=false", reference]);
        let listed = self.ok("pulled", &["images", "--digests", "--format", "{{.Digest}}"]);
        listed.trim().to_owned()
    }
}

#[test]
fn podman_goes_through_the_story_and_runs_what_it_pulled() {
    if !has("podman") || !met(busybox().is_some(), "busybox is not installed") {
        return;
    }
    let shop = Shop::open();
    let podman = Podman { shop: &shop, program: "podman" };
    let digest = story::tell(&shop, &podman);
    // Without root a container needs more of its machine than a test may ask for.
    if has("runc") && met(rustix::process::geteuid().is_root(), "containers are run as root only") {
        let reference = shop.reference(&digest);
        assert_eq!(podman.pull(&reference), digest);
        assert_eq!(podman.ok("pulled", &["run", "--rm", "--network=host", &reference]), "first");
    }
}
