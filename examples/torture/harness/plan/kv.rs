//! The key–value store's plan: ten kinds of operations, each with keys of its own or a sum that must come out.
//!
//! Start at [`KvOperation::of`], which says what an id does; [`shown`] says what of that a store shows.
//!
//! Always true: a key is written by one id, and changed by at most one later id, so that a history says what it may hold;
//! shared counters are only added to, so that a history bounds them.

mod shown;

use std::fmt;
use std::time::Duration;

use futures::future::{BoxFuture, join};
use larder::protocol::kv::{Operation, PutValue, PutValues, RequiredState};
use larder::protocol::{CollectionName, Format, Key, Message, Value};
use larder::{Larder, Request, Result, Written};

use super::{FAR, History, Lie, NEAR, Outcome, Plan, Random, Shown, must_fail};

/// Keys that belong to ids.
const OWNED: &str = "owned";
/// A row for each id that moved an amount to a counter, with that amount.
const MOVED: &str = "moved";
const COUNTERS: &str = "counters";
const REGISTERS: &str = "registers";
/// Few counters and registers, so that callers meet.
const SHARED_COUNT: u64 = 4;

pub(crate) struct KvPlan;

/// What an id does.
#[derive(Debug, Clone, PartialEq, Eq)]
enum KvOperation {
    /// Puts its own key.
    Put,
    /// Puts its own keys, all or none.
    PutMany { count: u64 },
    /// Puts its own keys, of which the last is not JSON though it says so: nothing may be left.
    PutManyInvalid { count: u64 },
    /// Deletes an earlier id's key.
    Delete { target: u64 },
    /// Replaces an earlier id's value at the version it finds.
    CompareAndPut { target: u64 },
    /// Adds 1 to a shared counter.
    Increment { counter: u64 },
    /// Adds 1 to a shared counter, twice under one idempotency key: once.
    IncrementOnce { counter: u64 },
    /// Reads a shared register and replaces it at the version found, counting up: no update is lost.
    Register { register: u64 },
    /// Adds to a shared counter and leaves a row that says how much.
    Move { counter: u64, amount: u64, has_key: bool },
    /// Does the same and then requires what is not there: nothing may be left.
    MoveRefused { counter: u64, amount: u64 },
}

/// How long the caller waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    Whole,
    /// For this long only.
    Deadline(Duration),
    /// It goes away once the request is queued.
    Leaves,
}

impl KvOperation {
    fn of(seed: u64, id: u64) -> Self {
        let mut random = Random::of(seed, id);
        let shared = random.below(SHARED_COUNT);
        match id % 10 {
            2 | 3 => Self::PutMany { count: 2 + random.below(28) },
            // Their distances lead to ids that end in 0 and 1, which put.
            4 if id >= FAR => Self::change(id - FAR, random.percent(50)),
            5 if id >= NEAR => Self::change(id - NEAR, random.percent(50)),
            6 => Self::Increment { counter: shared },
            7 => Self::IncrementOnce { counter: shared },
            8 => Self::Register { register: shared },
            9 => Self::rare(&mut random, shared),
            _ => Self::Put,
        }
    }

    fn change(target: u64, is_delete: bool) -> Self {
        if is_delete { Self::Delete { target } } else { Self::CompareAndPut { target } }
    }

    fn rare(random: &mut Random, counter: u64) -> Self {
        let amount = 1 + random.below(1000);
        match random.below(10) {
            0 => Self::PutManyInvalid { count: 2 + random.below(8) },
            1 => Self::MoveRefused { counter, amount },
            n => Self::Move { counter, amount, has_key: n > 5 },
        }
    }
}

impl fmt::Display for KvOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put => write!(f, "kv.put"),
            Self::PutMany { count } => write!(f, "kv.put_many {count}"),
            Self::PutManyInvalid { count } => write!(f, "kv.put_many_invalid {count}"),
            Self::Delete { target } => write!(f, "kv.delete {target}"),
            Self::CompareAndPut { target } => write!(f, "kv.compare_and_put {target}"),
            Self::Increment { counter } => write!(f, "kv.increment {counter}"),
            Self::IncrementOnce { counter } => write!(f, "kv.increment_once {counter}"),
            Self::Register { register } => write!(f, "kv.register {register}"),
            Self::Move { counter, amount, .. } => write!(f, "kv.move {counter} {amount}"),
            Self::MoveRefused { counter, amount } => write!(f, "kv.move_refused {counter} {amount}"),
        }
    }
}

impl Patience {
    fn of(seed: u64, id: u64) -> Self {
        let mut random = Random::of(seed ^ 1, id);
        match random.below(100) {
            0..=2 => Self::Deadline(Duration::from_micros(50 + random.below(4_000))),
            3..=4 => Self::Leaves,
            _ => Self::Whole,
        }
    }
}

fn put_key(id: u64) -> String {
    format!("put-{id:012}")
}

fn batch_key(id: u64, item: u64) -> String {
    format!("batch-{id:012}-{item:02}")
}

