//! Large stores, through the library and many entries to an append: a million pushes would take hours.
//!
//! What is recorded is what pushes record. In the place of these manifests lie links to one file, and nobody asks for their bytes.

use std::fs;
use std::os::unix::fs::symlink;

use jiff::Timestamp;
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::entry::{Change, ComponentCreated, ManifestStored, VersionPublished};
use semel_model::name::ComponentName;
use semel_model::version::{TagPolicy, Version};
use semel_oci::media_type;
use semel_store::{Place, Store};

use crate::{Error, interrupt};

/// The component that is measured.
pub(crate) const SUBJECT: &str = "bench/subject";
/// How many entries one append takes.
const ENTRIES_PER_APPEND: usize = 10_000;

/// Creates a store with `tags` versions of [`SUBJECT`] and `components` other components of one version each.
pub(crate) fn fill(place: &Place, tags: u64, components: u64) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::create(place, Timestamp::UNIX_EPOCH).await?;
        let mut writer = Writer::new(&store).await?;
        for number in 0..components {
            let component = format!("bench/other-{number:06}").parse()?;
            writer.component(&component).await?;
            writer.version(&component, number).await?;
        }
        let subject = SUBJECT.parse()?;
        writer.component(&subject).await?;
        for number in 0..tags {
            writer.version(&subject, number).await?;
        }
        writer.append().await?;
        store.close().await;
        Ok(())
    })
}

/// The version of a number: 1.0.0, 1.0.1, … 1.0.999, 1.1.0, …
pub(crate) fn version(number: u64) -> Version {
    Version::final_release(1, number / 1_000, number % 1_000)
}

/// Collects changes and appends them.
struct Writer<'a> {
    store: &'a Store,
    actor: Actor,
    changes: Vec<Change>,
}

impl<'a> Writer<'a> {
    async fn new(store: &'a Store) -> Result<Self, Error> {
        Ok(Self { store, actor: store.local_actor("bench", "bench").await?, changes: Vec::new() })
    }

    async fn component(&mut self, component: &ComponentName) -> Result<(), Error> {
        let home = self.store.id().to_owned();
        let component = component.clone();
        self.change(Change::ComponentCreated(ComponentCreated {
            component,
            policy: TagPolicy::Release,
            home,
        }))
        .await
    }

    async fn version(&mut self, component: &ComponentName, number: u64) -> Result<(), Error> {
        let digest = Digest::of(format!("{component} {number}").as_bytes());
        let path = self.store.blobs().path(&digest);
        fs::create_dir_all(path.parent().ok_or("a blob lies in a directory")?)?;
        symlink(self.store.dir().join("store.json"), path)?;
        let stored = ManifestStored {
            component: component.clone(),
            digest: digest.clone(),
            media_type: media_type::OCI_MANIFEST.to_owned(),
            size: 500,
            subject: None,
        };
        let published = VersionPublished {
            component: component.clone(),
            version: version(number),
            digest,
            number: None,
            commit: None,
            log: None,
            source: None,
        };
        self.change(Change::ManifestStored(stored)).await?;
        self.change(Change::VersionPublished(published)).await
    }

    async fn change(&mut self, change: Change) -> Result<(), Error> {
        self.changes.push(change);
        if self.changes.len() < ENTRIES_PER_APPEND { Ok(()) } else { self.append().await }
    }

    async fn append(&mut self) -> Result<(), Error> {
        interrupt::check()?;
        let changes = std::mem::take(&mut self.changes);
        self.store.turn().await?.record(&self.actor, Timestamp::UNIX_EPOCH, changes).await?;
        Ok(())
    }
}
