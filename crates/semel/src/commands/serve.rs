//! `semel serve`: the API and an OCI registry over HTTP.

use semel_server::limits::{Limits, Reserve};
use semel_server::{App, serve};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::Outcome;
use crate::cli::{Cli, ServeArgs};
use crate::output::Output;
use crate::report::{Exit, Failure};
use crate::session::{self, now};
use crate::settings::Settings;

pub(super) async fn run(args: &ServeArgs, cli: &Cli, settings: &Settings, output: Output) -> Outcome {
    let place = session::embedded(cli, settings)?;
    let store = session::open_store(&place).await?;
    let listener = serve::bind(args.listen).map_err(|error| Failure::from_error(Exit::Usage, &error))?;
    let address = listener.local_addr().map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    output.done(format!("serving store {} ({}) at http://{address}", store.id(), place.dir.display()));
    if let Some(database) = &place.database {
        output.say(format!("  its tables are in {database}"));
    }
    output.say("  loopback only: whoever reaches it may do everything, until sign-in exists");
    output.say("  with an artefact NAME:VERSION of this store:");
    output.say(format!("    docker pull {address}/NAME:VERSION"));
    output.say(format!("    podman pull --tls-verify=false {address}/NAME:VERSION"));
    output.say(format!("    skopeo copy --src-tls-verify=false docker://{address}/NAME:VERSION oci:DIR"));
    output.say(format!("    semel --server http://{address} status"));
    if output.is_json() {
        output.json(&json!({"address": format!("http://{address}"), "store": store.id()}));
    } else {
        output.data(&format!("http://{address}"));
    }
    let app = App::limited(store, now, settings.user(), limits(args));
    let (ask, asked) = tokio::sync::oneshot::channel::<()>();
    tokio::select! {
        broken_off = serve::serve(app, listener, async { drop(asked.await) }) => match broken_off {
            0 => {
                output.done("stopped; what was being sent was finished");
                Ok(Exit::Done)
            }
            requests => {
                output.done(format!(
                    "stopped; requests that did not get on and were broken off: {requests}; uploads can be gone on with"
                ));
                Ok(Exit::Interrupted)
            }
        },
        () = asked_twice(ask) => {
            output.done("stopped at once; uploads can be gone on with");
            Ok(Exit::Interrupted)
        }
    }
}

fn limits(args: &ServeArgs) -> Limits {
    let standard = Limits::default();
    Limits {
        uploads_per_client: args.uploads_per_client,
        upload_ttl: args.upload_ttl.to_std(),
        reserve: Reserve { bytes: u64::from(args.reserve_mib) << 20, ..standard.reserve },
        ..standard
    }
}

/// Passes the first request to stop on, and returns at the second one.
async fn asked_twice(ask: tokio::sync::oneshot::Sender<()>) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    let mut next = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    next().await;
    // A server that has ended by itself hears nothing any more.
    let _ = ask.send(());
    next().await;
}
