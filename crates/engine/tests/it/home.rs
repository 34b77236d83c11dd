//! A component's home moves to another store: every number and name goes with it, and there is never more than one home.

use semel_engine::error::EngineError;
use semel_engine::home::{
    Bequeath, Bequest, Inherit, LeaveHome, Left, TakeHome, Taken, bequeath, inherit, leave, take,
};
use semel_engine::reserve::{Reservation, reserve};
use semel_model::build::Line;

use crate::{World, component, holding, request};

impl World {
    async fn leave_for(&self, other: &Self) -> Result<Left, EngineError> {
        let (to, place) = (other.store.id().to_owned(), Some("https://semel.example".to_owned()));
        let request = LeaveHome { component: component(), to, place, to_size: Some(other.size().await) };
        leave(&self.store, &self.who, request, self.now()).await
    }

    /// Learns everything that another store knows, page by page; how much was new.
    async fn learn_from(&self, other: &Self) -> Result<u64, EngineError> {
        let (mut after_number, mut after_seq, mut new) = (0, 0, 0);
        loop {
            let ask = Bequeath { component: component(), after_number, after_seq };
            let bequest = bequeath(&other.store, &ask).await?;
            if bequest.builds.is_empty() && bequest.names.is_empty() {
                return Ok(new);
            }
            after_number = bequest.builds.last().map_or(after_number, |last| last.reserved.number);
            after_seq = bequest.seq;
            let from = other.store.id().to_owned();
            let told = Inherit { component: component(), from, bequest };
            new += inherit(&self.store, &self.who, told, self.now()).await?.new;
        }
    }

    async fn take_home(&self, left: Left) -> Result<Taken, EngineError> {
        take(&self.store, &self.who, TakeHome { component: component(), left }, self.now()).await
    }

