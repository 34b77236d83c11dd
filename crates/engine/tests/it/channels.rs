//! Channels: where they point, where they pointed, and what a word with a time means.

use semel_engine::artefact::find;
use semel_engine::error::EngineError;
use semel_engine::look::channels::{channels, history};
use semel_engine::publish::remove_channel;
use semel_model::digest::Digest;
use semel_model::version::VersionWord;

use crate::{World, component, time};

const HOUR: i64 = 60 * 60;

/// `latest` and `1` point to 1.0.0 first; two hours later `latest` moves to 1.1.0.
async fn moved() -> (World, Digest, Digest) {
    let world = World::new().await;
    let (one, two) = (world.published("1.0.0").await, world.published("1.1.0").await);
    world.bind("latest", &one).await.unwrap();
    world.bind("1", &one).await.unwrap();
    world.wait(2 * HOUR);
    world.bind("latest", &two).await.unwrap();
    world.wait(HOUR);
    (world, one, two)
}

async fn meant(world: &World, word: &str) -> Result<String, EngineError> {
    let word: VersionWord = word.parse().unwrap();
    let mut conn = world.store.reader().await.unwrap();
    let found = find(&mut conn, &component(), &word, time(world.clock.get())).await?;
    Ok(found.version.map_or_else(|| found.digest.to_string(), |version| version.to_string()))
}

#[tokio::test]
async fn channels_are_listed_with_what_they_point_to_and_since_when() {
    let (world, one, two) = moved().await;
    let attached = format!("{}.sig", one.as_str().replace(':', "-"));
    world.bind(&attached, &one).await.unwrap();
    let lines = channels(&world.store, &component(), "", 10).await.unwrap();
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line.channel.as_str(), &line.digest, line.version.as_ref().unwrap().to_string()))
        .collect();
    assert_eq!(told, [("1", &one, "1.0.0".to_owned()), ("latest", &two, "1.1.0".to_owned())]);
    assert!(lines[0].since < lines[1].since);
    let rest = channels(&world.store, &component(), "1", 10).await.unwrap();
    assert_eq!(rest.len(), 1, "what comes behind a name");
}

#[tokio::test]
async fn the_history_of_a_channel_has_no_gaps_and_outlives_it() {
    let (world, one, two) = moved().await;
    let latest = "latest".parse().unwrap();
    remove_channel(&world.store, &world.who, &component(), &latest, world.now()).await.unwrap();
    let moves = history(&world.store, &component(), &latest, 10).await.unwrap();
    let digests: Vec<_> = moves.iter().map(|one| one.digest.as_ref()).collect();
    assert_eq!(digests, [None, Some(&two), Some(&one)]);
    assert_eq!(moves[0].until, None);
    for pair in moves.windows(2) {
        assert_eq!(pair[1].until.as_ref(), Some(&pair[0].from));
    }
    let error = history(&world.store, &component(), &"stable".parse().unwrap(), 10).await.unwrap_err();
    assert_eq!(error.to_string(), "shop/api never had a channel stable");
}

#[tokio::test]
async fn a_channel_is_a_word_where_nothing_else_has_the_name() {
    let (world, _, _) = moved().await;
    let cases = [
        ("latest", "1.1.0"),
        ("1", "1.0.0"),
        ("latest@{0.seconds.ago}", "1.1.0"),
        ("latest@{90.minutes.ago}", "1.0.0"),
        ("latest@{2100-11-22T11:00:00Z}", "1.0.0"),
        ("1@{30.minutes.ago}", "1.0.0"),
    ];
    for (word, version) in cases {
        assert_eq!(meant(&world, word).await.unwrap(), version, "{word}");
    }
    for word in ["stable", "latest@{1.week.ago}", "stable@{1.hour.ago}", "latest@{2100-11-01}"] {
        let error = meant(&world, word).await.unwrap_err();
        assert!(matches!(error, EngineError::NotFound { .. }) && error.hint().is_some(), "{word}: {error}");
    }
}

#[tokio::test]
async fn an_environment_has_what_ran_there_at_the_time() {
    let world = World::with_pipeline().await;
    for version in ["1.0.0", "1.1.0"] {
        world.published(version).await;
        world.deployed(version, "dev").await;
        world.wait(HOUR);
    }
    for (word, version) in [
        ("dev", "1.1.0"),
        ("dev~1", "1.0.0"),
        ("dev@{30.minutes.ago}", "1.1.0"),
        ("dev@{90.minutes.ago}", "1.0.0"),
    ] {
        assert_eq!(meant(&world, word).await.unwrap(), version, "{word}");
    }
    let error = meant(&world, "dev@{1.day.ago}").await.unwrap_err();
    assert!(error.to_string().contains("nothing of shop/api was deployed to dev by"), "{error}");
    assert_eq!(error.hint(), Some("semel history dev -c shop/api"));
}
