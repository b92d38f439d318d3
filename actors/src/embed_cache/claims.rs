//! Claims: who computes a value alone, in all processes. What they mean is the machinery's, as leases.

use larder_protocol::embed_cache::{CacheKey, Claim, ClaimValues, ReleaseClaims};
use larder_protocol::lease::{Fencing, LeaseGrant};
use larder_protocol::{Error as Kind, LeaseName};

use super::evict;
use super::row::Finder;
use super::store::Writing;
use crate::store::{Outcome, check_count};

pub(super) fn claim(context: &mut Writing<'_>, message: &ClaimValues) -> Outcome<Vec<Claim>> {
    check_count(message.keys.len())?;
    let mut claims = Vec::with_capacity(message.keys.len());
    let mut finder = Finder::new(context.connection)?;
    for key in &message.keys {
        claims.push(match finder.find_live(key, context.now)? {
            Some(cached) => Claim::Found(cached),
            None => {
                // Before it is computed for nothing.
                evict::refuse_if_full(context, 1)?;
                match context.hold_lease(&lease(key)?, message.duration)? {
                    LeaseGrant::Granted { fencing, .. } => {
                        // By name it would take twice the room in the change log that the lease takes; nobody waits for it.
                        context.changed_all("claim", "");
                        Claim::Granted { fencing }
                    }
                    LeaseGrant::Held { until } => Claim::Held { until },
                }
            }
        });
    }
    Ok(claims)
}

pub(super) fn release(context: &mut Writing<'_>, message: &ReleaseClaims) -> Outcome<u64> {
    check_count(message.claims.len())?;
    let mut released_count = 0;
    for (key, fencing) in &message.claims {
        released_count += u64::from(release_one(context, key, *fencing)?);
    }
    Ok(released_count)
}

/// Gives a claim back; answers whether it was the current one.
pub(super) fn release_one(context: &mut Writing<'_>, key: &CacheKey, fencing: Fencing) -> Outcome<bool> {
    let is_released = context.let_go_of_lease(&lease(key)?, fencing)?;
    if is_released {
        context.changed_all("release", "");
    }
    Ok(is_released)
}

/// Returns the name of a key's lease.
fn lease(key: &CacheKey) -> Result<LeaseName, Kind> {
    LeaseName::new(key.to_string())
}
