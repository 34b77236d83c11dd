//! How often the same is asked again, and after which pauses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{ClientError, Retry};

/// The longest pause before an attempt, whatever the registry asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often something was tried in vain since it last got on.
pub(super) struct Patience {
    pub(super) retry: Retry,
    pub(super) failures: u32,
    pub(super) reached: Arc<AtomicBool>,
}

impl Patience {
    /// It got on: what failed before counts no more.
    pub(super) fn got_on(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt; gives the error back when there is to be none.
    pub(super) async fn wait_after(
        &mut self,
        error: ClientError,
        passes: impl FnOnce(&ClientError) -> bool,
    ) -> Result<(), ClientError> {
        let never_reached = error.is_connect() && !self.reached.load(Ordering::Relaxed);
        if self.failures >= self.retry.times || never_reached || !passes(&error) {
            return Err(error);
        }
        tokio::time::sleep(self.pause_after(&error)).await;
        self.failures += 1;
        Ok(())
    }

    fn pause_after(&self, error: &ClientError) -> Duration {
        let own = self.retry.pause.saturating_mul(1 << self.failures.min(10));
        let asked = match error {
            ClientError::Refused { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        own.max(asked).min(LONGEST_PAUSE)
    }
}
