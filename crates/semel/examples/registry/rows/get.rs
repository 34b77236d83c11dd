//! Fetching a small blob.

use std::sync::Arc;

use crate::artefact::BLOB_BYTES;
use crate::contest::{in_turn, under_load};
use crate::fetch::Fetch;
use crate::figure::Unit;
use crate::layer::Layers;
use crate::load::Until;
use crate::peers::Peers;
use crate::report::Report;
use crate::servers::{DOCKER_REGISTRY, SEMEL};
use crate::{Bench, Error};

pub(super) const ROW: &str = "get";
const CONNECTIONS: usize = 64;
/// Times what `docker-registry` reaches.
const TARGET: f64 = 30.0;

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    let peers = Peers::start(bench)?;
    let layer = Layers::new(BLOB_BYTES).number(0);
    let path = peers.publish_layer("bench/small", &layer)?;
    let what = format!("GET of a blob of 1 KiB, connections: {CONNECTIONS}");
    let figure = in_turn(bench.options.runs(), ROW, what, &peers.all(), |server, _| {
        let fetch = Arc::new(Fetch::get(server.address, &path, layer.size));
        under_load(server, Unit::PerSecond, CONNECTIONS, &fetch, Until::Passed(bench.options.round()))
    })?;
    report.add(figure.at_least(SEMEL, TARGET, DOCKER_REGISTRY)?);
    Ok(())
}
