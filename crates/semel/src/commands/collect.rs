//! `semel gc`: let bytes go by rule. Names stay for ever.

use semel_engine::collect::{Amount, Collect, Collected, Ended};

use super::Outcome;
use crate::cli::GcArgs;
use crate::output::{Output, bytes};
use crate::progress::spinner;
use crate::report::Exit;
use crate::session::Session;

pub(super) async fn run(args: &GcArgs, session: &Session) -> Outcome {
    let output = session.output;
    let ask = Collect { dry_run: !args.yes, grace: args.grace, trash: args.trash };
    let spinner = spinner(&output, "looking at what is needed".to_owned());
    let done = session.client.call(&ask).await;
    spinner.finish_and_clear();
    let done = done?;
    if output.is_json() {
        output.json(&done);
    } else if output.is_quiet() {
        let bytes = done.swept.bytes + done.freed.values().sum::<u64>();
        output.data(&bytes.to_string());
    } else {
        tell(&done, output);
    }
    Ok(Exit::Done)
}

fn tell(done: &Collected, output: Output) {
    done.over.iter().for_each(|one| output.data(&ended(one)));
    for kept in &done.held {
        let holders: Vec<String> = kept.holders.iter().map(ToString::to_string).collect();
        output.data(&format!("held     {} {}  by {}", kept.component, kept.digest, holders.join(", ")));
    }
    for (rule, freed) in &done.freed {
        output.data(&format!("frees    {} by {rule}", bytes(*freed)));
    }
    match done.dry_run {
        true => would(done, output),
        false => did(done, output),
    }
    if !done.damaged.is_empty() {
        output.warn(format!(
            "{} damaged blobs are missing: semel scrub says who needs them",
            done.damaged.len()
        ));
    }
}

fn would(done: &Collected, output: Output) {
    let freed = bytes(done.freed.values().sum());
    output.done(format!(
        "{} artefacts judged: {} would expire, {} are held beyond their time",
        done.judged,
        done.over.len(),
        done.held.len()
    ));
    output.done(format!(
        "into the trash would go {freed} with them, and {} that nothing needs already",
        amount(done.swept)
    ));
    output.done(format!("out of the trash would go {} for good", amount(done.purged)));
    uploads(done.uploads, "would be removed", output);
    output.say("  nothing was changed");
    output.next("semel gc --yes");
}

fn did(done: &Collected, output: Output) {
    output.done(format!(
        "{} artefacts judged: {} expired, {} are held beyond their time",
        done.judged,
        done.over.len(),
        done.held.len()
    ));
    output.done(format!(
        "{} went into the trash; {} that nothing needs were relied on not long ago",
        amount(done.swept),
        amount(done.young)
    ));
    output.done(format!(
        "{} went out of the trash for good; {} from before stay there",
        amount(done.purged),
        amount(done.in_trash)
    ));
    uploads(done.uploads, "were removed", output);
}

/// Most often there are none.
fn uploads(abandoned: Amount, become_what: &str, output: Output) {
    if abandoned.blobs > 0 {
        let (number, size) = (abandoned.blobs, bytes(abandoned.bytes));
        output.done(format!("abandoned uploads that {become_what}: {number} ({size})"));
    }
}

fn amount(amount: Amount) -> String {
    let word = if amount.blobs == 1 { "blob" } else { "blobs" };
    format!("{} {word} ({})", amount.blobs, bytes(amount.bytes))
}

fn ended(one: &Ended) -> String {
    let names: Vec<String> = one.versions.iter().map(ToString::to_string).collect();
    let names = if names.is_empty() { "without a version".to_owned() } else { names.join(", ") };
    format!("over     {} {names}  {}  by {} since {}", one.component, one.digest, one.rule, one.since)
}
