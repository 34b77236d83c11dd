//! How much memory the server takes for large layers and for many clients.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::content::MIB;
use crate::contest::{in_turn, under_load};
use crate::fetch::Fetch;
use crate::figure::{Bound, Figure, Unit};
use crate::layer::Layers;
use crate::load::Until;
use crate::machine::require_space;
use crate::peers::{blob_path, publish_layer};
use crate::push::{Pushes, Upload};
use crate::report::Report;
use crate::servers::{Recipe, SEMEL};
use crate::{Bench, Error};

pub(super) const ROW: &str = "memory";
const CONNECTIONS: usize = 64;
const COMPONENT: &str = "bench/large";
const TARGET_MIB: f64 = 64.0;

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    let layers = Layers::new(bench.options.size(20, 2) * 1024 * MIB);
    for (upload, called) in [(Upload::Monolithic, "in one piece"), (Upload::Streamed, "as a stream")] {
        report.add(pushing(bench, &layers, upload, called)?.within(SEMEL, Bound::Below(TARGET_MIB))?);
    }
    report.add(pulling(bench)?.within(SEMEL, Bound::Below(TARGET_MIB))?);
    Ok(())
}

/// Once: it takes long, and memory differs little.
fn pushing(bench: &Bench, layers: &Layers, upload: Upload, called: &str) -> Result<Figure, Error> {
    let dir = bench.space()?;
    let size = layers.number(0).size;
    require_space(dir.path(), size + size / 4)?;
    let servers = [Recipe::semel(&bench.scratch, &dir.path().join("semel"))?.start()?];
    let what = format!("memory while a layer of {} GiB is pushed {called}", size / 1024 / MIB);
    in_turn(1, ROW, what, &servers, |server, _| {
        let pushes = Pushes {
            server: server.address,
            component: COMPONENT.to_owned(),
            upload,
            layers: layers.clone(),
            next: AtomicU64::new(0),
        };
        Ok(under_load(server, Unit::MibPerSecond, 1, &Arc::new(pushes), Until::Done(1))?.by_memory())
    })
}

fn pulling(bench: &Bench) -> Result<Figure, Error> {
    let dir = bench.space()?;
    let servers = [Recipe::semel(&bench.scratch, &dir.path().join("semel"))?.start()?];
    let layer = Layers::new(512 * MIB).number(0);
    publish_layer(&servers[0], COMPONENT, &layer)?;
    let what = format!("memory while 512 MiB are pulled, connections: {CONNECTIONS}");
    in_turn(bench.options.runs(), ROW, what, &servers, |server, _| {
        let fetch = Arc::new(Fetch::get(server.address, &blob_path(COMPONENT, &layer), layer.size));
        let until = Until::Passed(bench.options.round());
        Ok(under_load(server, Unit::MibPerSecond, CONNECTIONS, &fetch, until)?.by_memory())
    })
}
