//! Fetching manifests.

use std::sync::Arc;

use crate::artefact::{Artefact, BLOB_BYTES};
use crate::contest::{in_turn, under_load};
use crate::fetch::Fetch;
use crate::figure::Unit;
use crate::layer::Layers;
use crate::load::Until;
use crate::peers::Peers;
use crate::report::Report;
use crate::servers::{DOCKER_REGISTRY, NGINX, SEMEL};
use crate::{Bench, Error};

pub(super) const ROW: &str = "manifest";
const CONNECTIONS: usize = 64;
/// Times what `docker-registry` reaches.
const TARGET: f64 = 25.0;
/// Times what `nginx` reaches with a file of the same size.
const TARGET_FILE: f64 = 0.45;

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    let peers = Peers::start(bench)?;
    let artefact = Artefact::new(&Layers::new(BLOB_BYTES), 0);
    let length = artefact.manifest.len() as u64;
    let [by_tag, by_digest] = peers.publish_artefact("bench/small", &artefact)?;
    for (path, named) in [(by_tag, "tag"), (by_digest, "digest")] {
        for (fetch, method) in [(Fetch::get as fn(_, &str, _) -> _, "GET"), (Fetch::head, "HEAD")] {
            let what = format!("{method} of a manifest by {named}, connections: {CONNECTIONS}");
            let figure = in_turn(bench.options.runs(), ROW, what, &peers.all(), |server, _| {
                let fetch = Arc::new(fetch(server.address, &path, length));
                under_load(server, Unit::PerSecond, CONNECTIONS, &fetch, Until::Passed(bench.options.round()))
            })?;
            report.add(figure.at_least(SEMEL, TARGET, DOCKER_REGISTRY)?.at_least(
                SEMEL,
                TARGET_FILE,
                NGINX,
            )?);
        }
    }
    Ok(())
}
