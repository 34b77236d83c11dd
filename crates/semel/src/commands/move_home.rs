//! `semel move-home`: a component gets its versions from another store from now on.
//!
//! ```text
//! the other store learns every number and name → this one lets go → what came in between → the other one takes
//! ```

use semel_engine::home::{Bequeath, Bequest, Inherit, LeaveHome, TakeHome, Taken};
use semel_model::name::ComponentName;
use serde_json::json;

use super::Outcome;
use crate::cli::{Cli, MoveHomeArgs};
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn run(args: &MoveHomeArgs, cli: &Cli, session: &Session) -> Outcome {
    let component = match &args.name {
        Some(name) => name.clone(),
        None => super::component(cli, session)?,
    };
    let to = other(&args.to, session).await?;
    let (old, heir) = (session.facts().await?.id.clone(), to.facts().await?);
    let (new, to_size) = (heir.id.clone(), Some(heir.entries));
    if old == new {
        return Err(
            Failure::usage(format!("{} is this store", args.to)).hint("name another one: --to DIR, --to URL")
        );
    }
    hand_over(&component, &old, session, &to).await?;
    let leave = LeaveHome { component: component.clone(), to: new.clone(), place: url(&args.to), to_size };
    let left = session.client.call(&leave).await?;
    // What was given since it was looked at; from now on there is nothing more.
    hand_over(&component, &old, session, &to).await?;
    let taken = to.client.call(&TakeHome { component: component.clone(), left }).await?;
    say(&component, &new, &taken, args, session);
    Ok(Exit::Done)
}

/// The store that becomes the home, spoken for by the same person. The database that the variables name is this store's.
async fn other(place: &str, session: &Session) -> Result<Session, Failure> {
    let cli = Cli::at(place, url(place).is_some());
    let settings = session.settings.clone().without(&["SEMEL_DATABASE", "SEMEL_DATABASE_FILE"]);
    Session::open(&cli, settings, session.output).await.map_err(|failure| match failure.exit {
        Exit::Usage => Failure { hints: Vec::new(), ..failure }.hint(
            "name another store: --to DIR, or --to URL of its server where it has a database of its own",
        ),
        _ => failure,
    })
}

/// The place as others can use it: a directory is this machine's business.
fn url(place: &str) -> Option<String> {
    (place.starts_with("http://") || place.starts_with("https://")).then(|| place.to_owned())
}

/// Tells the other store every number and name, page by page.
async fn hand_over(
    component: &ComponentName,
    from: &str,
    session: &Session,
    to: &Session,
) -> Result<(), Failure> {
    let (mut after_number, mut after_seq) = (0, 0);
    loop {
        let ask = Bequeath { component: component.clone(), after_number, after_seq };
        let bequest: Bequest = session.client.call(&ask).await?;
        let is_last = bequest.builds.is_empty() && bequest.names.is_empty();
        after_number = bequest.builds.last().map_or(after_number, |last| last.reserved.number);
        after_seq = bequest.seq;
        let inherit = Inherit { component: component.clone(), from: from.to_owned(), bequest };
        to.client.call(&inherit).await?;
        if is_last {
            return Ok(());
        }
    }
}

fn say(component: &ComponentName, new: &str, taken: &Taken, args: &MoveHomeArgs, session: &Session) {
    let output = session.output;
    let word = if taken.already { "was already" } else { "is now" };
    output.done(format!(
        "{} {word} the home of {component}: its next build is {}",
        args.to,
        taken.last_build + 1
    ));
    let word = if url(&args.to).is_some() { "--server" } else { "--store" };
    output.next(format!("semel build {word} {}", args.to));
    if output.is_json() {
        output.json(&json!({
            "component": component,
            "home": new,
            "last_build": taken.last_build,
            "already": taken.already,
        }));
    } else {
        output.data(new);
    }
}
