//! Names for ever, bytes by rule: what expires, what is held, what comes back.

use semel_engine::collect::{Collect, Collected, collect};
use semel_engine::error::EngineError;
use semel_engine::look::comparison::compare;
use semel_engine::look::versions::inspect;
use semel_engine::publish::Bound;
use semel_engine::pull::{self, Pull};
use semel_engine::remove::{Removed, remove_manifest};
use semel_engine::reserve::Reservation;
use semel_engine::store_manifest::{Manifest, Names, Pushed, StoreManifestError, push};
use semel_model::digest::Digest;
use semel_model::keep::Holder;
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::manifest::{ImageManifest, Index};
use semel_oci::media_type;
use semel_store::{audit, content, scrub};

use crate::{World, component, request};

const DAY: i64 = 86_400;

impl World {
    async fn collected(&self, dry_run: bool) -> Result<Collected, EngineError> {
        let request =
            Collect { dry_run, grace: Some("0s".parse().unwrap()), trash: Some("7d".parse().unwrap()) };
        collect(&self.store, &self.who, request, self.now()).await
    }

    /// Collects after some days.
    async fn after(&self, days: i64) -> Collected {
        self.wait(days * DAY);
        self.collected(false).await.unwrap()
    }

    async fn pulled(&self, digest: &Digest) -> Pull {
        pull::find(&mut self.store.reader().await.unwrap(), &component(), digest).await.unwrap()
    }

    /// The layer of an artefact, which is what takes the space.
    async fn layer(&self, digest: &Digest) -> Digest {
        let needed = content::of(&mut self.store.reader().await.unwrap(), digest).await.unwrap();
        let empty = Digest::of(b"{}");
        needed.into_iter().map(|(digest, _)| digest).find(|digest| *digest != empty).unwrap()
    }

    async fn removed(&self, digest: &Digest) -> Removed {
        remove_manifest(&self.store, &self.who, &component(), digest, self.now()).await.unwrap()
    }

    /// Pushes an index of one artefact.
    async fn index_of(&self, part: &Digest, tag: &str) -> Digest {
        let manifest = self.store.blobs().read(part).unwrap();
        let index = Index {
            artifact_type: None,
            manifests: vec![Descriptor::of(media_type::OCI_MANIFEST, &manifest)],
            subject: None,
            annotations: Annotations::new(),
        };
        self.pushed(&index.encode().bytes, media_type::OCI_INDEX, &[tag]).await.unwrap().stored.digest
    }

    async fn pushed(
        &self,
        bytes: &[u8],
        media_type: &str,
        tags: &[&str],
    ) -> Result<Pushed, StoreManifestError> {
        let tags: Vec<_> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
        let component = component();
        let manifest = Manifest { component: &component, bytes, media_type: Some(media_type), digest: None };
        push(&self.store, &self.who, manifest, Names { tags: &tags, ..Names::default() }, self.now()).await
    }

    async fn verified(&self) {
        assert_eq!(audit::verify(&self.store).await.unwrap().problems, Vec::<String>::new());
    }
}

fn over(collected: &Collected) -> Vec<String> {
    let words = |ended: &semel_engine::collect::Ended| {
        let versions: Vec<String> = ended.versions.iter().map(ToString::to_string).collect();
        format!("{} by {}", versions.join(" "), ended.rule)
    };
    let mut words: Vec<String> = collected.over.iter().map(words).collect();
    words.sort();
    words
}