    async fn refuses_to_build(&self) -> String {
        let asked = reserve(&self.store, &self.who, request(9, "something new"), self.now()).await;
        match asked {
            Err(error @ EngineError::NotAllowed { .. }) => {
                format!("{error} ({})", error.hint().unwrap_or_default())
            }
            other => panic!("it is the home: {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_new_home_goes_on_with_the_numbers_and_knows_what_was_built() {
    let (old, new) = (World::new().await, World::new().await);
    let first = old.built(1, "one").await;
    old.granted(request(2, "two")).await;
    old.published("7.0.0").await;
    assert!(matches!(old.leave_for(&new).await, Err(EngineError::TryAgain { .. })), "build 2 is running");
    old.wait(60);
    assert_eq!(new.learn_from(&old).await.unwrap(), 4, "two builds and two names");
    assert_eq!(new.learn_from(&old).await.unwrap(), 0);
    assert!(new.refuses_to_build().await.contains("holds copies"), "the old store is still the home");
    old.built(3, "three").await;
    let left = old.leave_for(&new).await.unwrap();
    assert!(old.refuses_to_build().await.contains("has moved"));
    assert!(old.refuses_to_build().await.contains("--server https://semel.example"));
    let early = new.take_home(left.clone()).await;
    assert!(matches!(early, Err(EngineError::Precondition { .. })), "build 3 is not known there: {early:?}");
    assert!(new.refuses_to_build().await.contains("holds copies"), "no store is the home now");
    assert_eq!(new.learn_from(&old).await.unwrap(), 2);
    assert_eq!(new.take_home(left.clone()).await.unwrap(), Taken { last_build: 3, already: false });
    assert_eq!(new.take_home(left.clone()).await.unwrap(), Taken { last_build: 3, already: true });
    assert_eq!(old.leave_for(&new).await.unwrap().entry, left.entry, "leaving once more is the same");

    let known = new.reserve(request(1, "one")).await;
    assert!(matches!(known, Reservation::Built(built) if built.digest == first.digest), "built once");
    let retried = new.granted(request(2, "two")).await;
    assert_eq!((retried.number, retried.version.to_string()), (2, "0.0.2".to_owned()), "reserved there");
    let next = new.granted(request(4, "four")).await;
    assert_eq!(next.number, 4);
    assert_eq!(next.version.to_string(), "0.0.4");
    let taken = new.bind("7.0.0", &new.artefact("other bytes").await).await.unwrap();
    assert!(matches!(taken, semel_engine::publish::Bound::Refused(_)), "names are taken: {taken:?}");
    old.assert_sound().await;
    new.assert_sound().await;
}

#[tokio::test]
async fn a_component_that_began_in_the_other_store_is_another_one() {
    let (old, new) = (World::new().await, World::new().await);
    old.built(1, "one").await;
    new.published("7.0.0").await;
    let refused = new.learn_from(&old).await;
    assert!(matches!(refused, Err(EngineError::Conflict { .. })), "{refused:?}");
    let left = old.leave_for(&new).await.unwrap();
    let taken = new.take_home(left).await;
    assert!(
        matches!(taken, Err(EngineError::Precondition { .. })),
        "it would give number 1 again: {taken:?}"
    );
}

#[tokio::test]
async fn a_home_is_taken_only_with_the_proof_that_it_was_left_for_this_store() {
    let (old, new, third) = (World::new().await, World::new().await, World::new().await);
    old.built(1, "one").await;
    let left = old.leave_for(&new).await.unwrap();
    for learner in [&new, &third] {
        learner.learn_from(&old).await.unwrap();
    }
    let elsewhere = third.take_home(left.clone()).await;
    assert!(matches!(elsewhere, Err(EngineError::Invalid { .. })), "{elsewhere:?}");
    let entry = left.entry.replace(new.store.id(), third.store.id());
    let forged = third.take_home(Left { entry, ..left.clone() }).await;
    assert!(matches!(forged, Err(EngineError::Verification { .. })), "{forged:?}");
    let unsigned =
        new.take_home(Left { ledger_key: third.store.identity().ledger_key.clone(), ..left.clone() });
    assert!(matches!(unsigned.await, Err(EngineError::Verification { .. })));
    assert!(old.leave_for(&third).await.is_err(), "it has left already");
    new.take_home(left).await.unwrap();
}

#[tokio::test]
async fn a_home_moves_back_and_a_late_result_of_the_old_one_is_refused() {
    let (old, new) = (World::new().await, World::new().await);
    let late = old.granted(request(1, "one")).await;
    old.wait(60);
    let left = old.leave_for(&new).await.unwrap();
    let digest = old.artefact("late").await;
    let refused = old.commit(&late, &digest).await.unwrap_err();
    assert!(matches!(refused, EngineError::NotAllowed { .. }), "{refused:?}");
    new.learn_from(&old).await.unwrap();
    new.take_home(left).await.unwrap();
    let granted = new.granted(request(1, "one")).await;
    let built = new.commit(&granted, &new.artefact("good").await).await.unwrap();
    assert_eq!(built.number, 1);
    let left = new.leave_for(&old).await.unwrap();
    old.learn_from(&new).await.unwrap();
    assert_eq!(old.take_home(left).await.unwrap().last_build, 1);
    let known = old.reserve(request(1, "one")).await;
    assert!(matches!(known, Reservation::Built(back) if back.digest == built.digest));
    let branch = Line::Branch("feat".to_owned());
    let next = old.granted(semel_engine::reserve::Reserve { line: branch, ..request(2, "two") }).await;
    assert_eq!(next.number, 2);
    assert_ne!(holding(&next).token, "");
    old.assert_sound().await;
    new.assert_sound().await;
}

#[tokio::test]
async fn an_old_proof_makes_no_second_home() {
    let (old, new) = (World::new().await, World::new().await);
    old.built(1, "one").await;
    let first = old.leave_for(&new).await.unwrap();
    new.learn_from(&old).await.unwrap();
    new.take_home(first.clone()).await.unwrap();
    let back = new.leave_for(&old).await.unwrap();
    let again = old.leave_for(&new).await.unwrap();
    assert_eq!(again.entry, first.entry, "it has left, and has not taken the home back yet");
    let refused = new.take_home(again).await;
    assert!(matches!(refused, Err(EngineError::Verification { .. })), "{refused:?}");
    old.take_home(back.clone()).await.unwrap();
    assert!(new.take_home(first).await.is_err());
    let next = old.leave_for(&new).await.unwrap();
    assert!(old.take_home(back).await.is_err(), "that one is old by now, too");
    assert!(!new.take_home(next).await.unwrap().already);
    old.refuses_to_build().await;
    new.assert_sound().await;
}

#[tokio::test]
async fn what_is_handed_over_is_about_the_component_alone() {
    let (old, new) = (World::new().await, World::new().await);
    old.built(1, "one").await;
    old.published("7.0.0").await;
    let ask = Bequeath { component: component(), after_number: 0, after_seq: 0 };
    let good = bequeath(&old.store, &ask).await.unwrap();
    let spoilt = |spoil: fn(&mut Bequest)| {
        let mut bequest = good.clone();
        spoil(&mut bequest);
        bequest
    };
    let cases = [
        ("another's build", spoilt(|one| one.builds[0].reserved.component = "shop/web".parse().unwrap())),
        ("another's name", spoilt(|one| one.names[0].component = "shop/web".parse().unwrap())),
        ("no number", spoilt(|one| one.builds[0].reserved.number = 0)),
        ("no number that could be counted on from", spoilt(|one| one.builds[0].reserved.number = u64::MAX)),
        ("another source", spoilt(|one| one.builds[0].source.push(' '))),
        ("a log that is not here", spoilt(|one| one.names[0].log = Some(one.names[0].digest.clone()))),
        ("more than a page", spoilt(|one| one.names = vec![one.names[0].clone(); 251])),
    ];
    let before = new.size().await;
    for (what, bequest) in cases {
        let told = Inherit { component: component(), from: old.store.id().to_owned(), bequest };
        let answer = inherit(&new.store, &new.who, told, new.now()).await;
        assert!(matches!(answer, Err(EngineError::Invalid { .. })), "{what}: {answer:?}");
    }
    assert_eq!(new.size().await, before);
}

#[tokio::test]
async fn a_home_leaves_for_a_store_and_not_for_nowhere() {
    let world = World::new().await;
    world.built(1, "one").await;
    let id = "0123456789abcdef";
    for (to, place) in [
        ("the other one", None),
        ("", None),
        ("0123456789ABCDEF", None),
        (id, Some("/srv/semel")),
        (id, Some("https://semel.example/\u{1b}[2J")),
        (id, Some("https://semel.example --store /tmp")),
    ] {
        let place = place.map(str::to_owned);
        let request = LeaveHome { component: component(), to: to.to_owned(), place, to_size: None };
        let answer = leave(&world.store, &world.who, request, world.now()).await;
        assert!(matches!(answer, Err(EngineError::Invalid { .. })), "{to}: {answer:?}");
    }
    world.built(2, "two").await;
}
