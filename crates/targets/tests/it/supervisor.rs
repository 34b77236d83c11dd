//! The supervisor itself.

use std::process::Stdio;

use semel_model::deployment::{HealthState, RunState};
use semel_targets::directory::{Depth, Generation, control, generations, journal, logs, observe};

use crate::place::{Place, Shelf, archive, is_alive, service};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_supervisor_says_who_the_first_one_is_and_ends() {
    let place = Place::new();
    place.deploy(1, &service(true), &[]).await;
    let first = place.status().await.supervisor;
    let spawn = place.host().supervisor;
    let second = tokio::process::Command::new(spawn.program).args(spawn.args).stdin(Stdio::null()).output();
    let output = second.await.unwrap();
    assert!(!output.status.success());
    let printed =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains(&format!("is already supervised by process {first}")), "{printed}");
    assert_eq!(place.status().await.supervisor, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_is_asked_to_end_takes_its_release_with_it() {
    let place = Place::new();
    // The release has a child of its own, and neither listens.
    let stubborn =
        "#!/bin/sh\ntrap '' TERM\n(trap '' TERM; sleep 600) &\necho child $!\nwhile :; do sleep 1; done\n";
    let artefact = archive(&[("/run", stubborn), ("/app/check", "#!/bin/sh\n")], &[]);
    place.deploy(1, &artefact, &[]).await;
    place.until("it said who its child is", |_| place.app_log().contains("child")).await;
    let child: i32 = place.app_log().trim().rsplit(' ').next().unwrap().parse().unwrap();
    let status = place.status().await;
    let supervisor = rustix::process::Pid::from_raw(status.supervisor).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::TERM).unwrap();
    place.until("it has stopped", |o| o.state == RunState::Stopped && !is_alive(status.supervisor)).await;
    assert!(!is_alive(status.pid.unwrap()) && !is_alive(child));
    assert!(control::status(&place.root).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_says_what_ran_and_how_it_was() {
    let place = Place::new();
    let artefact = service(true);
    let order = place.order(3, &artefact, &[]);
    place.converge(&order, &Shelf::of(&artefact)).await.unwrap();
    control::stop(&place.root).await.unwrap();
    let lines = journal(&place.root, None).unwrap();
    let states: Vec<_> = lines.iter().map(|line| (line.state, line.health)).collect();
    let (first, last) = (states.first().unwrap(), states.last().unwrap());
    assert_eq!(*first, (RunState::Running, HealthState::Unknown));
    assert!(states.contains(&(RunState::Running, HealthState::Healthy)));
    assert_eq!(*last, (RunState::Stopped, HealthState::Unknown));
    assert!(lines.iter().all(|line| line.key == order.desired.key && line.generation == 3));
    let later = journal(&place.root, Some(lines[0].time)).unwrap();
    assert_eq!(later.len(), lines.len() - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_and_a_line_without_an_end_are_kept_in_the_log() {
    let place = Place::new();
    let prints = "#!/bin/sh\necho out\necho err >&2\nprintf 'half a line'\nexit 1\n";
    let artefact = archive(&[("/run", prints), ("/app/check", "#!/bin/sh\nexit 1\n")], &[]);
    let order = place.order(1, &artefact, &[]);
    place.converge(&order, &Shelf::of(&artefact)).await.unwrap();
    let lines = logs::tail(&place.root, 100).unwrap().lines;
    for expected in ["out", "err"] {
        assert!(lines.iter().any(|line| line.ends_with(expected)), "{lines:?}");
    }
    assert!(lines.iter().any(|line| line.starts_with("half a line")), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_was_deployed_there_is_nothing_to_see() {
    let place = Place::new();
    let observed = observe(&place.root, Depth::Full, jiff::Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(observed.state, RunState::Absent);
    assert!(generations(&place.root).unwrap().is_empty());
    assert!(control::status(&place.root).await.unwrap().is_none());
    assert!(!place.root.exists(), "looking leaves no trace");
    assert!(Generation::of(1) < Generation { ledger: 1, step: 1 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_left_its_group_does_not_outlive_its_release() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let place = Place::new();
    let leaves = "#!/bin/sh\nsetsid sleep 600 &\necho child $!\nexec sleep 600\n";
    let artefact = archive(&[("/run", leaves), ("/app/check", "#!/bin/sh\n")], &[]);
    place.deploy(1, &artefact, &[]).await;
    place.until("it said who its child is", |_| place.app_log().contains("child")).await;
    let child: i32 = place.app_log().trim().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(is_alive(child));
    place.deploy(2, &service(true), &[]).await;
    assert!(!is_alive(child));
}
