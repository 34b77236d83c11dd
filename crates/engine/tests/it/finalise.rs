//! A candidate gets its final name, once.

use semel_engine::error::EngineError;
use semel_engine::finalise::{Finalise, Finalised, finalise};
use semel_engine::look::versions::{inspect, versions};
use semel_engine::publish::Bound;
use semel_engine::reserve::{Built, Reserve};
use semel_model::allocation::Scheme;
use semel_model::digest::Digest;

use crate::{World, component, request};

impl World {
    /// Builds commit `n` as a candidate.
    async fn candidate(&self, n: u8) -> Built {
        let asked = Reserve { scheme: Some(Scheme::Candidate), ..request(n, &format!("tree {n}")) };
        let granted = self.granted(asked).await;
        let digest = self.artefact(&format!("tree {n}")).await;
        self.commit(&granted, &digest).await.unwrap()
    }

    async fn finalise(&self, word: &str) -> Result<Finalised, EngineError> {
        let request = Finalise { component: component(), version: word.to_owned() };
        finalise(&self.store, &self.who, request, self.now()).await
    }

    async fn became_final(&self, word: &str) -> (String, String, Digest, bool) {
        match self.finalise(word).await.unwrap() {
            Finalised::Final { version, candidate, digest, already } => {
                (version.to_string(), candidate.to_string(), digest, already)
            }
            Finalised::Refused(refused) => panic!("{}", refused.reason),
        }
    }

    async fn refused(&self, word: &str) -> String {
        match self.finalise(word).await.unwrap() {
            Finalised::Refused(refused) => refused.reason,
            other @ Finalised::Final { .. } => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_final_name_means_the_same_digest_and_everything_that_is_known_of_it() {
    let world = World::new().await;
    let first = world.candidate(1).await;
    world.attest("0.0.1-rc.1", "manual", "pass").await;
    for (word, already) in [("0.0.1-rc.1", false), ("0.0.1-rc.1", true), ("1", true), ("0.0.1", true)] {
        let expected = ("0.0.1".to_owned(), "0.0.1-rc.1".to_owned(), first.digest.clone(), already);
        assert_eq!(world.became_final(word).await, expected, "{word}");
    }
    assert_eq!(world.count("VersionFinalised").await, 1);
    let now = world.now();
    let seen = inspect(&world.store, &component(), &"0.0.1".parse().unwrap(), now).await.unwrap();
    assert_eq!(
        (seen.names, seen.artefact.number),
        (vec!["0.0.1-rc.1".to_owned(), "0.0.1".to_owned()], Some(1))
    );
    let kinds: Vec<String> = seen.evidence.into_iter().map(|one| one.kind).collect();
    assert_eq!(kinds, ["provenance", "manual"]);
    let listed = versions(&world.store, &component(), 9).await.unwrap();
    let listed: Vec<_> =
        listed.iter().map(|one| one.artefact.version.as_ref().unwrap().to_string()).collect();
    assert_eq!(listed, ["0.0.1", "0.0.1-rc.1"]);
    world.assert_sound().await;
}

#[tokio::test]
async fn after_a_final_version_come_the_candidates_of_the_next() {
    let world = World::new().await;
    world.candidate(1).await;
    world.candidate(2).await;
    world.became_final("0.0.1-rc.1").await;
    let reason = world.refused("0.0.1-rc.2").await;
    assert_eq!(reason, "0.0.1 is finalised (it is 0.0.1-rc.1); next is 0.0.2-rc.1");
    assert_eq!(world.count("OverwriteRefused").await, 1);
    assert_eq!(world.candidate(3).await.version.to_string(), "0.0.2-rc.1");
    let digest = world.artefact("pushed").await;
    let Bound::Refused(refused) = world.bind("0.0.1-rc.9", &digest).await.unwrap() else { panic!() };
    assert_eq!(refused.reason, reason);
    assert_eq!(refused.next_free, Some("0.0.2-rc.1".parse().unwrap()));
    let Bound::Already { .. } = world.bind("0.0.1-rc.2", &world.artefact("tree 2").await).await.unwrap()
    else {
        panic!("what has a name keeps it")
    };
    world.assert_sound().await;
}

#[tokio::test]
async fn only_a_candidate_becomes_final_and_only_once() {
    let world = World::new().await;
    world.published("1.0.0").await;
    world.published("1.0.0-beta").await;
    for word in ["1.0.0", "1.0.0-beta"] {
        let error = world.finalise(word).await.unwrap_err();
        assert!(error.to_string().ends_with("is no candidate: only X.Y.Z-rc.N becomes X.Y.Z"), "{error}");
    }
    let digest = world.artefact("same bytes").await;
    for name in ["2.0.0-rc.1", "2.1.0-rc.1"] {
        world.bind(name, &digest).await.unwrap();
    }
    world.became_final("2.0.0-rc.1").await;
    let error = world.finalise("2.1.0-rc.1").await.unwrap_err();
    assert!(error.to_string().ends_with("is final already: 2.0.0-rc.1 became 2.0.0"), "{error}");
    let error = world.finalise("7.0.0-rc.1").await.unwrap_err();
    assert!(matches!(error, EngineError::NotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn a_name_that_means_other_bytes_is_not_given_to_a_candidate() {
    let world = World::new().await;
    world.candidate(1).await;
    world.published("0.0.1").await;
    assert!(world.refused("0.0.1-rc.1").await.contains("0.0.1 is bound to sha256:"));
    assert_eq!(world.count("VersionFinalised").await, 0);
}
