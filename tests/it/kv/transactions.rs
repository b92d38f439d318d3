//! Transactions: all of it or nothing, and a later operation sees the earlier ones.

use larder::protocol::kv::OperationOutcome;
use larder::{Class, Collection, Larder};

use super::*;

async fn accounts(larder: &Larder) -> Collection<i64> {
    let accounts = larder.kv().collection::<i64>("accounts");
    accounts.put("alice", &10).await.unwrap();
    accounts
}

#[tokio::test]
async fn transaction_applies_everything_in_order_and_says_what_each_did() {
    let larder = temporary().await;
    let accounts = accounts(&larder).await;
    let outcomes = larder
        .kv()
        .transaction([
            accounts.require_present("alice").unwrap(),
            accounts.require_absent("bob").unwrap(),
            accounts.put_operation("bob", &1).unwrap(),
            accounts.require_present("bob").unwrap(),
            accounts.increment_operation("bob", 5).unwrap(),
            accounts.delete_operation("alice").unwrap(),
            accounts.delete_operation("alice").unwrap(),
            accounts.require_absent("alice").unwrap(),
        ])
        .await
        .unwrap();
    let bob = accounts.entry("bob").await.unwrap().unwrap();
    assert_eq!(bob.value, 6);
    assert!(matches!(outcomes[2], OperationOutcome::Put(version) if version < bob.version));
    assert_eq!(
        [outcomes[0], outcomes[1], outcomes[3], outcomes[4], outcomes[5], outcomes[6], outcomes[7]],
        [
            OperationOutcome::Held,
            OperationOutcome::Held,
            OperationOutcome::Held,
            OperationOutcome::Incremented(6),
            OperationOutcome::Deleted(true),
            OperationOutcome::Deleted(false),
            OperationOutcome::Held,
        ]
    );
}

#[tokio::test]
async fn transaction_that_fails_half_way_changes_nothing() {
    let larder = temporary().await;
    let accounts = accounts(&larder).await;
    let before = accounts.entry("alice").await.unwrap().unwrap();
    let failing = [
        vec![accounts.require_present("missing").unwrap()],
        vec![accounts.require_absent("alice").unwrap()],
        vec![accounts.require_version("alice", larder::protocol::Version(before.version.0 + 100)).unwrap()],
        vec![accounts.put_operation("n", &i64::MAX).unwrap(), accounts.increment_operation("n", 1).unwrap()],
    ];
    for last in failing {
        let mut operations = vec![
            accounts.increment_operation("alice", 1).unwrap(),
            accounts.put_operation("bob", &1).unwrap(),
            accounts.delete_operation("alice").unwrap(),
            accounts.put_operation("alice", &99).unwrap(),
        ];
        // The requirement on the version sees the put before it, so it fails whatever the version was.
        operations.extend(last);
        assert_refused(larder.kv().transaction(operations).await, Class::Conflict, &["conflict on key"]);
        assert_eq!(accounts.entry("alice").await.unwrap().unwrap(), before);
        assert_eq!(accounts.count().await.unwrap(), 1);
    }
}

#[tokio::test]
async fn failed_precondition_is_named() {
    let larder = temporary().await;
    let accounts = accounts(&larder).await;
    let operations = [accounts.require_present("alice").unwrap(), accounts.require_present("bob").unwrap()];
    let says = ["key \"bob\"", "collection \"accounts\"", "expected an entry", "found no entry"];
    assert_refused(larder.kv().transaction(operations).await, Class::Conflict, &says);
}

#[tokio::test]
async fn transaction_with_one_value_too_large_changes_nothing() {
    let larder = temporary().await;
    let texts = larder.kv().collection::<String>("c");
    let operations = [
        texts.put_operation("small", &"x".to_owned()).unwrap(),
        texts.put_operation("large", &"x".repeat(17 << 20)).unwrap(),
    ];
    assert_refused(larder.kv().transaction(operations).await, Class::InvalidInput, &["value is too large"]);
    assert_eq!(texts.count().await.unwrap(), 0);
}

/// While transactions fail half way, their neighbours' single writes must all stay.
#[tokio::test(flavor = "multi_thread")]
async fn failing_transactions_harm_no_neighbour() {
    let larder = temporary().await;
    let accounts = accounts(&larder).await;
    let callers = (0..128).map(|caller| {
        let (larder, accounts) = (larder.clone(), accounts.clone());
        tokio::spawn(async move {
            if caller % 2 == 0 {
                return accounts.increment("alice", 1).await.map(|_| ());
            }
            let operations = [
                accounts.increment_operation("alice", 1_000).unwrap(),
                accounts.put_operation(format!("k{caller}"), &1).unwrap(),
                accounts.require_absent("alice").unwrap(),
            ];
            larder.kv().transaction(operations).await.map(|_| ())
        })
    });
    for (caller, outcome) in futures::future::join_all(callers).await.into_iter().enumerate() {
        let outcome = outcome.unwrap();
        assert_eq!(outcome.is_ok(), caller % 2 == 0, "{outcome:?}");
    }
    assert_eq!(accounts.get("alice").await.unwrap(), Some(74));
    assert_eq!(accounts.count().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_transfers_keep_the_sum() {
    let larder = temporary().await;
    let accounts = larder.kv().collection::<i64>("accounts");
    let names: Vec<String> = (0..8).map(|i| format!("a{i}")).collect();
    accounts.put_many(names.iter().map(|name| (name, &100))).await.unwrap();
    let callers = (0..64).map(|caller: usize| {
        let (larder, accounts, names) = (larder.clone(), accounts.clone(), names.clone());
        tokio::spawn(async move {
            let (from, to) = (&names[caller % 8], &names[(caller * 3 + 1) % 8]);
            let transfer =
                [accounts.increment_operation(from, -7).unwrap(), accounts.increment_operation(to, 7).unwrap()];
            larder.kv().transaction(transfer).await.unwrap();
        })
    });
    let seen = futures::future::join_all((0..20).map(|_| accounts.get_many(&names).into_future()));
    let (callers, seen) = futures::join!(futures::future::join_all(callers), seen);
    callers.into_iter().for_each(|caller| caller.unwrap());
    for sums in seen {
        assert_eq!(sums.unwrap().into_iter().map(Option::unwrap).sum::<i64>(), 800);
    }
}
