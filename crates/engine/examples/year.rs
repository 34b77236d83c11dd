//! A year of a team: components that merge every day, a collection every fortnight, and the rules that hold by default.
//!
//! ```text
//! cargo run --release -p semel-engine --example year -- [COMPONENTS] [MERGES_A_DAY] [DAYS]
//! ```
//!
//! Each merge is an artefact with a layer of its own; every fifth is the build of a branch. In the end the bytes that lie in the
//! store are what the rules keep, every version ever given still answers `inspect`, and a second look at the whole ledger
//! finds nothing. Without numbers it is 80 components, 5 merges a day, 365 days: 146,000 versions in a temporary directory
//! of about 2 GiB.

#![expect(clippy::print_stdout, reason = "the report of a benchmark is its output")]

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use semel_engine::collect::{Collect, Collected, collect};
use semel_engine::look::versions::inspect;
use semel_engine::publish::Bound;
use semel_engine::pull::{self, Pull};
use semel_engine::store_manifest::{Manifest, Names, push};
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_model::version::VersionWord;
use semel_oci::descriptor::Descriptor;
use semel_oci::manifest::ImageManifest;
use semel_oci::media_type;
use semel_store::{Place, Store, audit};

/// Whatever went wrong; a benchmark has nobody to recover for.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// How long a layer is, in bytes.
const LAYER_BYTES: usize = 4096;
/// How many artefacts are stored at a time.
const TOGETHER: usize = 16;

/// What happens in the year.
#[derive(Debug, Clone, Copy)]
struct Plan {
    components: u32,
    merges: u32,
    days: u32,
}

/// A version that was given.
#[derive(Debug, Clone)]
struct Given {
    component: ComponentName,
    version: String,
    digest: Digest,
    day: u32,
    trunk: bool,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let plan = plan()?;
    let dir = tempfile::Builder::new().prefix("semel-year-").tempdir()?;
    let place = Place { dir: dir.path().join("store"), keys: dir.path().join("keys"), database: None };
    let store = Store::open_or_create(&place, at(0, 0)?).await?;
    let who = store.local_actor("ana@shop.example", "example").await?;
    let mut given = Vec::new();
    let began = Instant::now();
    println!("day   versions   blobs in store   store MiB   judged   ended   swept   collection s");
    for day in 0..plan.days {
        given.extend(day_of_merges(&store, &who, plan, day).await?);
        if day % 14 == 13 || day + 1 == plan.days {
            let started = Instant::now();
            let done = collect_now(&store, &who, at(day, 86_399)?).await?;
            report(day, given.len(), &store, &done, started)?;
        }
    }
    println!("{} versions in {:.0} s", given.len(), began.elapsed().as_secs_f64());
    check_rules(&store, plan, &given).await?;
    check_inspect(&store, plan, &given).await?;
    let started = Instant::now();
    let report = audit::verify(&store).await?;
    println!("audit verify: {} entries in {:.0} s", report.entries, started.elapsed().as_secs_f64());
    if report.problems.is_empty() { Ok(()) } else { Err(report.problems.join("\n").into()) }
}

fn plan() -> Result<Plan, Error> {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u32>());
    let mut next = |or: u32| words.next().unwrap_or(Ok(or));
    Ok(Plan { components: next(80)?, merges: next(5)?, days: next(365)? })
}

/// A moment of the year 2100: blobs carry the time at which they were really written, which must lie before.
fn at(day: u32, second: u32) -> Result<Timestamp, Error> {
    Ok(Timestamp::from_second(4_102_444_800 + i64::from(day) * 86_400 + i64::from(second))?)
}

/// Every merge of a day, as many at a time as a busy server sees.
async fn day_of_merges(store: &Store, who: &Actor, plan: Plan, day: u32) -> Result<Vec<Given>, Error> {
    let mut wanted = Vec::new();
    for component in 0..plan.components {
        for merge in 0..plan.merges {
            let patch = day * plan.merges + merge;
            let trunk = patch % 5 != 4;
            let version = if trunk { format!("1.0.{patch}") } else { format!("1.0.{patch}-feat-x.{patch}") };
            wanted.push((component, version, trunk));
        }
    }
    let now = at(day, 43_200)?;
    let mut given = Vec::with_capacity(wanted.len());
    let mut running = tokio::task::JoinSet::new();
    for (component, version, trunk) in wanted {
        if running.len() == TOGETHER
            && let Some(done) = running.join_next().await
        {
            given.push(done??);
        }
        let (store, who) = (store.clone(), who.clone());
        let component: ComponentName = format!("team/service-{component:02}").parse()?;
        running.spawn(async move { publish(&store, &who, component, version, trunk, day, now).await });
    }
    while let Some(done) = running.join_next().await {
        given.push(done??);
    }
    Ok(given)
}

