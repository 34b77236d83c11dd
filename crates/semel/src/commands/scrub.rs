//! `semel scrub`: hash what the store keeps again, the longest unseen first.

use semel_engine::scrub::{Damaged, Scrub, Scrubbed};

use super::Outcome;
use crate::cli::ScrubArgs;
use crate::output::{Output, bytes};
use crate::progress::spinner;
use crate::report::{Exit, Failure};
use crate::session::Session;

/// How many bytes are hashed before it is said how far it came.
const STEP_BYTES: u64 = 256 * 1024 * 1024;

pub(super) async fn run(args: &ScrubArgs, session: &Session) -> Outcome {
    let output = session.output;
    let done = scrub(args.max_bytes.unwrap_or(u64::MAX), session).await?;
    if !done.damaged.is_empty() {
        return Err(damage(&done));
    }
    if output.is_json() {
        output.json(&done);
    } else {
        tell(&done, output);
    }
    Ok(Exit::Done)
}

/// Asks step by step, until every blob was seen once or enough bytes were read.
async fn scrub(most_bytes: u64, session: &Session) -> Result<Scrubbed, Failure> {
    let spinner = spinner(&session.output, "hashing".to_owned());
    let mut done = Scrubbed::default();
    let mut all = None;
    loop {
        let max_bytes = Some(STEP_BYTES.min(most_bytes - done.bytes));
        let step = session.client.call(&Scrub { max_bytes }).await?;
        // A blob that comes while others are hashed is seen the next time.
        let all = *all.get_or_insert(step.blobs + step.left);
        let ended = step.blobs == 0;
        done.blobs += step.blobs;
        done.bytes += step.bytes;
        done.healed.extend(step.healed);
        done.damaged = step.damaged;
        done.left = all.saturating_sub(done.blobs);
        spinner.set_message(format!("{} of {all} blobs, {}", done.blobs, bytes(done.bytes)));
        if ended || done.left == 0 || done.bytes >= most_bytes {
            spinner.finish_and_clear();
            return Ok(done);
        }
    }
}

fn tell(done: &Scrubbed, output: Output) {
    output.done(format!("{} blobs, {}: every byte has its digest", done.blobs, bytes(done.bytes)));
    done.healed.iter().for_each(|digest| output.done(format!("whole again: {digest}")));
    if done.left > 0 {
        output.next(format!("{} blobs were not reached this time: semel scrub", done.left));
    }
}

fn damage(done: &Scrubbed) -> Failure {
    let message = format!("{} of the store's blobs are damaged and put aside", done.damaged.len());
    Failure::new(Exit::Verification, message)
        .because(done.damaged.iter().map(words))
        .hint("push those artefacts again, from wherever they still are: the same bytes heal the store")
        .hint("what was built comes back with its commit, if it comes out the same: semel build COMMIT")
        .hint("then: semel scrub")
        .answer(done)
}

fn words(one: &Damaged) -> String {
    let needed = match one.needed_by.is_empty() {
        true => "nothing needs it".to_owned(),
        false => format!("needed by {}", one.needed_by.join(", ")),
    };
    format!("{} was found damaged on {}; {needed}", one.digest, one.found)
}