#[tokio::test]
async fn each_rule_ends_when_its_time_is_over_and_the_names_stay() {
    let world = World::new().await;
    let mut digests = Vec::new();
    for version in ["1.0.0", "1.0.1-fix.1", "1.1.0"] {
        digests.push(world.published(version).await);
    }
    let unnamed = world.artefact("unnamed").await;
    assert_eq!(over(&world.after(13).await), Vec::<String>::new());
    let collected = world.after(1).await;
    assert_eq!(over(&collected), [" by branch=14d", "1.0.1-fix.1 by branch=14d"]);
    assert_eq!(world.pulled(&unnamed).await, Pull::Unknown);
    assert!(
        matches!(world.pulled(&digests[1]).await, Pull::Expired { expired, .. } if expired.rule == "branch=14d")
    );
    assert_eq!(collected.swept.blobs, 3, "two layers and the manifest that is forgotten: {collected:?}");
    let collected = world.after(80).await;
    assert_eq!(over(&collected), ["1.0.0 by trunk=90d"]);
    assert_eq!(collected.held.len(), 1, "the newest version stays: {:?}", collected.held);
    assert!(matches!(world.pulled(&digests[2]).await, Pull::Found { .. }));
    for version in ["1.0.0", "1.0.1-fix.1", "1.1.0"] {
        assert!(matches!(
            world.bind(version, &digests[2]).await.unwrap(),
            Bound::Refused(_) | Bound::Already { .. }
        ));
    }
    world.verified().await;
}

#[tokio::test]
async fn a_push_of_the_same_bytes_brings_an_expired_version_back() {
    let world = World::new().await;
    let old = world.published("1.0.0").await;
    let layer = world.layer(&old).await;
    world.published("2.0.0").await;
    world.after(91).await;
    assert!(!world.store.blobs().contains(&layer));
    let refused = world.bind("1.0.1", &old).await.unwrap_err();
    assert!(refused.to_string().contains(layer.as_str()), "a name alone brings no bytes: {refused}");
    assert!(matches!(world.pulled(&old).await, Pull::Expired { .. }));
    let promotion = semel_engine::promote::promote(
        &world.store,
        &world.who,
        crate::promotion("1.0.0", "dev"),
        world.now(),
    );
    assert!(promotion.await.unwrap_err().to_string().contains("trunk=90d"));
    assert_eq!(world.artefact("1.0.0").await, old);
    assert!(matches!(world.pulled(&old).await, Pull::Found { .. }));
    assert!(world.store.blobs().contains(&layer));
    world.verified().await;
    let collected = world.after(1).await;
    assert_eq!(over(&collected), Vec::<String>::new(), "who was needed again is counted from then on");
}

#[tokio::test]
async fn a_version_whose_bytes_are_gone_is_compared_as_far_as_it_is_known() {
    let world = World::new().await;
    for number in 1..=2 {
        world.built(number, &format!("tree {number}")).await;
    }
    world.after(91).await;
    let words = ["0.0.1", "0.0.2"].map(|word| word.parse().unwrap());
    let found = compare(&world.store, &component(), &words[0], &words[1], world.now()).await.unwrap();
    assert!(!found.is_identical() && found.from.layers.is_none() && found.to.layers.is_some(), "{found:?}");
    assert!(found.contract.is_none() && !found.backwards && found.commits.len() == 1, "{found:?}");
    assert!(found.unknown[0].contains("were removed"), "{:?}", found.unknown);
    let same = compare(&world.store, &component(), &words[0], &words[0], world.now()).await.unwrap();
    assert!(same.is_identical());
}

#[tokio::test]
async fn what_is_promoted_deployed_pointed_to_or_part_of_something_is_held() {
    let world = World::with_pipeline().await;
    let deployed = world.published("1.0.0").await;
    world.deployed("1.0.0", "dev").await;
    let channel = world.published("1.0.1").await;
    world.bind("stable", &channel).await.unwrap();
    let part = world.published("1.0.2").await;
    let index = world.index_of(&part, "1.0.3").await;
    world.bind("whole", &index).await.unwrap();
    let collected = world.after(400).await;
    assert_eq!(over(&collected), Vec::<String>::new());
    for (digest, expected) in [
        (&deployed, "deployment 1 of dev"),
        (&channel, "channel stable"),
        (&part, &*format!("index {index}")),
    ] {
        let Removed::Held(holders) = world.removed(digest).await else { panic!("{digest} is held") };
        let words: Vec<String> = holders.iter().map(ToString::to_string).collect();
        assert!(words.iter().any(|word| word == expected), "{words:?}");
        assert!(words[0].starts_with("version "), "{words:?}");
    }
    world.verified().await;
}

