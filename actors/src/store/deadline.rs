//! A caller's deadline.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// A caller's deadline, on the runtime's own timers: the caller's runtime may have none.
#[derive(Debug)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    pub(super) runtime: Handle,
}

impl Deadline {
    pub(super) fn after(duration: Duration, runtime: &Handle) -> Self {
        // A deadline past the end of time is one that a year stands in for.
        let now = Instant::now();
        let at = now.checked_add(duration).unwrap_or(now + Duration::from_secs(365 * 24 * 3600));
        Self { at, runtime: runtime.clone() }
    }

    /// Waits for `future` until the deadline; `None` when it passed first.
    pub(super) async fn wait<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let sleep = {
            let _entered = self.runtime.enter();
            tokio::time::sleep_until(self.at.into())
        };
        tokio::select! {
            biased;
            output = future => Some(output),
            () = sleep => None,
        }
    }
}
