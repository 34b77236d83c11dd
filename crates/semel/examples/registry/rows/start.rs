//! From the start of the process to the first answer, and what a server that does nothing takes.

use std::path::Path;
use std::time::Duration;

use crate::contest::in_turn;
use crate::figure::{Bound, Measured, Unit, mib};
use crate::report::Report;
use crate::scratch::Scratch;
use crate::servers::{DOCKER_REGISTRY, Recipe, SEMEL};
use crate::usage::resident_bytes;
use crate::{Bench, Error};

pub(super) const ROW: &str = "start";
const TARGET_MILLIS: f64 = 15.0;
const TARGET_MIB: f64 = 20.0;
/// How long a server does nothing before its memory is read.
const IDLE: Duration = Duration::from_millis(500);

type Make = fn(&Scratch, &Path) -> Result<Recipe, Error>;

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    let dir = bench.space()?;
    let servers: [(&str, Make); 2] = [(DOCKER_REGISTRY, Recipe::docker_registry), (SEMEL, Recipe::semel)];
    let recipe = |(name, make): (&str, Make)| make(&bench.scratch, &dir.path().join(name));
    // Once before it counts, so that stores exist and programs are in memory.
    for server in servers {
        recipe(server)?.start()?;
    }
    let rounds = bench.options.runs() * 3;
    let figure = in_turn(rounds, ROW, "from the start to the first answer", &servers, |server, _| {
        let (_, took) = recipe(*server)?.start_timed()?;
        Ok(Measured::alone(server.0, took.as_secs_f64() * 1_000.0, Unit::Millis))
    })?;
    report.add(figure.within(SEMEL, Bound::AtMost(TARGET_MILLIS))?);
    let figure = in_turn(bench.options.runs(), ROW, "memory of an idle server", &servers, |server, _| {
        let started = recipe(*server)?.start()?;
        std::thread::sleep(IDLE);
        Ok(Measured::alone(server.0, mib(resident_bytes(&started)?), Unit::Mib))
    })?;
    report.add(figure.within(SEMEL, Bound::AtMost(TARGET_MIB))?);
    Ok(())
}
