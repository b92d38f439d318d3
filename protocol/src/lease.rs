//! Leases: the right to be the only one who does something, which dies with its holder.
//!
//! Start at [`LeaseGrant`]. A holder who is past its time may be overtaken; what it does then is refused by its
//! [`Fencing`] number, which is no longer the newest.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Which holding of a lease: grows with every one, in all processes together, and never comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fencing(pub u64);

impl std::fmt::Display for Fencing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What became of asking for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseGrant {
    /// It is the caller's.
    Granted {
        /// To be shown with whatever is done under the lease.
        fencing: Fencing,
        /// From then on somebody else may take it.
        until: Timestamp,
    },
    /// Somebody else has it, in this process or another one that lives.
    Held {
        /// From then on it may be taken; sooner, if its holder's process dies or it is given back.
        until: Timestamp,
    },
}

impl LeaseGrant {
    /// Returns the number of the holding that was granted; `None` when somebody else has the lease.
    #[must_use]
    pub fn fencing(&self) -> Option<Fencing> {
        match self {
            Self::Granted { fencing, .. } => Some(*fencing),
            Self::Held { .. } => None,
        }
    }
}
