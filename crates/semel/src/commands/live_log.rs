//! The log of a running build, on its way to those who wait for it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use semel_build::log::{self, FIRST_LINE, Line};
use semel_engine::build_log::{AddToLog, PIECE_BYTES, ReadLog};
use semel_engine::reserve::Holding;
use semel_model::name::ComponentName;
use semel_model::platform::Platform;
use semel_server::api::calls::BuildLog;
use tokio::task::AbortHandle;

use super::build_log;
use crate::report::Failure;
use crate::session::Session;

/// How often a running build's log is sent, and asked for.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// Sends what a build prints until it is dropped. Whatever goes wrong with it is no matter of the build.
pub(super) struct LiveLog(AbortHandle);

impl LiveLog {
    /// `path` is the log's file, which need not be there yet.
    pub(super) fn keep(session: &Session, holding: Holding, path: PathBuf) -> Self {
        let client = session.client.clone();
        let mut unsent = Unsent { path, read: 0 };
        let send = async move {
            let mut at_byte = 0;
            loop {
                tokio::time::sleep(PAUSE).await;
                while let Ok(Some((bytes, text))) = unsent.next() {
                    let length = text.len() as u64;
                    let add = AddToLog { holding: holding.clone(), at_byte, text };
                    match client.call(&add).await {
                        Ok(added) if added.full => return,
                        Ok(_) => (unsent.read, at_byte) = (unsent.read + bytes, at_byte + length),
                        // It is sent again.
                        Err(_) => break,
                    }
                }
            }
        };
        Self(tokio::spawn(send).abort_handle())
    }
}

impl Drop for LiveLog {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The rest of a log's file that was not sent.
struct Unsent {
    path: PathBuf,
    /// How many of its bytes were sent.
    read: u64,
}

impl Unsent {
    /// The next whole lines: how many bytes they have in the file, and their text.
    fn next(&self) -> io::Result<Option<(u64, String)>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        // A byte that is no text becomes three.
        let mut bytes = Vec::new();
        file.take(PIECE_BYTES as u64 / 3).read_to_end(&mut bytes)?;
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes[..=end]).into_owned();
        Ok(Some((end as u64 + 1, text)))
    }
}

/// Reads the log of a build as it grows: each line once, from the first.
pub(super) struct Following {
    component: ComponentName,
    number: u64,
    platform: Option<Platform>,
    attempt: u64,
    from_byte: u64,
    /// How many lines were shown.
    lines: usize,
}

impl Following {
    pub(super) fn new(component: ComponentName, number: u64, platform: Option<Platform>) -> Self {
        Self { component, number, platform, attempt: 0, from_byte: 0, lines: 0 }
    }

    /// Shows what was printed since the last step. Says whether somebody is building.
    pub(super) async fn step(
        &mut self,
        session: &Session,
        show: impl Fn(&Line<'_>),
    ) -> Result<bool, Failure> {
        loop {
            let Self { component, number, platform, attempt, from_byte, .. } = self;
            let ask = ReadLog {
                component: component.clone(),
                number: *number,
                attempt: *attempt,
                from_byte: *from_byte,
                platform: platform.clone(),
            };
            let found = session.client.call(&ask).await?;
            if found.attempt != self.attempt {
                if self.attempt != 0 {
                    session.output.say(format!("  attempt {}: from the beginning", found.attempt));
                }
                (self.attempt, self.from_byte, self.lines) = (found.attempt, 0, 0);
            }
            if found.text.is_empty() {
                return Ok(found.running);
            }
            let stretch = match found.at_byte {
                0 => found.text.as_bytes().strip_prefix(FIRST_LINE).unwrap_or(found.text.as_bytes()),
                _ => found.text.as_bytes(),
            };
            log::more_lines(stretch).for_each(|line| {
                show(&line);
                self.lines += 1;
            });
            self.from_byte = found.at_byte + found.text.len() as u64;
        }
    }

    /// The same for who waits for the build: that it cannot be read along is no reason not to wait.
    pub(super) async fn step_while_waiting(&mut self, session: &Session) {
        drop(self.step(session, |line| told(line, session)).await);
    }

    /// The rest, for who has waited.
    pub(super) async fn finish_waiting(&self, session: &Session) {
        drop(self.finish(session, |line| told(line, session)).await);
    }

    /// Shows what the stored log has beyond what was shown, if there is one.
    pub(super) async fn finish(&self, session: &Session, show: impl Fn(&Line<'_>)) -> Result<(), Failure> {
        let ask = BuildLog { component: self.component.clone(), build: self.number.to_string() };
        let found = session.client.call(&ask).await?;
        let of_part = found.parts.iter().find(|part| Some(&part.platform) == self.platform.as_ref());
        let Some(log) = of_part.map_or(&found.log, |part| &part.log) else { return Ok(()) };
        let bytes = build_log::read(&self.component, log, session).await?;
        log::lines(&bytes).skip(self.lines).for_each(|line| show(&line));
        Ok(())
    }
}

fn told(line: &Line<'_>, session: &Session) {
    session.output.say(format!("  | {}", build_log::shown(line)));
}
