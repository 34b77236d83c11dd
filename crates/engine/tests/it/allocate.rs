//! Which version a commit gets: what is recorded for it, and what is not.

use semel_engine::allocate::{Forecast, Next, NextVersion, next};
use semel_engine::component::{ChangeComponent, ComponentFacts, CreateComponent, change, create, show};
use semel_engine::error::EngineError;
use semel_engine::reserve::{Reservation, Reserve, SourceDocument};
use semel_model::allocation::{Base, Scheme};
use semel_model::build::{Bump, CommitFact, Line, ReleaseLine};
use semel_model::entry::Change;
use semel_model::version::{TagPolicy, Version};

use crate::{World, commit_id, component, request};

fn version(text: &str) -> Version {
    Version::named(text.parse().unwrap())
}

fn proposing(scheme: Scheme, request: Reserve) -> Reserve {
    Reserve { scheme: Some(scheme), ..request }
}

/// Only the newest `count` commits are sent.
fn cut(mut request: Reserve, count: usize) -> Reserve {
    request.history.commits.truncate(count);
    request.history.truncated = true;
    request
}

fn tree(n: u8) -> String {
    format!("tree {n}")
}

impl World {
    async fn next(&self, request: Reserve) -> Next {
        next(&self.store, &self.who, &NextVersion(request), self.now()).await.unwrap()
    }

    async fn forecast(&self, request: Reserve) -> Forecast {
        match self.next(request).await {
            Next::New(forecast) => *forecast,
            other => panic!("not new: {other:?}"),
        }
    }

    async fn built_from(&self, request: Reserve) -> String {
        let content = request.commit.to_string();
        let granted = self.granted(request).await;
        let digest = self.artefact(&content).await;
        self.commit(&granted, &digest).await.unwrap().version.to_string()
    }

    async fn facts(&self) -> ComponentFacts {
        show(&self.store, &component()).await.unwrap()
    }

    async fn with_scheme(&self, scheme: Scheme) -> bool {
        let request =
            ChangeComponent { component: component(), patterns: None, keep: None, scheme: Some(scheme) };
        change(&self.store, &self.who, request, self.now()).await.unwrap().already
    }
}

#[tokio::test]
async fn asking_for_the_next_version_reserves_and_records_nothing() {
    let world = World::new().await;
    let size = world.size().await;
    for _ in 0..2 {
        let forecast = world.forecast(request(2, "tree")).await;
        assert_eq!((forecast.version, forecast.number), (version("0.0.1"), 1));
        assert_eq!((forecast.base, forecast.bump), (Base::Nothing, Bump::Patch));
        assert_eq!(forecast.since, [commit_id(2), commit_id(1)]);
    }
    assert_eq!(world.size().await, size);
    assert_eq!(world.built_from(request(2, "tree")).await, "0.0.1");
    let Next::Had(given) = world.next(request(2, "tree")).await else { panic!("it was given a version") };
    assert_eq!((given.version, given.number, given.published), (version("0.0.1"), 1, true));
    assert_eq!((given.follows, given.bump), (None, Bump::Patch));
    assert_eq!(given.since, [commit_id(2), commit_id(1)]);
    let forecast = world.forecast(request(3, "another tree")).await;
    assert_eq!(forecast.base, Base::Given { version: version("0.0.1"), commit: commit_id(2) });
}

#[tokio::test]
async fn an_ancestor_that_is_built_after_its_descendant_gets_a_lower_version() {
    let world = World::new().await;
    let mut given = Vec::new();
    for n in [9, 3, 6, 1, 8] {
        given.push((n, version(&world.built_from(request(n, &tree(n))).await)));
    }
    let names: Vec<String> = given.iter().map(|(_, version)| version.to_string()).collect();
    assert_eq!(names, ["0.0.1", "0.0.1-late.3.2", "0.0.1-late.6.3", "0.0.1-late.1.4", "0.0.1-late.8.5"]);
    given.sort_by_key(|(n, _)| *n);
    assert!(given.is_sorted_by_key(|(_, version)| version.clone()), "{given:?}");
    world.assert_sound().await;
}

#[tokio::test]
async fn commits_that_were_told_once_need_not_be_told_again() {
    let world = World::new().await;
    world.built_from(request(3, &tree(3))).await;
    assert_eq!(world.count("CommitsRecorded").await, 1);
    let granted = world.granted(cut(request(4, &tree(4)), 1)).await;
    assert_eq!((granted.version.to_string(), granted.since), ("0.0.2".to_owned(), vec![commit_id(4)]));
    let Change::CommitsRecorded(told) = world.newest("CommitsRecorded").await else { panic!("its kind") };
    assert_eq!(told.commits.iter().map(|one| one.id.clone()).collect::<Vec<_>>(), [commit_id(4)]);
    assert!(!told.commits[0].author.contains('@'), "authors are pseudonyms");
    // Commit 5 has the tree of none: what is between it and what is known must be told.
    let short = world.reserve(cut(request(6, &tree(6)), 1)).await;
    assert_eq!(short, Reservation::HistoryNeeded { commits: vec![commit_id(5)] });
    let Next::HistoryNeeded { commits } = world.next(cut(request(6, &tree(6)), 1)).await else { panic!() };
    assert_eq!(commits, [commit_id(5)]);
    world.assert_sound().await;
}

