//! ORAS, the client for Python: files as artefacts, and what is attached to them.

use std::fs;

use super::story::{self, Client};
use super::{Shop, succeeded};
use crate::environment::{Ran, finish, has, met};

/// What speaks for the tests with the library.
const SCRIPT: &str = include_str!("oras.py");

struct Oras<'a>(&'a Shop);

impl Oras<'_> {
    fn run(&self, words: &[&str]) -> Ran {
        let mut command = self.0.program("python3", "images");
        command.args(["-c", SCRIPT]).args(words);
        finish(command, "")
    }

    fn file(&self, label: &str) -> String {
        self.0.path(label).display().to_string()
    }
}

impl Client for Oras<'_> {
    fn make(&self, label: &str) {
        fs::write(self.file(label), format!("{label} of many bytes")).unwrap();
    }

    fn push(&self, label: &str, reference: &str) -> Ran {
        self.run(&["push", reference, &self.file(label)])
    }

    fn pull(&self, reference: &str) -> String {
        let target = tempfile::tempdir_in(self.0.path("")).unwrap();
        let told = succeeded("pull", self.run(&["pull", reference, &target.path().display().to_string()]));
        let (files, digest) = told.trim().rsplit_once('\n').unwrap();
        assert_eq!(files, "first first of many bytes");
        digest.to_owned()
    }
}

#[test]
fn oras_goes_through_the_story_and_finds_what_it_attached() {
    if !has("python3") {
        return;
    }
    let shop = Shop::open();
    let oras = Oras(&shop);
    let installed = shop.run("python3", &["-c", "import oras"]).code == 0;
    if !met(installed, "the ORAS client for Python is not installed (python3 -m pip install oras)") {
        return;
    }
    let digest = story::tell(&shop, &oras);
    oras.make("report");
    succeeded("attach", oras.run(&["attach", &shop.reference("1.4.2"), "reports", &oras.file("report")]));
    let found = shop.get(&format!("referrers/{digest}")).json();
    let referrers = found["manifests"].as_array().unwrap();
    assert_eq!(referrers.len(), 1, "{found}");
    assert_eq!(referrers[0]["digest"], shop.digest("reports"), "{found}");
    assert_eq!(shop.manifest("reports").json()["subject"]["digest"], digest);
}
