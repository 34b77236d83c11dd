//! Measuring several servers fairly: in every round one after the other, so that whatever else the machine does meets all
//! alike.

use std::sync::Arc;

use crate::figure::{Figure, Measured, Unit};
use crate::load::{self, Until, Work};
use crate::machine::Watch;
use crate::servers::Server;
use crate::usage::{self, Usage};
use crate::{Error, interrupt};

/// Measures every server (or whatever stands for one) in every round; the result of each is its median round.
pub(crate) fn in_turn<S>(
    rounds: usize,
    row: &'static str,
    what: impl Into<String>,
    servers: &[S],
    mut measure: impl FnMut(&S, usize) -> Result<Measured, Error>,
) -> Result<Figure, Error> {
    let what = what.into();
    let watch = Watch::start()?;
    let mut all = vec![Vec::new(); servers.len()];
    for round in 0..rounds {
        for (server, measured) in servers.iter().zip(&mut all) {
            interrupt::check()?;
            measured.push(measure(server, round).map_err(|error| format!("{what}: {error}"))?);
        }
    }
    let measured = all.into_iter().map(Measured::median).collect::<Result<_, _>>()?;
    Ok(Figure { row, what, measured, verdicts: Vec::new(), facts: Vec::new(), machine: watch.stop()? })
}

/// Puts load on a server, and says what it reached and what it used for that.
pub(crate) fn under_load<W: Work>(
    server: &Server,
    unit: Unit,
    connections: usize,
    work: &Arc<W>,
    until: Until,
) -> Result<Measured, Error> {
    usage::forget_peak(server)?;
    let before = Usage::of(server)?;
    let outcome = load::run(server.address, connections, work, until)
        .map_err(|error| format!("{}: {error}", server.name))?;
    let used = Usage::of(server)?.since(before);
    Ok(Measured::rate(&server.name, unit, &outcome, used, usage::peak_bytes(server)?))
}
