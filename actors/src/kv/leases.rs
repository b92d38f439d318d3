//! Leases as the key–value store's messages; what they mean is the machinery's.

use larder_protocol::Timestamp;
use larder_protocol::kv::{ExtendLease, ReleaseLease, TakeLease};
use larder_protocol::lease::LeaseGrant;

use super::store::Kv;
use crate::store::{Outcome, WriteContext};

pub(super) fn take(context: &mut WriteContext<'_, Kv>, message: &TakeLease) -> Outcome<LeaseGrant> {
    context.take_lease(&message.lease, message.duration)
}

pub(super) fn extend(context: &mut WriteContext<'_, Kv>, message: &ExtendLease) -> Outcome<Timestamp> {
    context.extend_lease(&message.lease, message.fencing, message.duration)
}

pub(super) fn release(context: &mut WriteContext<'_, Kv>, message: &ReleaseLease) -> Outcome<bool> {
    context.release_lease(&message.lease, message.fencing)
}
