//! `semel backup` and `semel restore`

use semel_store::backup::{self as copies, Copied};
use serde_json::json;

use super::Outcome;
use crate::cli::{BackupArgs, Cli, RestoreArgs};
use crate::output::Output;
use crate::report::{Exit, Failure};
use crate::session::{self, now};
use crate::settings::Settings;

pub(super) async fn backup(args: &BackupArgs, cli: &Cli, settings: &Settings, output: Output) -> Outcome {
    let place = session::embedded(cli, settings)?;
    let store = session::open_existing(&place).await?.ok_or_else(|| session::no_store(&place))?;
    let to = settings.directory().join(&args.to);
    let copied = copies::backup(&store, &to, now()).await.map_err(|error| failure(&error))?;
    output.done(format!(
        "{} entries and {} new blobs are in {} ({} were there already), with the store's keys: keep it private",
        copied.entries,
        copied.blobs,
        to.display(),
        copied.kept
    ));
    output.next(format!("semel restore {} --store NEW-DIR", to.display()));
    if output.is_json() {
        output.json(&json!({
            "entries": copied.entries,
            "blobs": copied.blobs,
            "kept": copied.kept,
            "damaged": copied.damaged,
            "to": to,
        }));
    }
    require_whole(
        &copied,
        "store",
        "semel scrub   puts them aside, so that a push of the same bytes heals the store",
    )
}

pub(super) async fn restore(args: &RestoreArgs, cli: &Cli, settings: &Settings, output: Output) -> Outcome {
    let place = session::embedded(cli, settings)?;
    let from = settings.directory().join(&args.from);
    let copied = copies::restore(&from, &place).await.map_err(|error| failure(&error))?;
    output.done(format!(
        "{} entries and {} blobs are restored in {}",
        copied.entries,
        copied.blobs,
        place.dir.display()
    ));
    output.next(format!("semel audit verify --store {}", place.dir.display()));
    if output.is_json() {
        output.json(&json!({
            "entries": copied.entries,
            "blobs": copied.blobs,
            "damaged": copied.damaged,
            "store": place.dir,
        }));
    }
    require_whole(&copied, "backup", "push the same bytes into the restored store: that heals it")
}

/// What is damaged is not copied: the copy lacks it, and says so.
fn require_whole(copied: &Copied, source: &str, hint: &str) -> Outcome {
    if copied.damaged.is_empty() {
        return Ok(Exit::Done);
    }
    let what = format!("{} blobs of the {source} are damaged and were not copied", copied.damaged.len());
    let which = copied.damaged.iter().map(ToString::to_string);
    Err(Failure::new(Exit::Verification, what).because(which).hint(hint))
}

fn failure(error: &copies::BackupError) -> Failure {
    let exit = match error {
        copies::BackupError::Foreign(_) | copies::BackupError::NotEmpty(_) => Exit::Usage,
        copies::BackupError::NotABackup(_) => Exit::NotFound,
        _ => Exit::Fault,
    };
    Failure::from_error(exit, error)
}