#[tokio::test]
async fn the_authors_of_commits_that_were_not_sent_again_are_known() {
    let world = World::new().await;
    let refunds = Line::Branch("refunds".to_owned());
    world.built_from(Reserve { line: refunds, ..request(2, &tree(2)) }).await;
    world.granted(cut(request(3, &tree(3)), 1)).await;
    let Change::BuildReserved(reserved) = world.newest("BuildReserved").await else { panic!("its kind") };
    let bytes = world.store.blobs().read(&reserved.source).unwrap();
    let source: SourceDocument = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(source.since.iter().map(|fact| fact.id.clone()).collect::<Vec<_>>(), [3, 2, 1].map(commit_id));
    let first = &source.since[0].author;
    assert!(source.since.iter().all(|fact| fact.author == *first), "one person has one pseudonym");
}

#[tokio::test]
async fn a_long_history_is_recorded_in_as_many_entries_as_it_needs() {
    let world = World::new().await;
    let id = |n: usize| format!("{n:040x}").parse().unwrap();
    let fact = |n: usize| CommitFact {
        id: id(n),
        parents: n.checked_sub(1).map(id).into_iter().collect(),
        author: "ben@shop.example".to_owned(),
        subject: "fix: something".to_owned(),
        bump: Bump::Patch,
        outside: n % 2 == 1,
    };
    let mut long = request(1, "tree");
    long.commit = id(999);
    long.history.commits = (0..1_000).rev().map(fact).collect();
    let granted = world.granted(long).await;
    assert_eq!(granted.since.len(), 500, "the others are outside the source tree");
    let mut recorded = 0;
    for entry in world.entries().await {
        if let Change::CommitsRecorded(told) = entry.change {
            recorded += told.commits.len();
        }
    }
    assert_eq!(recorded, 1_000);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_release_line_keeps_the_main_line_away_from_its_numbers() {
    let world = World::new().await;
    let line = Line::Release(ReleaseLine::of("release/0.0", "release/*").unwrap());
    assert_eq!(world.built_from(request(1, &tree(1))).await, "0.0.1");
    assert_eq!(world.built_from(Reserve { line, ..request(2, &tree(2)) }).await, "0.0.2");
    assert_eq!(world.built_from(request(3, &tree(3))).await, "0.1.0");
    let mut told = request(4, &tree(4));
    told.history.releases = vec![ReleaseLine::of("release/0.1", "release/*").unwrap()];
    assert_eq!(world.forecast(told).await.version, version("0.2.0"));
}

#[tokio::test]
async fn what_the_caller_wants_counts_more_than_what_the_commits_say() {
    let world = World::new().await;
    for (bump, expected) in [(Bump::Minor, "0.1.0"), (Bump::Stable, "1.0.0"), (Bump::Patch, "0.0.1")] {
        let wanted = Reserve { bump: Some(bump), ..request(1, "tree") };
        assert_eq!(world.forecast(wanted).await.version, version(expected));
    }
}

#[tokio::test]
async fn the_scheme_of_the_first_build_is_recorded_and_stays() {
    let world = World::new().await;
    let candidate = |n: u8| proposing(Scheme::Candidate, request(n, &tree(n)));
    assert_eq!(world.built_from(candidate(1)).await, "0.0.1-rc.1");
    assert_eq!(world.facts().await.scheme, Scheme::Candidate);
    let other = world.granted(proposing(Scheme::Continuous, request(2, &tree(2)))).await;
    assert_eq!(other.version, version("0.0.1-rc.2"));
    assert_eq!(
        other.notes,
        [
            "shop/api has the version scheme candidate, not continuous (semel component set shop/api --scheme continuous)"
        ]
    );
    assert_eq!(world.count("ComponentChanged").await, 1);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_component_that_was_made_by_hand_has_the_scheme_that_was_said() {
    let world = World::new().await;
    let made = CreateComponent {
        component: component(),
        policy: TagPolicy::Release,
        patterns: None,
        keep: None,
        scheme: Some(Scheme::Number),
    };
    create(&world.store, &world.who, made, world.now()).await.unwrap();
    assert_eq!(world.built_from(proposing(Scheme::Candidate, request(1, "tree"))).await, "1");
}

#[tokio::test]
async fn a_scheme_that_changes_goes_on_from_what_was_given_and_skips_what_is_taken() {
    let world = World::new().await;
    assert_eq!(world.built_from(request(1, &tree(1))).await, "0.0.1");
    assert!(!world.with_scheme(Scheme::Number).await);
    assert!(world.with_scheme(Scheme::Number).await, "the same again changes nothing");
    world.published("3").await;
    assert_eq!(world.built_from(request(2, &tree(2))).await, "2");
    assert_eq!(world.built_from(request(3, &tree(3))).await, "4", "3 was pushed by hand");
    world.with_scheme(Scheme::Candidate).await;
    world.published("0.0.2").await;
    assert_eq!(world.built_from(request(4, &tree(4))).await, "0.0.3-rc.1");
    world.with_scheme(Scheme::Continuous).await;
    assert_eq!(world.built_from(request(5, &tree(5))).await, "0.0.3");
    world.assert_sound().await;
}

#[tokio::test]
async fn a_store_that_is_not_the_home_says_so_instead_of_guessing() {
    let world = World::new().await;
    let digest = world.artefact("copy").await;
    let copy =
        semel_engine::publish::Bind { home: Some("feedbeef".to_owned()), ..crate::name("1.0.0", &digest) };
    semel_engine::publish::bind(&world.store, &world.who, copy, world.now()).await.unwrap();
    let error =
        next(&world.store, &world.who, &NextVersion(request(1, "tree")), world.now()).await.unwrap_err();
    assert!(matches!(error, EngineError::NotAllowed { .. }), "{error:?}");
}