fn moved_key(id: u64) -> String {
    format!("{id:012}")
}

/// Returns what `id` writes as its `item`: mostly small, sometimes more than a page.
fn content(seed: u64, id: u64, item: u64) -> Vec<u8> {
    let mut random = Random::of(seed ^ (2 + item), id);
    let bytes = if random.percent(2) { 4_000 + random.below(5_000) } else { 8 + random.below(250) };
    let mut content = Vec::new();
    while (content.len() as u64) < bytes {
        content.extend_from_slice(&random.next().to_le_bytes());
    }
    content
}

impl Plan for KvPlan {
    fn describe(&self, seed: u64, id: u64) -> String {
        KvOperation::of(seed, id).to_string()
    }

    fn is_repeatable(&self, seed: u64, id: u64) -> bool {
        matches!(KvOperation::of(seed, id), KvOperation::IncrementOnce { .. } | KvOperation::Move { has_key: true, .. })
    }

    fn is_sure(&self, seed: u64, id: u64) -> bool {
        let operation = KvOperation::of(seed, id);
        Patience::of(seed, id) == Patience::Whole
            && matches!(operation, KvOperation::Put | KvOperation::PutMany { .. } | KvOperation::Increment { .. })
    }

    fn send<'a>(&'a self, larder: &'a Larder, seed: u64, id: u64, lie: Option<Lie>) -> BoxFuture<'a, Outcome> {
        let sender = Sender { larder, seed, id, patience: Patience::of(seed, id) };
        Box::pin(async move { sender.send(KvOperation::of(seed, id), lie).await })
    }

    fn inspect<'a>(&'a self, larder: &'a Larder, history: &'a History) -> BoxFuture<'a, Result<Shown>> {
        Box::pin(shown::inspect(larder, history))
    }

    fn lose_last(&self, connection: &rusqlite::Connection, history: &History) -> Result<String, String> {
        let seed = history.seed;
        let key = history.possible().filter(|(_, is_certain)| *is_certain).filter_map(|(id, _)| last_key(seed, id));
        let key = key.last().ok_or("no acknowledged batch to lose a row of")?;
        let deleted = connection
            .execute("DELETE FROM entry WHERE collection = ?1 AND key = ?2", [OWNED, &key])
            .map_err(|e| format!("cannot delete {key}: {e}"))?;
        if deleted == 1 { Ok(key) } else { Err(format!("{key} was lost already")) }
    }

    fn add_row<'a>(&'a self, larder: &'a Larder) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { larder.kv().bytes(OWNED).put("stray", "nobody put this").await.map(|_| ()) })
    }
}

/// Returns the last key of a batch, which no later id changes.
fn last_key(seed: u64, id: u64) -> Option<String> {
    match KvOperation::of(seed, id) {
        KvOperation::PutMany { count } => Some(batch_key(id, count - 1)),
        _ => None,
    }
}

/// One operation on its way.
struct Sender<'a> {
    larder: &'a Larder,
    seed: u64,
    id: u64,
    patience: Patience,
}

