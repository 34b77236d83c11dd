//! What the tables are, whichever database has them.

use std::collections::BTreeSet;

use proptest::prelude::*;
use semel_model::digest::Digest;
use semel_model::entry::{Change, ChannelMoved};
use semel_model::name::{ComponentName, Tag};
use semel_store::projections::artefact;
use semel_store::schema::TABLES;

use super::world;
use crate::{actor, fill, now};

#[tokio::test]
async fn every_table_is_declared() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    let there = store.reader().await.unwrap().tables().await.unwrap();
    let declared: BTreeSet<String> = TABLES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(there.into_iter().collect::<BTreeSet<_>>(), declared);
}

#[tokio::test]
async fn names_are_in_the_order_of_their_bytes_on_every_page() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    let who = actor(&store).await;
    let component: ComponentName = "shop/api".parse().unwrap();
    let mut names =
        vec!["a-b", "a.b", "a_b", "aa", "ab", "a", "B", "b", "Z", "10", "9", "1", "_x", "x-1", "X1"];
    let moved = |name: &&str| {
        let (channel, to): (Tag, _) = (name.parse().unwrap(), Some(Digest::of(b"x")));
        Change::ChannelMoved(ChannelMoved { component: component.clone(), channel, from: None, to })
    };
    let changes = names.iter().map(moved).collect();
    store.turn().await.unwrap().record(&who, now(), changes).await.unwrap();
    names.sort_unstable();
    let mut reader = store.reader().await.unwrap();
    for (at, after) in names.iter().enumerate() {
        let page = artefact::tags(&mut reader, &component, after, 4).await.unwrap();
        assert_eq!(page, names[at + 1..].iter().take(4).copied().collect::<Vec<_>>(), "after {after}");
    }
    assert_eq!(artefact::tags(&mut reader, &component, "", 100).await.unwrap(), names);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn what_is_written_is_read_back(texts in proptest::collection::vec(".{0,40}|\0[ab]", 1..20), number in any::<i64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let Some(world) = world() else { return };
            let store = world.new_store().await;
            let mut turn = store.turn().await.unwrap();
            for (at, text) in texts.iter().enumerate() {
                let values = [format!("{at}").into(), text.as_str().into(), number.into()];
                let insert = "INSERT INTO lease \
                              (component, build_key, platform, attempt, token, holder, until_millis, failed) \
                              VALUES ($1, '', '', $3, $2, '', 0, 0)";
                turn.db().execute(insert, &values).await.unwrap();
                let select = "SELECT token, attempt FROM lease WHERE component = $1 AND token = $2";
                let row = turn.db().row(select, &values[..2]).await.unwrap().expect("it was written");
                assert_eq!((row.text(0), row.int(1)), (text.replace('\0', "\u{fffd}"), number));
            }
        });
    }
}

#[tokio::test]
async fn a_column_takes_nothing_and_something_in_either_order() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    let mut turn = store.turn().await.unwrap();
    let number: [Option<u64>; 3] = [None, Some(7), None];
    let text: [Option<&str>; 3] = [Some("log"), None, Some("log")];
    for (at, (number, text)) in number.into_iter().zip(text).enumerate() {
        let insert = "INSERT INTO version (component, name, digest, number, commit_id, log, time, seq) \
                      VALUES ('c', $1, 'd', $2, NULL, $3, 't', 1)";
        let values = [format!("{at}").into(), number.into(), text.into()];
        turn.db().execute(insert, &values).await.unwrap();
        let select = "SELECT number, log FROM version WHERE name = $1";
        let row = turn.db().row(select, &values[..1]).await.unwrap().expect("it was written");
        assert_eq!((row.opt_count(0), row.opt_text(1).as_deref()), (number, text));
    }
}

#[tokio::test]
async fn a_reader_sees_one_moment_while_others_record() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    let mut reader = store.reader().await.unwrap();
    reader.begin_reading().await.unwrap();
    let before = semel_store::ledger::size(&mut reader).await.unwrap();
    fill(&store, 1).await;
    assert_eq!(semel_store::ledger::size(&mut reader).await.unwrap(), before);
    reader.commit().await.unwrap();
    assert!(semel_store::ledger::size(&mut reader).await.unwrap() > before);
}
