//! Pushing small artefacts, durably.

use std::sync::Arc;

use crate::artefact::Artefacts;
use crate::contest::{in_turn, under_load};
use crate::figure::Unit;
use crate::load::Until;
use crate::report::Report;
use crate::servers::{DOCKER_REGISTRY, Recipe, SEMEL};
use crate::{Bench, Error};

pub(super) const ROW: &str = "small";
/// Connections, and times what `docker-registry` reaches.
const TARGETS: [(usize, f64); 2] = [(1, 3.5), (16, 6.0)];
/// More artefacts than anybody pushes in a round.
const PER_ROUND: usize = 1_000_000;

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    for (connections, target) in TARGETS {
        let dir = bench.space()?;
        let servers = [
            Recipe::docker_registry(&bench.scratch, &dir.path().join("docker-registry"))?.start()?,
            Recipe::semel(&bench.scratch, &dir.path().join("semel"))?.start()?,
        ];
        let what = format!("push of small artefacts (1 KiB and a tag), connections: {connections}");
        let figure = in_turn(bench.options.runs(), ROW, what, &servers, |server, round| {
            let first = (round * PER_ROUND) as u64;
            let artefacts = Arc::new(Artefacts::new(server.address, "bench/small", first));
            under_load(server, Unit::PerSecond, connections, &artefacts, Until::Passed(bench.options.round()))
        })?;
        report.add(figure.at_least(SEMEL, target, DOCKER_REGISTRY)?);
    }
    Ok(())
}