impl Sender<'_> {
    async fn send(&self, operation: KvOperation, lie: Option<Lie>) -> Outcome {
        let (larder, id) = (self.larder, self.id);
        let counters = larder.kv().collection::<i64>(COUNTERS);
        match operation {
            KvOperation::Put => {
                let value = content(self.seed, id, 0);
                self.answer(larder.kv().bytes(OWNED).put(put_key(id), value)).await
            }
            KvOperation::PutMany { count } => {
                let sent = if lie == Some(Lie::SkipBatchHalf) { count / 2 } else { count };
                match self.put_many(sent, false).await {
                    Outcome::Acknowledged => self.read_own_write().await,
                    other => other,
                }
            }
            KvOperation::PutManyInvalid { count } => must_fail(self.put_many(count, true).await),
            KvOperation::Delete { target } => self.answer(larder.kv().bytes(OWNED).delete(put_key(target))).await,
            KvOperation::CompareAndPut { target } => self.compare_and_put(target).await,
            KvOperation::Increment { counter } => self.answer(counters.increment(format!("plain-{counter}"), 1)).await,
            KvOperation::IncrementOnce { counter } => self.increment_once(counter).await,
            KvOperation::Register { register } => self.register(register).await,
            KvOperation::Move { counter, amount, has_key } => self.transfer(counter, amount, false, has_key).await,
            KvOperation::MoveRefused { counter, amount } => {
                must_fail(self.transfer(counter, amount, true, false).await)
            }
        }
    }

    /// Waits for an answer as long as the caller has patience.
    async fn answer<M, T>(&self, request: Request<M, T>) -> Outcome
    where
        M: Message,
        Request<M, T>: IntoFuture<Output = Result<T>, IntoFuture: Unpin>,
    {
        let request = match self.patience {
            Patience::Deadline(deadline) => request.deadline(deadline),
            Patience::Whole | Patience::Leaves => request,
        };
        let mut answer = request.into_future();
        if self.patience == Patience::Leaves {
            return match futures::poll!(&mut answer) {
                std::task::Poll::Ready(answered) => Outcome::of(answered),
                std::task::Poll::Pending => Outcome::Failed("left".to_owned(), Written::Unknown),
            };
        }
        Outcome::of(answer.await)
    }

    /// Reads what was just acknowledged, which nobody changes: the caller must see it.
    async fn read_own_write(&self) -> Outcome {
        let expected = content(self.seed, self.id, 0);
        match self.larder.kv().bytes(OWNED).get(batch_key(self.id, 0)).await {
            Ok(found) if found.as_deref() != Some(&expected[..]) => {
                Outcome::Wrong("it does not read its own write".to_owned())
            }
            // A failed read is no wrong answer.
            _ => Outcome::Acknowledged,
        }
    }

    async fn put_many(&self, count: u64, is_last_invalid: bool) -> Outcome {
        let puts = (0..count).map(|item| {
            let mut value = Value::bytes(content(self.seed, self.id, item));
            if is_last_invalid && item + 1 == count {
                value.format = Format::Json;
            }
            owned_put(&batch_key(self.id, item), value)
        });
        match puts.collect() {
            Ok(puts) => self.answer(self.larder.ask(PutValues { puts })).await,
            Err(error) => Outcome::Wrong(error.to_string()),
        }
    }

    async fn compare_and_put(&self, target: u64) -> Outcome {
        let found = match self.larder.kv().bytes(OWNED).entry(put_key(target)).await {
            Ok(Some(entry)) => entry,
            // Not there, or not yet: there is no version to name.
            Ok(None) => return Outcome::not_found(),
            Err(error) => return Outcome::unread(&error),
        };
        match owned_put(&put_key(target), Value::bytes(content(self.seed, self.id, 0))) {
            Ok(put) => {
                let message = larder::protocol::kv::CompareAndPut { expected: found.version, put };
                self.answer(self.larder.ask(message)).await
            }
            Err(error) => Outcome::Wrong(error.to_string()),
        }
    }

    async fn increment_once(&self, counter: u64) -> Outcome {
        let send = || {
            let counters = self.larder.kv().collection::<i64>(COUNTERS);
            counters.increment(format!("once-{counter}"), 1).idempotency_key(format!("once-{}", self.id))
        };
        match join(send().into_future(), send().into_future()).await {
            (Ok(first), Ok(second)) if first != second => {
                Outcome::Wrong(format!("one idempotency key, two answers: {first} and {second}"))
            }
            // One of the two was applied, whatever became of the other.
            (Ok(_), _) | (_, Ok(_)) => Outcome::Acknowledged,
            (Err(first), Err(second)) if first.written() == Written::NotApplied => Outcome::of::<()>(Err(second)),
            (Err(first), Err(_)) => Outcome::of::<()>(Err(first)),
        }
    }

    /// Counts a register up: `[count, last id]`.
    async fn register(&self, register: u64) -> Outcome {
        let registers = self.larder.kv().collection::<(u64, u64)>(REGISTERS);
        let key = register.to_string();
        match registers.entry(&key).await {
            Ok(Some(found)) => {
                let next = (found.value.0 + 1, self.id);
                self.answer(registers.compare_and_put(&key, found.version, &next)).await
            }
            Ok(None) => match registers.put_if_absent(&key, &(1, self.id)).await {
                Ok(None) => Outcome::Failed("conflict".to_owned(), Written::NotApplied),
                put => Outcome::of(put),
            },
            Err(error) => Outcome::unread(&error),
        }
    }

    async fn transfer(&self, counter: u64, amount: u64, is_refused: bool, has_key: bool) -> Outcome {
        let counters = self.larder.kv().collection::<i64>(COUNTERS);
        let moved = self.larder.kv().collection::<u64>(MOVED);
        let key = moved_key(self.id);
        let operations = || -> Result<Vec<Operation>> {
            let mut operations = vec![
                moved.require_absent(&key)?,
                counters.increment_operation(format!("moved-{counter}"), i64::try_from(amount).unwrap_or(0))?,
                moved.put_operation(&key, &amount)?,
            ];
            if is_refused {
                let (collection, key) = (CollectionName::new(MOVED)?, Key::new("never there")?);
                operations.push(Operation::Require { collection, key, state: RequiredState::Present });
            }
            Ok(operations)
        };
        match operations() {
            Err(error) => Outcome::Wrong(error.to_string()),
            Ok(operations) if has_key => {
                let request = self.larder.kv().transaction(operations);
                self.answer(request.idempotency_key(format!("moved-{}", self.id))).await
            }
            Ok(operations) => self.answer(self.larder.kv().transaction(operations)).await,
        }
    }
}

fn owned_put(key: &str, value: Value) -> Result<PutValue, larder::ErrorKind> {
    let (collection, key) = (CollectionName::new(OWNED)?, Key::new(key)?);
    Ok(PutValue { collection, key, value, time_to_live: None, tags: Vec::new() })
}
