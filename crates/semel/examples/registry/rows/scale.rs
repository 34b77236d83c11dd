//! A component with a million tags and a store with a hundred thousand components, beside a store with next to nothing.

use std::path::Path;
use std::sync::Arc;

use semel_store::Place;

use crate::artefact::{Artefact, Artefacts, BLOB_BYTES};
use crate::contest::{in_turn, under_load};
use crate::fetch::Fetch;
use crate::figure::Unit;
use crate::fill::{SUBJECT, fill, version};
use crate::layer::Layers;
use crate::load::Until;
use crate::peers::{manifest_paths, publish_artefact};
use crate::report::Report;
use crate::servers::{Recipe, Server};
use crate::{Bench, Error};

pub(super) const ROW: &str = "scale";
/// How many times slower a large store may be.
const TARGET: f64 = 2.0;
/// How many tags the measured component of a small store has: enough for a full page.
const FEW: u64 = 300;
/// More artefacts than anybody pushes in a round; also the number of the first that is pushed.
const PER_ROUND: usize = 1_000_000;

/// A store that is served under the name of its size.
struct Filled {
    server: Server,
    /// The list of tags, from the middle.
    page: String,
}

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    let dir = bench.space()?;
    let many_tags = bench.options.size(1_000_000, 50_000);
    let many_components = bench.options.size(100_000, 5_000);
    let stores = [
        filled(bench, &dir.path().join("small"), "a small store", FEW, 0)?,
        filled(bench, &dir.path().join("tags"), &format!("{many_tags} tags"), many_tags, 0)?,
        filled(
            bench,
            &dir.path().join("components"),
            &format!("{many_components} components"),
            FEW,
            many_components,
        )?,
    ];
    let runs = bench.options.runs();
    let until = Until::Passed(bench.options.round());

    let page = in_turn(runs, ROW, "a page of 100 tags, from the middle", &stores, |store, _| {
        let fetch = Arc::new(Fetch::list(store.server.address, &store.page));
        under_load(&store.server, Unit::PerSecond, 1, &fetch, until)
    })?;
    let artefact = Artefact::new(&Layers::new(BLOB_BYTES), 0);
    for store in &stores {
        publish_artefact(&store.server, SUBJECT, &artefact)?;
    }
    let [by_tag, _] = manifest_paths(SUBJECT, &artefact);
    let length = artefact.manifest.len() as u64;
    let manifest = in_turn(runs, ROW, "GET of a manifest by tag", &stores, |store, _| {
        let fetch = Arc::new(Fetch::get(store.server.address, &by_tag, length));
        under_load(&store.server, Unit::PerSecond, 1, &fetch, until)
    })?;
    let push = in_turn(runs, ROW, "push of small artefacts", &stores, |store, round| {
        let first = ((round + 1) * PER_ROUND) as u64;
        let artefacts = Arc::new(Artefacts::new(store.server.address, SUBJECT, first));
        under_load(&store.server, Unit::PerSecond, 1, &artefacts, until)
    })?;
    let [small, large @ ..] = stores.each_ref().map(|store| store.server.name.as_str());
    for figure in [page, manifest, push] {
        let judged = large.iter().try_fold(figure, |figure, large| figure.at_most(small, TARGET, large))?;
        report.add(judged);
    }
    Ok(())
}

/// Fills a store and serves it.
fn filled(bench: &Bench, dir: &Path, name: &str, tags: u64, components: u64) -> Result<Filled, Error> {
    fill(&Place::embedded(dir.to_owned(), bench.scratch.keys()), tags, components)?;
    let server = Recipe::semel(&bench.scratch, dir)?.start()?.named(name);
    let page = format!("/v2/{SUBJECT}/tags/list?n=100&last={}", version(tags / 2));
    Ok(Filled { server, page })
}
