//! Pushing a large blob, durably.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use crate::content::MIB;
use crate::contest::{in_turn, under_load};
use crate::figure::{Measured, Unit, mib};
use crate::layer::Layers;
use crate::load::Until;
use crate::machine::require_space;
use crate::push::{Pushes, Upload};
use crate::report::Report;
use crate::servers::{DOCKER_REGISTRY, Recipe, SEMEL, Server};
use crate::{Bench, Error};

pub(super) const ROW: &str = "push";
/// Times what `docker-registry` reaches.
const TARGET: f64 = 2.5;

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    let size = bench.options.size(512, 128) * MIB;
    for (upload, called) in [(Upload::Monolithic, "in one piece"), (Upload::Streamed, "as a stream")] {
        let dir = bench.space()?;
        require_space(dir.path(), 3 * size * bench.options.runs() as u64)?;
        let servers = [
            Recipe::docker_registry(&bench.scratch, &dir.path().join("docker-registry"))?.start()?,
            Recipe::semel(&bench.scratch, &dir.path().join("semel"))?.start()?,
        ];
        let started = Instant::now();
        let layers = Layers::new(size);
        let hashing = mib(size) / started.elapsed().as_secs_f64();
        let what = format!("push of a blob of {:.0} MiB, {called}", mib(size));
        let figure = in_turn(bench.options.runs(), ROW, what, &servers, |server, round| {
            one_push(server, &layers, upload, round)
        })?;
        let share = figure.of(SEMEL)?.value / hashing;
        let figure = figure.fact("SHA-256 on one core, MiB/s", hashing).fact("share of that", share);
        report.add(figure.at_least(SEMEL, TARGET, DOCKER_REGISTRY)?);
    }
    Ok(())
}

fn one_push(server: &Server, layers: &Layers, upload: Upload, round: usize) -> Result<Measured, Error> {
    // What the one before has left to the disk is not this one's to wait for.
    rustix::fs::sync();
    let pushes = Pushes {
        server: server.address,
        component: "bench/large".to_owned(),
        upload,
        layers: layers.clone(),
        next: AtomicU64::new(round as u64),
    };
    under_load(server, Unit::MibPerSecond, 1, &Arc::new(pushes), Until::Done(1))
}
