//! `semel component`: components and their rules.

use semel_engine::component::{ChangeComponent, ComponentFacts, CreateComponent, Ruled};
use semel_model::version::NamePattern;
use semel_server::api::calls::{Components, ShowComponent};

use super::Outcome;
use crate::cli::{ComponentCreateArgs, ComponentNameArg, ComponentSetArgs, ComponentVerb};
use crate::output::table;
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn run(verb: &ComponentVerb, session: &Session) -> Outcome {
    match verb {
        ComponentVerb::Create(args) => create(args, session).await,
        ComponentVerb::Set(args) => set(args, session).await,
        ComponentVerb::List => list(session).await,
        ComponentVerb::Show(args) => show(args, session).await,
    }
}

async fn create(args: &ComponentCreateArgs, session: &Session) -> Outcome {
    let ask = CreateComponent {
        component: args.name.clone(),
        policy: args.policy,
        patterns: given(&args.patterns),
        keep: args.keep,
        scheme: args.scheme,
    };
    let ruled = session.client.call(&ask).await?;
    let component = &ruled.component;
    let word = if ruled.already { "was there already" } else { "is there" };
    session.output.done(format!("{} {word}: {}", component.name, rules(component)));
    session.output.next(format!("semel push SOURCE {}@1.0.0", component.name));
    answer(&ruled, session)
}

async fn set(args: &ComponentSetArgs, session: &Session) -> Outcome {
    let patterns = if args.no_patterns { Some(Vec::new()) } else { given(&args.patterns) };
    if patterns.is_none() && args.keep.is_none() && args.scheme.is_none() {
        return Err(Failure::usage("nothing is said that could change")
            .hint(format!("semel component set {} --keep branch=7d", args.name)));
    }
    let ask =
        ChangeComponent { component: args.name.clone(), patterns, keep: args.keep, scheme: args.scheme };
    let ruled = session.client.call(&ask).await?;
    let component = &ruled.component;
    let word = if ruled.already { "had these rules already" } else { "has other rules now" };
    session.output.done(format!("{} {word}: {}", component.name, rules(component)));
    if !ruled.already && args.keep.is_some() {
        session.output.next("to see what that means for the bytes that are here: semel gc");
    }
    answer(&ruled, session)
}

/// No pattern at all means that nothing was said about them.
fn given(patterns: &[NamePattern]) -> Option<Vec<NamePattern>> {
    (!patterns.is_empty()).then(|| patterns.to_vec())
}

fn rules(component: &ComponentFacts) -> String {
    let patterns = match component.patterns.is_empty() {
        true => String::new(),
        false => format!(", versions also {}", patterns(component)),
    };
    format!("policy {}{patterns}, scheme {}, keep {}", component.policy, component.scheme, component.keep)
}

fn patterns(component: &ComponentFacts) -> String {
    component.patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn answer(ruled: &Ruled, session: &Session) -> Outcome {
    if session.output.is_json() {
        session.output.json(ruled);
    } else if session.output.is_quiet() {
        session.output.data(ruled.component.name.as_str());
    }
    Ok(Exit::Done)
}

async fn list(session: &Session) -> Outcome {
    let found = session.client.call(&Components {}).await?;
    let output = session.output;
    if output.is_json() {
        output.json(&found);
    } else if output.is_quiet() {
        found.components.iter().for_each(|one| output.data(one.name.as_str()));
    } else if found.components.is_empty() {
        output.say("there is no component in this store yet");
        output.next("semel build   or   semel component create NAME");
    } else {
        let rows = found.components.iter().map(|one| {
            vec![
                one.name.to_string(),
                one.policy.to_string(),
                patterns(one),
                one.scheme.to_string(),
                one.keep.to_string(),
                one.last_build.to_string(),
                format!("store {}", one.home),
            ]
        });
        output.data(&table(
            &["COMPONENT", "POLICY", "ALSO VERSIONS", "SCHEME", "KEEP", "BUILDS", "HOME"],
            rows.collect(),
        ));
    }
    Ok(Exit::Done)
}

async fn show(args: &ComponentNameArg, session: &Session) -> Outcome {
    let found = session.client.call(&ShowComponent { component: args.name.clone() }).await?;
    let output = session.output;
    if output.is_json() {
        output.json(&found);
        return Ok(Exit::Done);
    }
    if output.is_quiet() {
        output.data(&found.policy.to_string());
        return Ok(Exit::Done);
    }
    let rows = [
        ("component", found.name.to_string()),
        ("policy", found.policy.to_string()),
        ("also versions", patterns(&found)),
        ("scheme", found.scheme.to_string()),
        ("keep", found.keep.to_string()),
        ("builds", found.last_build.to_string()),
        ("home", format!("store {}", found.home)),
    ];
    // What is not set has no row.
    let rows = rows.into_iter().filter(|(_, value)| !value.is_empty());
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
    let text = table(&["", ""], rows.collect());
    output.data(text.trim_start_matches('\n').trim_start());
    Ok(Exit::Done)
}
