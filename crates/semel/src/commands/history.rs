//! `semel history`

use semel_server::api::calls::History;

use super::{Outcome, component};
use crate::cli::{Cli, HistoryArgs};
use crate::output::table;
use crate::report::Exit;
use crate::session::Session;

pub(super) async fn run(args: &HistoryArgs, cli: &Cli, session: &Session) -> Outcome {
    let component = component(cli, session)?;
    let ask = History { component, environment: args.environment.clone(), limit: args.limit };
    let found = session.client.call(&ask).await?;
    let output = session.output;
    if output.is_json() {
        output.json(&found);
    } else if found.events.is_empty() {
        output.say(format!("nothing ever happened in {}", args.environment));
    } else {
        let rows = found
            .events
            .into_iter()
            .map(|event| vec![event.seq.to_string(), event.time, event.who, event.what]);
        output.data(&table(&["ENTRY", "TIME", "WHO", "WHAT"], rows.collect()));
    }
    Ok(Exit::Done)
}