async fn publish(
    store: &Store,
    who: &Actor,
    component: ComponentName,
    version: String,
    trunk: bool,
    day: u32,
    now: Timestamp,
) -> Result<Given, Error> {
    let mut layer = format!("{component} {version}\n").into_bytes();
    layer.resize(LAYER_BYTES, b'.');
    let mut blobs = Vec::new();
    for bytes in [layer, b"{}".to_vec()] {
        let digest = Digest::of(&bytes);
        let stored = store.blobs().put_announced(bytes, &digest).await?;
        semel_engine::content::received(store, &component, &stored.digest).await?;
        blobs.push(stored);
    }
    let manifest = ImageManifest {
        artifact_type: Some(media_type::SEMEL_ARCHIVE.to_owned()),
        config: Descriptor::empty(),
        layers: vec![Descriptor::new(
            media_type::OCI_LAYER_TAR,
            blobs.swap_remove(0).digest,
            LAYER_BYTES as u64,
        )],
        subject: None,
        annotations: semel_oci::descriptor::Annotations::new(),
    }
    .encode();
    let tags = [version.parse()?];
    let sent = Manifest {
        component: &component,
        bytes: &manifest.bytes,
        media_type: Some(media_type::OCI_MANIFEST),
        digest: None,
    };
    let pushed = push(store, who, sent, Names { tags: &tags, ..Names::default() }, now).await?;
    match pushed.names.as_slice() {
        [Bound::Published { .. }] => {
            Ok(Given { component, version, digest: pushed.stored.digest, day, trunk })
        }
        other => Err(format!("{component} {version}: {other:?}").into()),
    }
}

async fn collect_now(store: &Store, who: &Actor, now: Timestamp) -> Result<Collected, Error> {
    let request = Collect { dry_run: false, grace: Some("0s".parse()?), trash: Some("0s".parse()?) };
    Ok(collect(store, who, request, now).await?)
}

fn report(day: u32, versions: usize, store: &Store, done: &Collected, started: Instant) -> Result<(), Error> {
    let listed = store.blobs().list()?;
    let sizes = listed.iter().map(|digest| store.blobs().size(digest));
    let (blobs, bytes) = (listed.len(), sizes.sum::<Result<u64, _>>()?);
    println!(
        "{:>3} {versions:>10} {blobs:>16} {:>11} {:>8} {:>7} {:>7} {:>14.1}",
        day + 1,
        bytes >> 20,
        done.judged,
        done.over.len(),
        done.swept.blobs,
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// What still has its bytes is what the rules keep: 90 days of the trunk, 14 days of branches, and the newest.
async fn check_rules(store: &Store, plan: Plan, given: &[Given]) -> Result<(), Error> {
    let now = at(plan.days - 1, 86_399)?;
    let mut reader = store.reader().await?;
    let (mut kept, mut over) = (0, 0);
    for one in given {
        let age = now.duration_since(at(one.day, 43_200)?);
        let within = age <= SignedDuration::from_hours(24 * if one.trunk { 90 } else { 14 });
        let newest = one.trunk && one.day + 1 == plan.days;
        match pull::find(&mut reader, &one.component, &one.digest).await? {
            Pull::Found { .. } if within || newest => kept += 1,
            Pull::Expired { digest, .. } if !within && digest == one.digest => over += 1,
            other => return Err(format!("{} {}, {age}: {other:?}", one.component, one.version).into()),
        }
    }
    println!("{kept} versions have their bytes, {over} are names of what expired by rule");
    Ok(())
}

/// Every version ever given answers.
async fn check_inspect(store: &Store, plan: Plan, given: &[Given]) -> Result<(), Error> {
    let now = at(plan.days, 0)?;
    let started = Instant::now();
    for one in given {
        let word: VersionWord = one.version.parse()?;
        let found = inspect(store, &one.component, &word, now).await?;
        if found.artefact.digest != one.digest {
            return Err(format!("{} {} means {}", one.component, one.version, found.artefact.digest).into());
        }
    }
    let each = started.elapsed().as_secs_f64() * 1000.0 / given.len() as f64;
    println!("inspect answers for every one of them, {each:.2} ms each");
    Ok(())
}
