//! The `directory` target through its public door, with real processes: shell scripts as releases, this test binary as
//! the supervisor.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests write files, read the clock and know their host")]

mod damage;
mod deploy;
mod drift;
mod place;
mod supervisor;
mod taint;

use std::path::PathBuf;

/// What the supervisors of the other tests run: this test, told by a variable which root to supervise.
#[test]
fn a_supervisor_is_this_binary_told_which_root() {
    let Some(root) = std::env::var_os(place::SUPERVISE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let options = semel_targets::directory::Supervise { timing: place::TIMING, clock: jiff::Timestamp::now };
    if let Err(error) = runtime.block_on(semel_targets::directory::supervise(&PathBuf::from(root), options)) {
        panic!("{error}");
    }
}

/// What the tests that kill a deployment run: one converge in a process of its own.
#[test]
fn a_deployment_is_this_binary_told_which_generation() {
    let Some(what) = std::env::var(place::DEPLOY).ok() else { return };
    let (generation, root) = what.split_once(' ').unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let place = place::Place::at(PathBuf::from(root));
    runtime.block_on(place.deploy(generation.parse().unwrap(), &place::other_service(generation), &[]));
    // The supervisor lives on.
    std::mem::forget(place);
}
