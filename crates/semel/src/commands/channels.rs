//! `semel channels`: where channels point, and where one of them pointed before.

use semel_engine::look::channels::{ChannelLine, Pointed};
use semel_model::digest::Digest;
use semel_model::name::{ComponentName, Tag};
use semel_model::version::Version;
use semel_server::api::calls::{ChannelHistory, Channels};

use super::{Outcome, component};
use crate::cli::{ChannelsArgs, Cli};
use crate::output::{ago, table};
use crate::report::Exit;
use crate::session::{Session, now};

pub(super) async fn run(args: &ChannelsArgs, cli: &Cli, session: &Session) -> Outcome {
    let component = component(cli, session)?;
    match &args.channel {
        Some(channel) => history(component, channel, args.limit, session).await,
        None => list(component, args.limit, session).await,
    }
}

async fn list(component: ComponentName, limit: u64, session: &Session) -> Outcome {
    let found = session.client.call(&Channels { component: component.clone(), after: None, limit }).await?;
    let output = session.output;
    if output.is_json() {
        output.json(&found);
    } else if output.is_quiet() {
        found.channels.iter().for_each(|one| output.data(one.channel.as_str()));
    } else if found.channels.is_empty() {
        output.say(format!("{component} has no channel yet"));
        output.next(format!("semel push SOURCE {component}@latest"));
    } else {
        let rows = found.channels.iter().map(|one: &ChannelLine| {
            vec![
                one.channel.to_string(),
                version(one.version.as_ref()),
                one.digest.to_string(),
                ago(&one.since, now()),
            ]
        });
        output.data(&table(&["CHANNEL", "VERSION", "DIGEST", "SINCE"], rows.collect()));
    }
    Ok(Exit::Done)
}

async fn history(component: ComponentName, channel: &Tag, limit: u64, session: &Session) -> Outcome {
    let ask = ChannelHistory { component, channel: channel.clone(), limit };
    let found = session.client.call(&ask).await?;
    let output = session.output;
    if output.is_json() {
        output.json(&found);
    } else if output.is_quiet() {
        let newest = found.moves.first().and_then(|one| one.digest.as_ref());
        newest.iter().for_each(|digest| output.data(digest.as_str()));
    } else {
        let rows = found.moves.iter().map(|one: &Pointed| {
            vec![
                version(one.version.as_ref()),
                one.digest.as_ref().map_or_else(|| "removed".to_owned(), Digest::to_string),
                one.from.clone(),
                one.until.clone().unwrap_or_else(|| "now".to_owned()),
            ]
        });
        output.data(&table(&["VERSION", "DIGEST", "FROM", "UNTIL"], rows.collect()));
    }
    Ok(Exit::Done)
}

fn version(version: Option<&Version>) -> String {
    version.map_or_else(|| "-".to_owned(), ToString::to_string)
}