#[tokio::test]
async fn a_dry_run_names_everything_and_changes_nothing() {
    let world = World::new().await;
    world.published("1.0.0").await;
    world.published("2.0.0").await;
    world.wait(100 * DAY);
    let size = world.size().await;
    let dry = world.collected(true).await.unwrap();
    assert_eq!(over(&dry), ["1.0.0 by trunk=90d"]);
    assert_eq!(dry.freed.get("trunk=90d"), Some(&5), "the layer is what only 1.0.0 needs: {dry:?}");
    assert_eq!(world.size().await, size);
    let real = world.collected(false).await.unwrap();
    assert_eq!((over(&real), real.swept.bytes), (over(&dry), 5));
    assert_eq!(over(&world.collected(false).await.unwrap()), Vec::<String>::new(), "a repeat finds nothing");
}

#[tokio::test]
async fn what_went_into_the_trash_comes_back_when_it_is_asked_for_and_goes_after_a_week() {
    let world = World::new().await;
    let stray = world.upload(b"stray").await.digest;
    let kept = world.upload(b"kept for later").await.digest;
    assert_eq!(world.after(1).await.swept.blobs, 2);
    assert!(!world.store.blobs().contains(&kept));
    assert!(world.store.blobs().hold(&kept).unwrap(), "the trash gives it back");
    assert_eq!(world.store.blobs().read(&kept).unwrap(), b"kept for later");
    // The trash goes by the clock of the disk, which is not that of this world.
    let purged = world.after(3_650).await;
    assert_eq!((purged.purged.blobs, purged.swept.blobs), (1, 1));
    assert!(!world.store.blobs().hold(&stray).unwrap());
}

#[tokio::test]
async fn an_index_goes_with_its_parts_and_the_dry_run_counts_them() {
    let world = World::new().await;
    let part = world.artefact("a part").await;
    world.index_of(&part, "1.0.0").await;
    world.published("2.0.0").await;
    world.wait(100 * DAY);
    let dry = world.collected(true).await.unwrap();
    assert_eq!(dry.freed.get("trunk=90d"), Some(&6), "{dry:?}");
    let real = world.collected(false).await.unwrap();
    assert_eq!(over(&real), [" by branch=14d", "1.0.0 by trunk=90d"]);
    assert_eq!(world.pulled(&part).await, Pull::Unknown);
    assert_eq!(over(&world.collected(false).await.unwrap()), Vec::<String>::new());
    world.verified().await;
}

#[tokio::test]
async fn what_was_never_named_is_collected_too() {
    let world = World::new().await;
    let digest = world.artefact("by digest alone").await;
    assert_eq!(over(&world.after(15).await), [" by branch=14d"]);
    assert_eq!(world.pulled(&digest).await, Pull::Unknown);
}

#[tokio::test]
async fn one_name_in_two_spellings_is_given_once() {
    let world = World::new().await;
    let digest = world.artefact("1.0.0").await;
    let bytes = world.store.blobs().read(&digest).unwrap();
    let pushed =
        world.pushed(&bytes, media_type::OCI_MANIFEST, &["1.4.2", "v1.4.2", "latest"]).await.unwrap();
    assert!(
        matches!(&pushed.names[..], [Bound::Published { .. }, Bound::Already { .. }, Bound::Moved { .. }]),
        "{pushed:?}"
    );
}

