//! A deprecated version is what it was, and says that it should not be used.

use semel_engine::deprecate::{Deprecate, Deprecated, deprecate};
use semel_engine::error::EngineError;
use semel_engine::look::versions::{inspect, versions};
use semel_engine::pull::{Pull, find};

use crate::{World, component};

async fn say(world: &World, word: &str, reason: Option<&str>) -> Result<Deprecated, EngineError> {
    let (version, reason) = (word.to_owned(), reason.map(str::to_owned));
    let request = Deprecate { component: component(), version, reason };
    deprecate(&world.store, &world.who, request, world.now()).await
}

#[tokio::test]
async fn a_deprecation_is_told_until_it_is_taken_back() {
    let world = World::new().await;
    let digest = world.published("1.4.2").await;
    let shown = async || {
        let lines = versions(&world.store, &component(), 10).await.unwrap();
        let word = "1.4.2".parse().unwrap();
        let inspected = inspect(&world.store, &component(), &word, world.now()).await.unwrap();
        let mut conn = world.store.reader().await.unwrap();
        let Pull::Found { warning, .. } = find(&mut conn, &component(), &digest).await.unwrap() else {
            panic!("it can be fetched as before")
        };
        assert_eq!(lines[0].artefact.deprecated, inspected.artefact.deprecated);
        (inspected.artefact.deprecated, warning)
    };
    assert_eq!(shown().await, (None, None));
    for (reason, already) in [("use 1.4.3", false), ("use 1.4.3", true), (" use 1.4.4 ", false)] {
        let said = say(&world, "1.4.2", Some(reason)).await.unwrap();
        assert_eq!((said.reason.as_deref(), said.already), (Some(reason.trim()), already));
    }
    let warning = "shop/api 1.4.2 is deprecated: use 1.4.4".to_owned();
    assert_eq!(shown().await, (Some("use 1.4.4".to_owned()), Some(warning)));
    for already in [false, true] {
        assert_eq!(say(&world, "1.4.2", None).await.unwrap().already, already);
    }
    assert_eq!(shown().await, (None, None));
    assert_eq!(world.count("VersionDeprecated").await, 3, "a repeat records nothing");
    world.assert_sound().await;
}

#[tokio::test]
async fn what_fits_no_header_is_no_reason_and_a_bare_digest_is_not_deprecated() {
    let world = World::new().await;
    world.published("1.4.2").await;
    let unnamed = world.artefact("unnamed").await;
    let long = "x".repeat(501);
    for reason in ["", " ", "two\nlines", long.as_str()] {
        let error = say(&world, "1.4.2", Some(reason)).await.unwrap_err();
        assert!(error.to_string().starts_with("a reason is one line"), "{error}");
    }
    let error = say(&world, unnamed.as_str(), Some("use 1.4.3")).await.unwrap_err();
    assert!(error.to_string().contains("has no version to deprecate"), "{error}");
    assert_eq!(world.count("VersionDeprecated").await, 0);
}
