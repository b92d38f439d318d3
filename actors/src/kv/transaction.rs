//! A list of operations, all or none.

use larder_protocol::kv::{ApplyTransaction, Operation, OperationOutcome, RequiredState};
use larder_protocol::{CollectionName, Key};

use super::row::find_version;
use super::store::Kv;
use super::values;
use crate::store::{Outcome, WriteContext, check_count};

/// Runs the operations in order. An error leaves the undoing to the group, which knows what was changed.
pub(super) fn apply(context: &mut WriteContext<'_, Kv>, message: &ApplyTransaction) -> Outcome<Vec<OperationOutcome>> {
    check_count(message.operations.len())?;
    // Before the first change, so that an invalid transaction costs its neighbours nothing.
    for operation in &message.operations {
        if let Operation::Put(put) = operation {
            values::check(put, context.settings)?;
        }
    }
    message.operations.iter().map(|operation| run(context, operation)).collect()
}

fn run(context: &mut WriteContext<'_, Kv>, operation: &Operation) -> Outcome<OperationOutcome> {
    match operation {
        Operation::Require { collection, key, state } => require(context, collection, key, *state),
        Operation::RequireLease { lease, fencing } => {
            context.require_lease(lease, *fencing).map(|()| OperationOutcome::Held)
        }
        Operation::Put(put) => values::put(context, put).map(OperationOutcome::Put),
        Operation::Delete(delete) => values::delete(context, delete).map(OperationOutcome::Deleted),
        Operation::Increment(increment) => values::increment(context, increment).map(OperationOutcome::Incremented),
        _ => Err(larder_protocol::Error::invalid("operation", "this build of larder does not know it").into()),
    }
}

fn require(
    context: &WriteContext<'_, Kv>,
    collection: &CollectionName,
    key: &Key,
    state: RequiredState,
) -> Outcome<OperationOutcome> {
    let found = find_version(context.connection, collection.as_str(), key.as_str(), context.now)?;
    let (holds, expected) = match state {
        RequiredState::Absent => (found.is_none(), "no entry".to_owned()),
        RequiredState::Present => (found.is_some(), "an entry".to_owned()),
        RequiredState::AtVersion(version) => (found == Some(version), format!("version {version}")),
    };
    if holds {
        return Ok(OperationOutcome::Held);
    }
    Err(values::version_conflict(collection, key, expected, found).into())
}
