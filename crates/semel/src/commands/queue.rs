//! The right to build: how a build queues for it, keeps it, and gives it back.

use std::time::Duration;

use semel_build::source::Source;
use semel_engine::reserve::{FailedAttempt, Granted, Holding, Reservation, Reserve, Running};
use semel_model::name::ComponentName;
use semel_model::platform::Platform;
use semel_model::version::Version;
use semel_server::api::calls::{Heartbeat, Release};
use tokio::task::AbortHandle;

use super::build::Wanted;
use super::live_log::Following;
use super::version;
use crate::process;
use crate::report::{Exit, Failure};
use crate::session::Session;

/// How often the lease is renewed.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Where a build queues for the right to build.
pub(super) struct Queue<'a> {
    /// What is asked.
    pub(super) request: Reserve,
    source: &'a Source,
    no_wait: bool,
    pub(super) session: &'a Session,
}

impl<'a> Queue<'a> {
    pub(super) async fn new(
        wanted: &Wanted,
        source: &'a Source,
        platform: Option<Platform>,
        session: &'a Session,
    ) -> Result<Self, Failure> {
        let history = version::tell(source, None).await?;
        let request = Reserve { platform, ..version::request(wanted, source, history, session) };
        Ok(Self { request, source, no_wait: wanted.no_wait, session })
    }

    /// The same question about one build that was begun.
    pub(super) fn for_build(&self, number: u64) -> Reserve {
        Reserve { number: Some(number), ..self.request.clone() }
    }

    /// Asks until it is decided who builds. With `retry`, somebody else's failure is no answer.
    pub(super) async fn wait(&self, request: &Reserve, retry: bool) -> Result<Reservation, Failure> {
        let mut request = request.clone();
        let mut following: Option<Following> = None;
        loop {
            let running = match self.session.client.call(&request).await? {
                Reservation::Running(running) => running,
                Reservation::HistoryNeeded { .. } => {
                    request.history = version::tell(self.source, Some(&request.history)).await?;
                    continue;
                }
                decided => {
                    if let (Reservation::Built(_) | Reservation::Part(_), Some(following)) =
                        (&decided, &following)
                    {
                        following.finish_waiting(self.session).await;
                    }
                    return Ok(decided);
                }
            };
            let found_gone = running.process.as_ref().is_some_and(process::has_ended);
            if found_gone && request.gone != Some(running.attempt) {
                request.gone = Some(running.attempt);
                continue;
            }
            if self.no_wait {
                let Reserve { inputs, platform, .. } = &request;
                let log = log_of(running.number, &inputs.component, platform.as_ref());
                let what = format!("{} by {}", being_built(&running), running.holder);
                return Err(Failure::new(Exit::TryAgain, what).hint(format!("{log} --follow")));
            }
            if following.is_none() {
                let text = format!("  {} by {}: waiting", being_built(&running), running.holder);
                self.session.output.say(text);
            }
            request.waited_for = Some(running.attempt).filter(|_| !retry);
            let component = self.request.inputs.component.clone();
            let platform = self.request.platform.clone();
            let following =
                following.get_or_insert_with(|| Following::new(component, running.number, platform));
            self.pause(&running, following).await?;
        }
    }

    /// Waits a moment for whoever is building, and shows what that prints.
    async fn pause(&self, running: &Running, following: &mut Following) -> Result<(), Failure> {
        let moment = async {
            following.step_while_waiting(self.session).await;
            tokio::time::sleep(Duration::from_millis(running.retry_millis)).await;
        };
        tokio::select! {
            () = moment => Ok(()),
            () = super::stopped() => {
                let message = format!("broken off; {} goes on building", running.holder);
                Err(Failure::new(Exit::Interrupted, message))
            }
        }
    }
}

/// Who this is, for people who wait.
pub(super) fn holder(session: &Session) -> String {
    format!("{} (process {})", session.settings.user(), std::process::id())
}

fn being_built(running: &Running) -> String {
    format!("{} (build {}) is being built", running.version, running.number)
}

pub(super) fn failed_for_another(failed: FailedAttempt, queue: &Queue<'_>) -> Failure {
    let FailedAttempt { holder, number, version, reason, has_log } = failed;
    let Reserve { inputs, platform, .. } = &queue.request;
    let log = has_log.then(|| log_of(number, &inputs.component, platform.as_ref()));
    let message = format!("{version} (build {number}) failed for {holder}, who was building it: {reason}");
    Failure::new(Exit::Command, message).hints(log).hint("to try it again: semel build")
}

/// The command that shows what a build, or a part of one, has printed.
pub(super) fn log_of(number: u64, component: &ComponentName, platform: Option<&Platform>) -> String {
    let of_part = platform.map(|platform| format!(" --platform {platform}")).unwrap_or_default();
    format!("semel build log {number} -c {component}{of_part}")
}

pub(super) fn holding(component: &ComponentName, platform: Option<Platform>, granted: &Granted) -> Holding {
    Holding { component: component.clone(), number: granted.number, platform, token: granted.token.clone() }
}

/// Renews the lease until it is dropped.
pub(super) struct Lease(AbortHandle);

impl Lease {
    pub(super) fn keep(session: &Session, holding: Holding) -> Self {
        let client = session.client.clone();
        let renew = async move {
            loop {
                tokio::time::sleep(HEARTBEAT).await;
                // A lost renewal is tried again in time; a lost lease is found out at the commit.
                drop(client.call(&Heartbeat { holding: holding.clone() }).await);
            }
        };
        Self(tokio::spawn(renew).abort_handle())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Gives a lease up because somebody wants this process to end. What cannot be given up now lapses.
pub(super) async fn give_back(holding: Holding, version: &Version, session: &Session) -> Failure {
    drop(session.client.call(&Release { holding }).await);
    Failure::new(Exit::Interrupted, format!("broken off; {version} stays reserved for the next try"))
}
