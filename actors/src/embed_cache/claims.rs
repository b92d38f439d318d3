//! Claims: who computes a value alone, in all processes. What they mean is the machinery's, as leases.

use larder_protocol::embed_cache::{CacheKey, Claim, ClaimValues, ReleaseClaims};
use larder_protocol::lease::LeaseGrant;
use larder_protocol::{Error as Kind, LeaseName};

use super::evict;
use super::row::find_live;
use super::store::Writing;
use crate::store::{Outcome, check_count};

pub(super) fn claim(context: &mut Writing<'_>, message: &ClaimValues) -> Outcome<Vec<Claim>> {
    check_count(message.keys.len())?;
    let mut claims = Vec::with_capacity(message.keys.len());
    for key in &message.keys {
        claims.push(match find_live(context.connection, key, context.now)? {
            Some(cached) => Claim::Found(cached),
            None => {
                // Before it is computed for nothing.
                evict::refuse_if_full(context, 1)?;
                match context.take_lease(&lease(key)?, message.duration)? {
                    LeaseGrant::Granted { fencing, .. } => Claim::Granted { fencing },
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
        released_count += u64::from(context.release_lease(&lease(key)?, *fencing)?);
    }
    Ok(released_count)
}

/// Returns the name of a key's lease.
pub(super) fn lease(key: &CacheKey) -> Result<LeaseName, Kind> {
    LeaseName::new(key.to_string())
}
