//! Many at once.

use std::collections::BTreeSet;

use futures::future;

use crate::{
    store::{
        Compare, KeyRange, Operand, Operator, RangeRequest, Revision, Store, Transaction, Write,
        WriteOutcome,
    },
    testing::space::{Space, key, put_step},
};

/// Writers that get in each other's way: nothing that was acknowledged is lost, no revision is
/// given twice, nothing is seen by half, and watchers see each change.
///
/// # Panics
/// If the store does not keep the contract.
pub async fn concurrency(store: &dyn Store) {
    let space = Space::cleared(store).await;
    creation(space).await;
    increments(space).await;
    transfers(space).await;
}

/// Of many that create the same key one succeeds, and all others are told what it did.
async fn creation(space: Space<'_>) {
    let creators =
        (0..16).map(|number: u32| space.store.write(Write::create(key("one"), number.to_string())));
    let outcomes = future::join_all(creators).await;
    let mut winners = 0;
    let entry = space.get("one").await.expect("somebody has created it");
    for (number, outcome) in outcomes.into_iter().enumerate() {
        match outcome.expect("a write") {
            WriteOutcome::Committed { revision, .. } => {
                winners += 1;
                let created = (revision, entry.value == number.to_string());
                assert_eq!(created, (entry.create_revision, true), "the winner's value is there");
            }
            WriteOutcome::PreconditionFailed { current, .. } => {
                assert_eq!(current.as_ref(), Some(&entry), "a loser is told what is there");
            }
        }
    }
    assert_eq!(winners, 1, "a key is created once");
}

/// Guarded increments of one counter.
async fn increments(space: Space<'_>) {
    const WRITERS: usize = 8;
    const INCREMENTS: usize = 20;
    let mut seen = space.watch(KeyRange::key(key("counter")), None).await;
    space.put("counter", "0").await;
    let writers = (0..WRITERS).map(|_| async {
        let mut revisions = Vec::new();
        while revisions.len() < INCREMENTS {
            let found = space.get("counter").await.expect("the counter is there");
            let value: u64 = String::from_utf8_lossy(&found.value).parse().expect("a number");
            let next = (value + 1).to_string();
            let write = Write::update(key("counter"), found.mod_revision, next);
            if let WriteOutcome::Committed { revision, .. } =
                space.store.write(write).await.expect("a write")
            {
                revisions.push(revision);
            }
        }
        revisions
    });
    let revisions: Vec<Revision> = future::join_all(writers).await.concat();
    let total = WRITERS * INCREMENTS;
    let distinct: BTreeSet<_> = revisions.iter().collect();
    assert_eq!(distinct.len(), total, "a revision was given twice");
    let last = space.get("counter").await.expect("the counter is there");
    assert_eq!(last.value, total.to_string(), "an acknowledged increment was lost");
    for (number, event) in seen.events(total + 1).await.iter().enumerate() {
        assert_eq!(event.entry.value, number.to_string(), "the counter went by ones");
    }
}

/// Transactions that move something from one key to another: every snapshot has all of it.
async fn transfers(space: Space<'_>) {
    const ACCOUNTS: u64 = 4;
    const TRANSFERS: u64 = 25;
    const EACH: i64 = 100;
    for account in 0..ACCOUNTS {
        space.put(&format!("account/{account}"), &EACH.to_string()).await;
    }
    let read = || space.range(RangeRequest::new(KeyRange::prefix(key("account/"))));
    let total = |entries: &[crate::Entry]| -> i64 {
        let value = |entry: &crate::Entry| String::from_utf8_lossy(&entry.value).parse::<i64>();
        entries.iter().map(|entry| value(entry).expect("a number")).sum()
    };
    let movers = (0..ACCOUNTS).map(|mover| async move {
        let (mut done, mut attempt) = (0, mover);
        while done < TRANSFERS {
            attempt += 1;
            let accounts = read().await.entries;
            assert_eq!(total(&accounts), EACH * ACCOUNTS as i64, "a half of a transfer was seen");
            let pair = [mover % ACCOUNTS, (mover + 1 + attempt % (ACCOUNTS - 1)) % ACCOUNTS];
            let guard = |account: u64| Compare {
                range: KeyRange::key(key(format_args!("account/{account}"))),
                operator: Operator::Equal,
                operand: Operand::ModRevision(accounts[account as usize].mod_revision),
            };
            let put = |account: u64, change: i64| {
                let balance = total(&accounts[account as usize..=account as usize]) + change;
                put_step(&format!("account/{account}"), &balance.to_string())
            };
            let transfer = Transaction {
                compare: pair.map(guard).to_vec(),
                success: vec![put(pair[0], -1), put(pair[1], 1)],
                failure: Vec::new(),
            };
            done += u64::from(space.transact(transfer).await.succeeded);
        }
    });
    let first = space.revision().await;
    future::join_all(movers).await;
    let last = read().await;
    let versions: u64 = last.entries.iter().map(|entry| entry.version - 1).sum();
    assert_eq!(versions, 2 * ACCOUNTS * TRANSFERS, "an acknowledged transfer was lost");
    for revision in first..=last.revision {
        let past = RangeRequest {
            revision: Some(revision),
            ..RangeRequest::new(KeyRange::prefix(key("account/")))
        };
        let total = total(&space.range(past).await.entries);
        assert_eq!(total, EACH * ACCOUNTS as i64, "a half of a transfer at {revision}");
    }
}
