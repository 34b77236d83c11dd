//! What somebody did by hand shows, and the same order again puts it right.

use semel_model::deployment::{Drift, FilesState, Observed, Plan, RunState, drift};
use semel_targets::directory::{Depth, Outcome, control};

use crate::place::{Artefact, Place, Shelf, edit, is_alive, kill, other_service, service};

/// Two releases deployed one after the other; the second one runs.
async fn two_releases() -> (Place, Artefact, Artefact) {
    let place = Place::new();
    let (old, new) = (service(true), other_service("new"));
    place.deploy(1, &old, &[("NAME", "one")]).await;
    place.deploy(2, &new, &[("NAME", "two")]).await;
    (place, old, new)
}

fn differences(place: &Place, artefact: &Artefact, observed: &Observed) -> Vec<Drift> {
    drift(&place.order(2, artefact, &[("NAME", "two")]).desired, Some(observed))
}

/// The same order again: what had to be done, and nothing is left to do.
async fn put_right(place: &Place, artefact: &Artefact) -> Plan {
    let order = place.order(2, artefact, &[("NAME", "two")]);
    let outcome = place.converge(&order, &Shelf::of(artefact)).await.unwrap();
    let Outcome::Succeeded { plan, .. } = outcome else { panic!("{outcome:?}\n{}", place.supervisor_log()) };
    let observed = place.observe(Depth::Full).await;
    assert_eq!(differences(place, artefact, &observed), []);
    let again = place.converge(&order, &Shelf::of(artefact)).await.unwrap();
    assert!(matches!(again, Outcome::Succeeded { plan: Plan::Nothing, .. }), "{again:?}");
    plan
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_killed_is_started_again_by_its_supervisor() {
    let (place, _, new) = two_releases().await;
    let (pid, before) = (place.status().await.pid.unwrap(), place.observe(Depth::Quick).await);
    kill(pid);
    let again = |o: &Observed| o.state == RunState::Running && o.since != before.since;
    let observed = place.until("it runs again", again).await;
    assert_eq!(differences(&place, &new, &observed), []);
    assert_ne!(place.status().await.pid, Some(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_was_stopped_is_started() {
    let (place, _, new) = two_releases().await;
    let last = control::stop(&place.root).await.unwrap().unwrap();
    assert_eq!(last.pid, None);
    let observed = place.observe(Depth::Full).await;
    assert_eq!(differences(&place, &new, &observed), [Drift::Stopped]);
    assert_eq!(put_right(&place, &new).await, Plan::Start);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_file_is_laid_out_anew() {
    let (place, _, new) = two_releases().await;
    edit(&place.store(&new).join("app/note"), "not what was built");
    for depth in [Depth::Quick, Depth::Full] {
        assert_eq!(place.observe(depth).await.files, FilesState::Edited);
    }
    assert_eq!(put_right(&place, &new).await, Plan::Repair);
    assert_eq!(std::fs::read_to_string(place.store(&new).join("app/note")).unwrap(), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_file_and_edited_values_are_seen() {
    let (place, _, new) = two_releases().await;
    let config = place.order(2, &new, &[("NAME", "two")]).desired.config;
    edit(&place.root.join("config").join(config.hex()).join("env"), r#"{"NAME":"three"}"#);
    let observed = place.observe(Depth::Full).await;
    assert_eq!(differences(&place, &new, &observed), [Drift::ConfigDrift, Drift::Edited]);
    assert_eq!(put_right(&place, &new).await, Plan::Repair);
    let dir = place.store(&new);
    crate::place::open_dir(&dir);
    std::fs::write(dir.join("extra"), "").unwrap();
    assert_eq!(place.observe(Depth::Quick).await.files, FilesState::Edited);
    assert_eq!(put_right(&place, &new).await, Plan::Repair);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_was_swapped_by_hand_is_seen_and_put_back() {
    let (place, _, new) = two_releases().await;
    let current = place.root.join("current");
    std::fs::remove_file(&current).unwrap();
    std::os::unix::fs::symlink("generations/1", &current).unwrap();
    let observed = place.observe(Depth::Quick).await;
    assert_eq!(observed.artefact.as_ref(), Some(&new.digest), "the process is asked, not the link");
    assert_eq!(differences(&place, &new, &observed), [Drift::Edited]);
    put_right(&place, &new).await;
    assert_eq!(place.current().to_str(), Some("generations/2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_was_swapped_and_started_by_hand_is_seen_and_replaced() {
    let (place, old, new) = two_releases().await;
    let current = place.root.join("current");
    std::fs::remove_file(&current).unwrap();
    std::os::unix::fs::symlink("generations/1", &current).unwrap();
    control::restart(&place.root).await.unwrap().unwrap();
    let observed = place.observe(Depth::Full).await;
    assert_eq!(observed.artefact.as_ref(), Some(&old.digest));
    assert_eq!(differences(&place, &new, &observed), [Drift::WrongArtefact, Drift::Edited]);
    assert_eq!(put_right(&place, &new).await, Plan::Switch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_gone_is_seen_and_put_back() {
    let (place, _, new) = two_releases().await;
    control::stop(&place.root).await.unwrap();
    std::fs::remove_file(place.root.join("current")).unwrap();
    let observed = place.observe(Depth::Full).await;
    assert_eq!((observed.state, observed.files), (RunState::Stopped, FilesState::Edited));
    assert_eq!(put_right(&place, &new).await, Plan::Switch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_was_killed_leaves_no_second_process_behind() {
    let (place, _, new) = two_releases().await;
    let status = place.status().await;
    kill(status.supervisor);
    let orphan = status.pid.unwrap();
    assert!(is_alive(orphan), "nobody ends it");
    assert_eq!(put_right(&place, &new).await, Plan::Start);
    assert!(!is_alive(orphan), "the next supervisor ended it");
    assert!(is_alive(place.status().await.pid.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_nobody_recorded_is_found_by_its_variables() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let (place, _, new) = two_releases().await;
    let status = place.status().await;
    kill(status.supervisor);
    std::fs::remove_file(place.root.join("run/child.json")).unwrap();
    assert_eq!(place.observe(Depth::Full).await.state, RunState::Stopped);
    assert_eq!(put_right(&place, &new).await, Plan::Start);
    assert!(!is_alive(status.pid.unwrap()));
}
