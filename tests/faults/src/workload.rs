//! What the sweeps run: any program that keeps its operations in SQLite files.
//!
//! Start at [`Workload`]; the [crate's documentation](crate) shows larder's stores plugged in, [`crate::raw`] is a whole one.
//!
//! Always true: a workload never decides what is right after a crash or fault. It says what callers saw
//! ([`Witness`]) and what the files show ([`History::judge`]); the oracle is the harness's.

use std::path::Path;

use crate::history::{History, Verdict, Witness};

/// A program under attack.
pub trait Workload: Sync {
    /// The open stores.
    type Session;

    /// Opens the stores in `folder`, which is empty, populated, or what a power cut left.
    ///
    /// # Errors
    /// Why not. After a power cut that is a finding; while a fault is armed it is allowed.
    fn open(&self, folder: &Path) -> Result<Self::Session, String>;

    /// Sends a few operations, all of them following from `seed`, and tells `witness` when each begins and what its caller
    /// got. Errors are outcomes, not panics; callers may run at once. A session that a fault has broken mends itself here.
    fn step(&self, session: &mut Self::Session, seed: u64, witness: &Witness);

    /// Reads everything back, and judges it against `history`. Changes nothing that a check looks at.
    ///
    /// # Errors
    /// Why it could not be read. Allowed only while a fault is armed; a wrong answer is never an error, but a finding.
    fn check(&self, session: &mut Self::Session, history: &History) -> Result<Verdict, String>;

    /// Returns whether `op` succeeds where nothing fails; one that the store's own rules may refuse does not.
    fn must_succeed(&self, _op: u64) -> bool {
        true
    }

    /// Closes the stores.
    fn close(&self, session: Self::Session) {
        drop(session);
    }

    /// Opens, checks and closes.
    fn verify(&self, folder: &Path, history: &History) -> Verdict {
        let mut session = match self.open(folder) {
            Ok(session) => session,
            Err(why) => return Verdict::corrupt(format!("opening: {why}")),
        };
        let verdict =
            self.check(&mut session, history).unwrap_or_else(|why| Verdict::corrupt(format!("reading: {why}")));
        self.close(session);
        verdict
    }
}
