//! The log of a running build: every byte once, for as long as the build runs.

use semel_engine::build_log::{AddToLog, Added, LogSoFar, MOST_BYTES, PIECE_BYTES, ReadLog, add, read};
use semel_engine::collect::{Collect, collect};
use semel_engine::reserve::{Fail, Granted, LEASE_MILLIS, fail, heartbeat, release};

use crate::{World, component, holding, request};

impl World {
    async fn add(&self, granted: &Granted, at_byte: u64, text: &str) -> Added {
        let piece = AddToLog { holding: holding(granted), at_byte, text: text.to_owned() };
        add(&self.store, piece, self.now()).await.unwrap()
    }

    async fn read(&self, attempt: u64, from_byte: u64) -> LogSoFar {
        let ask = ReadLog { component: component(), number: 1, attempt, from_byte, platform: None };
        read(&self.store, &ask, self.now()).await.unwrap()
    }
}

#[tokio::test]
async fn what_is_added_is_read_once_and_repeating_it_changes_nothing() {
    let world = World::new().await;
    let granted = world.granted(request(1, "tree")).await;
    assert_eq!(world.read(0, 0).await.text, "");
    let size = world.size().await;
    assert_eq!(world.add(&granted, 0, "one\n").await, Added { length: 4, full: false });
    assert_eq!(world.add(&granted, 0, "one\n").await.length, 4, "a repeat");
    assert_eq!(world.add(&granted, 0, "one\ntwo\n").await.length, 8, "a repeat with something new");
    assert_eq!(world.add(&granted, 8, "nul \0 h\u{e4}\n").await.length, 18);
    let all = world.read(0, 0).await;
    assert_eq!((all.text.as_str(), all.at_byte, all.attempt), ("one\ntwo\nnul   h\u{e4}\n", 0, 1));
    assert!(all.running && all.holder.is_some());
    assert_eq!(world.read(1, 4).await.text, "two\nnul   h\u{e4}\n");
    assert_eq!(world.read(1, 18).await.text, "");
    assert_eq!(world.size().await, size, "nothing of it is recorded");
}

#[tokio::test]
async fn a_lost_piece_is_seen_by_its_place() {
    let world = World::new().await;
    let granted = world.granted(request(1, "tree")).await;
    world.add(&granted, 0, "one\n").await;
    world.add(&granted, 100, "two\n").await;
    let first = world.read(1, 0).await;
    assert_eq!((first.at_byte, first.text.as_str()), (0, "one\n"));
    let second = world.read(1, 4).await;
    assert_eq!((second.at_byte, second.text.as_str()), (100, "two\n"));
}

#[tokio::test]
async fn another_attempt_begins_anew() {
    let world = World::new().await;
    let first = world.granted(request(1, "tree")).await;
    world.add(&first, 0, "of the first attempt\n").await;
    world.wait(LEASE_MILLIS / 1_000 + 1);
    assert!(!world.read(1, 0).await.running);
    let second = world.granted(request(1, "tree")).await;
    let seen = world.read(1, 21).await;
    assert_eq!((seen.attempt, seen.text.as_str()), (2, ""));
    world.add(&second, 0, "of the second\n").await;
    let seen = world.read(1, 21).await;
    assert_eq!((seen.attempt, seen.at_byte, seen.text.as_str()), (2, 0, "of the second\n"));
    let late = AddToLog { holding: holding(&first), at_byte: 21, text: "late\n".to_owned() };
    add(&world.store, late, world.now()).await.unwrap_err();
}

#[tokio::test]
async fn a_number_beyond_everything_is_behind_the_end() {
    let world = World::new().await;
    let granted = world.granted(request(1, "tree")).await;
    assert_eq!(world.add(&granted, u64::MAX, "one\n").await, Added { length: 0, full: true });
    assert_eq!(world.read(u64::MAX, u64::MAX).await.text, "");
    assert_eq!(world.read(1, u64::MAX).await.text, "");
}

#[tokio::test]
async fn what_a_killed_build_printed_goes_with_a_collection() {
    let world = World::new().await;
    let granted = world.granted(request(1, "tree")).await;
    world.add(&granted, 0, "one\n").await;
    for (seconds, left) in [(3_600, "one\n"), (2 * 86_400, "")] {
        world.wait(seconds);
        collect(&world.store, &world.who, Collect::default(), world.now()).await.unwrap();
        assert_eq!(world.read(1, 0).await.text, left, "after {seconds} seconds");
    }
}

#[tokio::test]
async fn it_goes_when_the_build_has_ended_however_it_did() {
    for ending in ["commit", "fail", "release"] {
        let world = World::new().await;
        let granted = world.granted(request(1, "tree")).await;
        world.add(&granted, 0, "one\n").await;
        match ending {
            "commit" => {
                let digest = world.artefact("tree").await;
                world.commit(&granted, &digest).await.unwrap();
            }
            "fail" => {
                let failed = Fail { holding: holding(&granted), reason: "exit 1".to_owned(), log: None };
                fail(&world.store, &world.who, failed, world.now()).await.unwrap();
            }
            _ => release(&world.store, &holding(&granted)).await.unwrap(),
        }
        let seen = world.read(1, 0).await;
        assert_eq!((seen.text.as_str(), seen.running), ("", false), "{ending}");
        world.add(&granted, 4, "late\n").await;
        assert_eq!(world.read(1, 0).await.text, "", "{ending}: what comes late would stay for ever");
    }
}

#[tokio::test]
async fn a_long_log_is_kept_up_to_a_bound() {
    let world = World::new().await;
    let granted = world.granted(request(1, "tree")).await;
    let piece = "x".repeat(PIECE_BYTES);
    let pieces = MOST_BYTES / PIECE_BYTES as u64;
    for n in 0..pieces {
        heartbeat(&world.store, &holding(&granted), world.now()).await.unwrap();
        assert!(!world.add(&granted, n * PIECE_BYTES as u64, &piece).await.full);
    }
    assert_eq!(world.add(&granted, MOST_BYTES, "y").await, Added { length: MOST_BYTES, full: true });
    let too_large = AddToLog { holding: holding(&granted), at_byte: 0, text: piece + "y" };
    add(&world.store, too_large, world.now()).await.unwrap_err();
    let (mut read, mut answers) = (0, 0);
    loop {
        let seen = world.read(1, read).await;
        if seen.text.is_empty() {
            break;
        }
        (read, answers) = (seen.at_byte + seen.text.len() as u64, answers + 1);
    }
    assert_eq!((read, answers), (MOST_BYTES, 4), "no answer has more than 1 MiB");
}
