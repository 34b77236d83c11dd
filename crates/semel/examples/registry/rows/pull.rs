//! Pulling large blobs.

use std::sync::Arc;

use crate::content::MIB;
use crate::contest::{in_turn, under_load};
use crate::fetch::Fetch;
use crate::figure::Unit;
use crate::layer::Layers;
use crate::load::Until;
use crate::peers::Peers;
use crate::report::Report;
use crate::servers::{NGINX, SEMEL};
use crate::{Bench, Error};

pub(super) const ROW: &str = "pull";
/// Times what `nginx` reaches.
const TARGET: f64 = 0.95;

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    let peers = Peers::start(bench)?;
    for mib in [64, 512] {
        let layer = Layers::new(mib * MIB).number(0);
        let path = peers.publish_layer("bench/large", &layer)?;
        for connections in [1, 8, 64] {
            let what = format!("pull of a blob of {mib} MiB, connections: {connections}");
            let figure = in_turn(bench.options.runs(), ROW, what, &peers.all(), |server, _| {
                let fetch = Arc::new(Fetch::get(server.address, &path, layer.size));
                under_load(
                    server,
                    Unit::MibPerSecond,
                    connections,
                    &fetch,
                    Until::Passed(bench.options.round()),
                )
            })?;
            report.add(figure.at_least(SEMEL, TARGET, NGINX)?);
        }
    }
    Ok(())
}
