//! umoci: makes and unpacks layouts, which skopeo carries.

use std::fs;

use super::skopeo::Skopeo;
use super::story::{self, Client};
use super::{Shop, succeeded};
use crate::environment::{Ran, TestEnvironment, finish, has, has_all};
use crate::layout::only_entry;

/// umoci, with one layout for all images.
struct Umoci<'a>(&'a Shop);

impl Umoci<'_> {
    fn image(&self, label: &str) -> String {
        format!("{}:{label}", self.0.path("umoci").display())
    }
}

impl Client for Umoci<'_> {
    fn make(&self, label: &str) {
        let (image, layout) = (self.image(label), self.0.path("umoci"));
        if !layout.exists() {
            self.0.ok("umoci", &["init", "--layout", &layout.display().to_string()]);
        }
        let greeting = self.0.context(label).join("greeting").display().to_string();
        self.0.ok("umoci", &["new", "--image", &image]);
        self.0.ok("umoci", &["insert", "--rootless", "--image", &image, &greeting, "/greeting"]);
    }

    fn push(&self, label: &str, reference: &str) -> Ran {
        Skopeo(self.0).copy(&[], &format!("oci:{}", self.image(label)), &format!("docker://{reference}"))
    }

    fn pull(&self, reference: &str) -> String {
        let layout = Skopeo(self.0).fetch(&[], reference);
        let (image, bundle) = (format!("{}:x", layout.display()), layout.with_extension("bundle"));
        self.0.ok("umoci", &["unpack", "--rootless", "--image", &image, &bundle.display().to_string()]);
        assert_eq!(fs::read_to_string(bundle.join("rootfs/greeting")).unwrap(), "first");
        only_entry(&layout)
    }
}

#[test]
fn umoci_goes_through_the_story() {
    if has_all(&["umoci", "skopeo"]) {
        let shop = Shop::open();
        story::tell(&shop, &Umoci(&shop));
    }
}

/// Its layers end with the content of their last entry.
#[test]
fn an_image_of_umoci_is_a_base() {
    if !has("umoci") {
        return;
    }
    let shop = Shop::open();
    let umoci = Umoci(&shop);
    umoci.make("first");
    let (environment, layout) = (TestEnvironment::repository(), shop.path("umoci"));
    let mut copying = environment.program("cp");
    copying.arg("-r").arg(&layout).arg(environment.dir().join("base"));
    succeeded("cp", finish(copying, ""));
    environment.write(".gitignore", "base\n");
    environment.write("text", "second");
    let base = only_entry(&layout);
    environment.write(
        "semel.toml",
        &format!(
            "format = 1\ncomponent = \"shop/api\"\n[artefact]\nkind = \"image\"\nbase = \"base@{base}\"\n\
             files = [{{ from = \"text\", to = \"/text\" }}]\n"
        ),
    );
    environment.commit("feat: begin");
    environment.build();
    environment.ok(&["pull", "0.1.0", "oci:../taken"]);
}