#[tokio::test]
async fn a_damaged_manifest_is_healed_by_the_next_push() {
    let world = World::new().await;
    let digest = world.published("1.0.0").await;
    #[expect(clippy::disallowed_methods, reason = "the test damages the store on purpose")]
    std::fs::write(world.store.blobs().path(&digest), b"{}").unwrap();
    assert_eq!(world.artefact("1.0.0").await, digest);
    assert!(world.store.blobs().verify(&digest).is_ok());
    world.verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_in_the_middle_of_pushes_waits_its_turn() {
    let world = World::new().await;
    let store = world.store.clone();
    let audits = tokio::spawn(async move {
        for _ in 0..5 {
            assert_eq!(audit::verify(&store).await.unwrap().problems, Vec::<String>::new());
        }
    });
    let pushes = (0..4).map(|writer| {
        let (store, who) = (world.store.clone(), world.who.clone());
        tokio::spawn(async move {
            for number in 0..10 {
                let digest = store.blobs().put(format!("{writer} {number}").as_bytes()).unwrap().digest;
                let name = format!("other/w{writer}").parse().unwrap();
                semel_engine::content::received(&store, &name, &digest).await.unwrap();
            }
            who
        })
    });
    for push in pushes.collect::<Vec<_>>() {
        push.await.unwrap();
    }
    audits.await.unwrap();
}

#[tokio::test]
async fn uploads_that_nobody_went_on_with_go_with_a_collection() {
    let world = World::new().await;
    let blobs = world.store.blobs();
    let id = blobs.begin_upload().unwrap();
    blobs.append_to_upload(&id, 0, b"semel"[..].into()).await.unwrap();
    let now = std::time::SystemTime::from(world.now());
    let upload = std::fs::File::open(blobs.uploads().path(&id)).unwrap();
    let mut found = Vec::new();
    for (age, dry_run) in [(DAY - 1, false), (DAY + 1, true), (DAY + 1, false), (DAY + 1, false)] {
        if blobs.upload_size(&id).is_ok() {
            upload.set_modified(now - std::time::Duration::from_secs(age.unsigned_abs())).unwrap();
        }
        let uploads = world.collected(dry_run).await.unwrap().uploads;
        found.push((uploads.blobs, uploads.bytes));
    }
    assert_eq!(found, [(0, 0), (1, 5), (1, 5), (0, 0)]);
}

#[tokio::test]
async fn missing_bytes_stop_a_collection_and_remove_no_name() {
    let world = World::new().await;
    let lost = world.published("1.0.0").await;
    world.published("2.0.0").await;
    std::fs::remove_file(world.store.blobs().path(&lost)).unwrap();
    let mut turn = world.store.turn().await.unwrap();
    turn.db().execute("DELETE FROM content", &[]).await.unwrap();
    turn.append(Vec::new()).await.unwrap();
    world.wait(200 * DAY);
    let refused = world.collected(false).await.unwrap_err();
    assert!(refused.to_string().contains(lost.as_str()), "{refused}");
    assert_eq!(world.artefact("1.0.0").await, lost);
    assert_eq!(
        over(&world.collected(false).await.unwrap()),
        ["1.0.0 by trunk=90d"],
        "whole again, it is judged"
    );
}

#[tokio::test]
async fn a_store_whose_blobs_are_not_its_own_is_not_collected() {
    let world = World::new().await;
    world.published("1.0.0").await;
    let path = world.store.dir().join("blobs/store-id");
    std::fs::remove_file(&path).unwrap();
    let refused = world.collected(false).await.unwrap_err();
    assert!(refused.to_string().contains("mounted"), "{refused}");
}

#[tokio::test]
async fn a_manifest_that_nothing_holds_can_be_removed_and_pushed_again() {
    let world = World::new().await;
    let digest = world.artefact("passing").await;
    assert_eq!(world.removed(&digest).await, Removed::Gone);
    assert_eq!(world.removed(&digest).await, Removed::Unknown);
    assert_eq!(world.artefact("passing").await, digest);
    assert!(matches!(world.pulled(&digest).await, Pull::Found { .. }));
    world.verified().await;
}

#[tokio::test]
async fn a_flood_of_refused_pushes_leaves_one_entry() {
    let world = World::new().await;
    world.published("1.0.0").await;
    let layer = world.upload(b"other bytes").await;
    world.upload(b"{}").await;
    let manifest = ImageManifest {
        artifact_type: Some(media_type::SEMEL_ARCHIVE.to_owned()),
        config: Descriptor::empty(),
        layers: vec![Descriptor::new(media_type::OCI_LAYER_TAR, layer.digest, layer.size)],
        subject: None,
        annotations: Annotations::new(),
    }
    .encode();
    let size = world.size().await;
    for _ in 0..25 {
        let pushed = world.pushed(&manifest.bytes, media_type::OCI_MANIFEST, &["1.0.0"]).await.unwrap();
        assert!(matches!(&pushed.names[..], [Bound::Refused(refused)] if refused.bound.is_some()));
    }
    assert_eq!(world.size().await, size + 1);
    assert_eq!(world.pulled(&manifest.descriptor.digest).await, Pull::Unknown, "it is not stored either");
}

#[tokio::test]
async fn nobody_gets_the_bytes_of_another_component_by_naming_them() {
    let world = World::new().await;
    let secret = world.store.blobs().put(b"other people's bytes").unwrap();
    world.upload(b"{}").await;
    let manifest = ImageManifest {
        artifact_type: None,
        config: Descriptor::empty(),
        layers: vec![Descriptor::new(media_type::OCI_LAYER_TAR, secret.digest.clone(), secret.size)],
        subject: None,
        annotations: Annotations::new(),
    }
    .encode();
    let refused = world.pushed(&manifest.bytes, media_type::OCI_MANIFEST, &["1.0.0"]).await.unwrap_err();
    assert!(matches!(refused, StoreManifestError::MissingContent(digest) if digest == secret.digest));
}

#[tokio::test]
async fn a_manifest_that_is_wrong_about_a_size_is_refused() {
    let world = World::new().await;
    let layer = world.upload(b"five!").await;
    world.upload(b"{}").await;
    let manifest = ImageManifest {
        artifact_type: None,
        config: Descriptor::empty(),
        layers: vec![Descriptor::new(media_type::OCI_LAYER_TAR, layer.digest, 4)],
        subject: None,
        annotations: Annotations::new(),
    }
    .encode();
    let refused = world.pushed(&manifest.bytes, media_type::OCI_MANIFEST, &["1.0.0"]).await.unwrap_err();
    assert!(matches!(refused, StoreManifestError::WrongSize { said: 4, found: 5, .. }), "{refused}");
}

#[tokio::test]
async fn a_scrub_puts_damage_aside_and_a_push_heals_it() {
    let world = World::new().await;
    let digest = world.published("1.0.0").await;
    let layer = world.layer(&digest).await;
    #[expect(clippy::disallowed_methods, reason = "the test damages the store on purpose")]
    std::fs::write(world.store.blobs().path(&layer), b"1.O.0").unwrap();
    let first = scrub::scrub(&world.store, u64::MAX, world.now()).await.unwrap();
    assert_eq!(first.damaged, std::slice::from_ref(&layer));
    assert!(!world.store.blobs().contains(&layer));
    assert_eq!(scrub::damaged(&world.store).await.unwrap().len(), 1);
    assert_eq!(world.artefact("1.0.0").await, digest);
    let second = scrub::scrub(&world.store, u64::MAX, world.now()).await.unwrap();
    assert_eq!((second.healed, second.damaged.len(), second.left), (vec![layer], 0, 0));
    assert_eq!(scrub::damaged(&world.store).await.unwrap(), []);
    let few = scrub::scrub(&world.store, 1, world.now()).await.unwrap();
    assert!(few.left > 0 && few.blobs >= 1, "{few:?}");
    world.verified().await;
}

#[tokio::test]
async fn a_year_of_merges_takes_no_more_room_than_the_rules_allow() {
    // Time runs faster: a day of the rules is an hour of work here, with three merges.
    let world = World::new().await;
    let rule: semel_model::keep::Keep = serde_json::from_str(r#"{"trunk":"24h","branch":"14h"}"#).unwrap();
    world.published("0.0.0").await;
    let changed = semel_model::entry::Change::ComponentChanged(semel_model::entry::ComponentChanged {
        component: component(),
        keep: Some(rule),
        patterns: None,
        scheme: None,
    });
    let turn = world.store.turn().await.unwrap();
    turn.record(&world.who, world.now(), vec![changed]).await.unwrap();
    let mut given = Vec::new();
    for hour in 0..60 {
        for merge in 0..3 {
            let version = format!("1.{hour}.{merge}");
            given.push((world.published(&version).await, version));
            world.wait(3_600 / 3);
        }
        if hour % 12 == 11 {
            world.collected(false).await.unwrap();
        }
    }
    let mut with_bytes = 0;
    for (digest, version) in &given {
        match world.pulled(digest).await {
            Pull::Found { .. } => with_bytes += 1,
            Pull::Expired { digest: meant, .. } => assert_eq!(meant, *digest, "{version}"),
            other => panic!("{version}: {other:?}"),
        }
    }
    assert!((66..=74).contains(&with_bytes), "24 hours of three merges each: {with_bytes}");
    world.verified().await;
}

#[test]
fn holders_are_said_in_words() {
    let version = Holder::Newest { version: "1.2.3".parse().unwrap() };
    assert_eq!(version.to_string(), "1.2.3 is the newest version");
}

#[tokio::test]
async fn what_is_built_after_its_bytes_have_gone_is_built_again_and_brings_the_same_bytes_back() {
    let world = World::new().await;
    let first = world.built(1, "one").await;
    world.built(2, "two").await;
    let collected = world.after(91).await;
    assert_eq!(over(&collected), ["0.0.1 by trunk=90d"]);
    let granted = world.granted(request(1, "one")).await;
    assert_eq!((granted.number, granted.salt), (3, 1), "nothing answers with bytes that are not here");
    let waiting = world.reserve(request(1, "one")).await;
    assert!(matches!(waiting, Reservation::Running(_)), "one builds it: {waiting:?}");
    assert_eq!(world.artefact("one").await, first.digest);
    let again = world.commit(&granted, &first.digest).await.unwrap();
    assert_eq!(world.reserve(request(1, "one")).await, Reservation::Built(again));
    for word in ["0.0.1".to_owned(), granted.version.to_string()] {
        let found = inspect(&world.store, &component(), &word.parse().unwrap(), world.now()).await;
        assert!(found.unwrap().artefact.expired.is_none(), "{word} means bytes that are here");
    }
    world.verified().await;
}

#[tokio::test]
async fn the_source_goes_with_the_bytes_and_what_is_said_stays() {
    let world = World::new().await;
    let old = world.published("1.0.0").await;
    let bytes = world.store.blobs().read(&old).unwrap();
    let subject = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
    let mut attached = Vec::new();
    for artifact_type in [media_type::SEMEL_SOURCE, "application/vnd.example.report"] {
        let layer = world.upload(artifact_type.as_bytes()).await;
        let layers = vec![Descriptor::new("application/octet-stream", layer.digest.clone(), layer.size)];
        let referrer = ImageManifest::referrer(&subject, artifact_type, layers, Annotations::new()).encode();
        world.pushed(&referrer.bytes, media_type::OCI_MANIFEST, &[]).await.unwrap();
        attached.push((referrer.descriptor.digest, layer.digest));
    }
    world.published("2.0.0").await;
    world.wait(91 * DAY);
    let planned = world.collected(true).await.unwrap();
    let source_bytes = media_type::SEMEL_SOURCE.len() as u64;
    assert!(planned.freed["trunk=90d"] > source_bytes, "the source is counted: {:?}", planned.freed);
    let collected = world.collected(false).await.unwrap();
    assert_eq!(over(&collected), [" by branch=14d", "1.0.0 by trunk=90d"]);
    let [(source, source_layer), (report, report_layer)] = &attached[..] else { panic!() };
    assert_eq!(world.pulled(source).await, Pull::Unknown);
    assert!(!world.store.blobs().contains(source_layer));
    assert!(matches!(world.pulled(report).await, Pull::Found { .. }));
    assert!(world.store.blobs().contains(report_layer));
    world.verified().await;
}
