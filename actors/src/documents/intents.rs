//! The journal of intents: rows that say what is to follow in other stores, and who sees to it.
//!
//! Start at [`begin_ingests`]: a document, its nodes and the intent are one commit. What the payload says is the caller's; here
//! it is bytes with a checksum.
//!
//! Always true: a subject has one open intent at most; only the current holding of an intent finishes it; only an intent whose
//! holder is dead, or in the caller's own process, is taken over; a damaged one is in nobody's way but its own subject's, and
//! stays until somebody says that all was done again.

use std::collections::HashSet;

use bytes::Bytes;
use larder_protocol::documents::{
    BeginForgets, BeginIngests, Beginning, BegunIntent, DamagedIntent, DropDamagedIntents, FinishIntents, Intent,
    IntentId, IntentKind, IntentSubject, ListDamagedIntents, ListIntents, NewIngest, PutDocument, TakeIntent,
    TakePurpose, TakenIntent,
};
use larder_protocol::lease::Fencing;
use larder_protocol::{ContextName, DocumentId, Error as Kind, NodeId, SessionId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::delete::{self, ROWS_AT_ONCE_MAX};
use super::members::{self, Member};
use super::nodes::Step;
use super::put::{self, Plan};
use super::row::{self, damaged};
use super::sources;
use super::store::{Reading, Writing};
use crate::store::{Failure, Outcome, Process, check_count, check_limit, decoded};

/// The columns that [`IntentRow::read`] decodes, in its order.
const COLUMNS: &str = "key, context, subject_kind, subject, kind, leaving, created_ms, checksum, holder, fencing";

/// An intent as a row.
struct IntentRow {
    id: IntentId,
    context: ContextName,
    subject: IntentSubject,
    kind: IntentKind,
    leaving: Vec<NodeId>,
    created: Timestamp,
    holder: String,
    fencing: Fencing,
}

impl IntentRow {
    fn find(connection: &Connection, subject: &IntentSubject) -> Outcome<Option<Self>> {
        let sql = format!("SELECT {COLUMNS} FROM intent WHERE subject_kind = ?1 AND subject = ?2");
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![kind_of(subject), subject.as_str()])?;
        rows.next()?.map(Self::read).transpose()
    }

    fn find_by_id(connection: &Connection, id: IntentId) -> Outcome<Option<Self>> {
        let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM intent WHERE key = ?1"))?;
        let mut rows = statement.query([id.0])?;
        rows.next()?.map(Self::read).transpose()
    }

    fn read(row: &Row<'_>) -> Outcome<Self> {
        decoded(Self::decode(row), || damaged(format!("the intent on {}", row::shown(row, 3))))
    }

    /// Reads a row; `None` when it is damaged.
    fn read_if_sound(row: &Row<'_>) -> Outcome<Option<Self>> {
        match Self::read(row) {
            Ok(found) => Ok(Some(found)),
            Err(Failure::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the row's intent; `None` when it is not what was written.
    fn decode(row: &Row<'_>) -> rusqlite::Result<Option<Self>> {
        let (key, context, subject_kind): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (subject, kind, leaving): (String, i64, String) = (row.get(3)?, row.get(4)?, row.get(5)?);
        let created_ms: i64 = row.get(6)?;
        if checksum([key, subject_kind, kind, created_ms], [&context, &subject, &leaving]) != row.get::<_, i64>(7)? {
            return Ok(None);
        }
        let names = || -> Result<_, Kind> {
            let context = ContextName::new(&context)?;
            let subject = subject_of(subject_kind, &subject)?;
            let leaving: Vec<NodeId> =
                serde_json::from_str(&leaving).map_err(|_| Kind::invalid("intent", "its list is none"))?;
            Ok((context, subject, leaving))
        };
        let Ok((context, subject, leaving)) = names() else { return Ok(None) };
        let kind = match kind {
            INGEST => IntentKind::Ingest,
            FORGET => IntentKind::Forget,
            _ => return Ok(None),
        };
        let (id, fencing) = (IntentId(key.cast_unsigned()), Fencing(row.get(9)?));
        Ok(Some(Self {
            id,
            context,
            subject,
            kind,
            leaving,
            created: Timestamp(created_ms),
            holder: row.get(8)?,
            fencing,
        }))
    }

    /// Makes an ingest a forget of the same subject.
    fn turn_into_forget(&mut self, connection: &Connection) -> Outcome<()> {
        let key = self.id.0.cast_signed();
        let numbers = [key, kind_of(&self.subject), FORGET, self.created.0];
        let checksum = checksum(numbers, [self.context.as_str(), self.subject.as_str(), &listed(&self.leaving)]);
        connection
            .prepare_cached("UPDATE intent SET kind = ?2, checksum = ?3 WHERE key = ?1")?
            .execute([key, FORGET, checksum])?;
        connection.prepare_cached("DELETE FROM intent_payload WHERE intent_key = ?1")?.execute([key])?;
        self.kind = IntentKind::Forget;
        Ok(())
    }

    fn into_intent(self, process: &Process) -> Intent {
        let (is_abandoned, is_own_process) = (process.is_dead(&self.holder), self.holder == process.name);
        let Self { id, context, subject, kind, leaving, created, .. } = self;
        Intent { id, context, subject, kind, leaving, is_abandoned, is_own_process, created }
    }
}

const DOCUMENT: i64 = 0;
const SESSION: i64 = 1;
const OWNER: i64 = 2;
const INGEST: i64 = 0;
const FORGET: i64 = 1;

fn kind_of(subject: &IntentSubject) -> i64 {
    match subject {
        IntentSubject::Document(_) => DOCUMENT,
        IntentSubject::Session(_) => SESSION,
        IntentSubject::Owner(_) => OWNER,
    }
}

fn subject_of(kind: i64, name: &str) -> Result<IntentSubject, Kind> {
    Ok(match kind {
        DOCUMENT => IntentSubject::Document(DocumentId::new(name)?),
        SESSION => IntentSubject::Session(SessionId::new(name)?),
        OWNER => IntentSubject::Owner(name.to_owned()),
        _ => return Err(Kind::invalid("intent", "its subject is unknown")),
    })
}

/// Each part seeds the next one's hash.
fn checksum(numbers: [i64; 4], texts: [&str; 3]) -> i64 {
    let seed = numbers.into_iter().fold(0, |seed, number| xxh3_64_with_seed(&number.to_le_bytes(), seed));
    texts.into_iter().fold(seed, |seed, text| xxh3_64_with_seed(text.as_bytes(), seed)).cast_signed()
}

/// Returns the nodes that leave with an intent, as its row has them.
fn listed(leaving: &[NodeId]) -> String {
    serde_json::Value::from_iter(leaving.iter().map(NodeId::as_str)).to_string()
}

fn payload_checksum(intent: IntentId, part: i64, payload: &[u8]) -> i64 {
    xxh3_64_with_seed(payload, xxh3_64_with_seed(&part.to_le_bytes(), intent.0)).cast_signed()
}

pub(super) fn begin_ingests(context: &mut Writing<'_>, message: &BeginIngests) -> Outcome<Vec<Beginning>> {
    check_count(message.ingests.len())?;
    let mut ids = HashSet::new();
    for NewIngest { put, .. } in &message.ingests {
        if !ids.insert(put.document.id.as_str()) {
            let reason = format!("the id {:?} stands twice among them", put.document.id.as_str());
            return Err(Kind::invalid("documents", reason).into());
        }
    }
    check_count(message.ingests.iter().map(|ingest| ingest.put.nodes.len()).sum())?;
    message.ingests.iter().map(|ingest| begin_ingest(context, &message.context, ingest)).collect()
}

fn begin_ingest(context: &mut Writing<'_>, name: &ContextName, ingest: &NewIngest) -> Outcome<Beginning> {
    // Nothing is written before all that can be refused was looked at, so that a refusal is this document's alone.
    let plan = match look(context, name, ingest) {
        Ok(Looked::Free(plan)) => plan,
        Ok(Looked::Answer(answer)) => return Ok(answer),
        Err(Failure::Refused(refused)) => return Ok(Beginning::Refused(refused)),
        Err(error) => return Err(error),
    };
    let leaving = plan.leaving.iter().map(|(_, id)| NodeId::new(id)).collect::<Result<Vec<_>, _>>()?;
    let (hash, document) = (plan.hash, &ingest.put.document.id);
    let outcome = plan.execute(context, &ingest.put)?;
    let key = sources::require_key(context.connection, Some(document))?;
    let member = Member { context: name.clone(), hash, owner: ingest.owner.clone(), session: ingest.session.clone() };
    member.put(context.connection, key)?;
    let subject = IntentSubject::Document(document.clone());
    let intent = insert(context, name, &subject, IntentKind::Ingest, leaving)?;
    put_payload(context.connection, intent.id, &ingest.payload)?;
    Ok(Beginning::Begun { intent, outcome: Some(outcome) })
}

/// What a look at a document says.
enum Looked {
    /// Its nodes can be put.
    Free(Plan),
    /// They cannot.
    Answer(Beginning),
}

fn look(context: &Writing<'_>, name: &ContextName, ingest: &NewIngest) -> Outcome<Looked> {
    let connection = context.connection;
    let PutDocument { document, .. } = &ingest.put;
    put::check(context.settings, std::slice::from_ref(&ingest.put))?;
    if IntentRow::find(connection, &IntentSubject::Document(document.id.clone()))?.is_some() {
        return Ok(Looked::Answer(Beginning::Held));
    }
    let plan = Plan::of(connection, &ingest.put)?;
    let member = match &plan.found {
        Some(found) => Member::find(connection, found.key)?,
        None => None,
    };
    if let Some(member) = &member {
        member.require(&document.id, name)?;
    }
    if let Some(covered) = &ingest.covered {
        let committed = plan.found.as_ref().and_then(|found| found.document.hash);
        let is_as_ingested = member.is_some_and(|member| Some(member.hash) == committed);
        if !is_as_ingested || !covers(connection, &plan, ingest, covered)? {
            return Ok(Looked::Answer(Beginning::Outdated));
        }
    }
    Ok(Looked::Free(plan))
}

/// Tells whether every node whose content is new is covered.
fn covers(connection: &Connection, plan: &Plan, ingest: &NewIngest, covered: &[NodeId]) -> Outcome<bool> {
    let covered: HashSet<&str> = covered.iter().map(NodeId::as_str).collect();
    for (node, step) in ingest.put.nodes.iter().zip(&plan.steps) {
        let is_new = match step {
            Step::Insert(_) => true,
            // Relationships and places are of no interest to other stores.
            Step::Update { key, hash, .. } => {
                let mut statement = connection.prepare_cached("SELECT hash FROM node WHERE key = ?1")?;
                statement.query_row([key], |row| row.get::<_, [u8; 32]>(0))? != hash.0
            }
            Step::Place(_) | Step::Keep(_) => false,
        };
        if is_new && !covered.contains(node.id.as_str()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn insert(
    context: &mut Writing<'_>,
    name: &ContextName,
    subject: &IntentSubject,
    kind: IntentKind,
    leaving: Vec<NodeId>,
) -> Outcome<BegunIntent> {
    let id = IntentId(context.next_version().0);
    let key = id.0.cast_signed();
    let listed = listed(&leaving);
    let (subject_kind, kind) = (kind_of(subject), if kind == IntentKind::Ingest { INGEST } else { FORGET });
    let numbers = [key, subject_kind, kind, context.now.0];
    let checksum = checksum(numbers, [name.as_str(), subject.as_str(), &listed]);
    context
        .connection
        .prepare_cached(
            "INSERT INTO intent (key, context, subject_kind, subject, kind, leaving, created_ms, checksum, holder, fencing)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?1)",
        )?
        .execute(params![
            key,
            name.as_str(),
            subject_kind,
            subject.as_str(),
            kind,
            listed,
            context.now.0,
            checksum,
            context.process.name
        ])?;
    context.changed("intent", "", subject.as_str());
    Ok(BegunIntent { id, fencing: Fencing(id.0), leaving })
}

fn put_payload(connection: &Connection, id: IntentId, payload: &[Bytes]) -> Outcome<()> {
    let mut statement = connection
        .prepare_cached("INSERT INTO intent_payload (intent_key, part, checksum, payload) VALUES (?1, ?2, ?3, ?4)")?;
    for (part, bytes) in (0_i64..).zip(payload) {
        statement.execute(params![id.0, part, payload_checksum(id, part, bytes), &**bytes])?;
    }
    Ok(())
}

fn read_payload(connection: &Connection, intent: &IntentRow) -> Outcome<Vec<Bytes>> {
    let id = intent.id;
    let mut statement = connection
        .prepare_cached("SELECT part, checksum, payload FROM intent_payload WHERE intent_key = ?1 ORDER BY part")?;
    let mut rows = statement.query([id.0])?;
    let mut payload = Vec::new();
    while let Some(row) = rows.next()? {
        let read = || {
            let (part, stored): (i64, i64) = (row.get(0)?, row.get(1)?);
            let bytes = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
            Ok((payload_checksum(id, part, bytes) == stored).then(|| Bytes::copy_from_slice(bytes)))
        };
        payload.push(decoded(read(), || damaged(format!("the payload of the intent on {}", intent.subject)))?);
    }
    Ok(payload)
}

pub(super) fn begin_forgets(context: &mut Writing<'_>, message: &BeginForgets) -> Outcome<Vec<Beginning>> {
    check_count(message.subjects.len())?;
    message.subjects.iter().map(|subject| begin_forget(context, &message.context, subject)).collect()
}

fn begin_forget(context: &mut Writing<'_>, name: &ContextName, subject: &IntentSubject) -> Outcome<Beginning> {
    // First: whoever hears that it is held takes over what is open, and that may be another context's.
    if let IntentSubject::Document(id) = subject
        && let Some((_, Some(member))) = members::place(context.connection, id)?
        && let Err(refused) = member.require(id, name)
    {
        return Ok(Beginning::Refused(refused));
    }
    if IntentRow::find(context.connection, subject)?.is_some() {
        return Ok(Beginning::Held);
    }
    let intent = insert(context, name, subject, IntentKind::Forget, Vec::new())?;
    Ok(Beginning::Begun { intent, outcome: None })
}

pub(super) fn take(context: &mut Writing<'_>, message: &TakeIntent) -> Outcome<TakenIntent> {
    let Some(mut found) = IntentRow::find(context.connection, &message.subject)? else { return Ok(TakenIntent::None) };
    if found.holder != context.process.name && !context.process.is_dead(&found.holder) {
        return Ok(TakenIntent::Held);
    }
    let payload = match (found.kind, message.purpose) {
        (IntentKind::Ingest, TakePurpose::Finish) => match read_payload(context.connection, &found) {
            Ok(payload) => payload,
            Err(Failure::Refused(_)) => return Ok(TakenIntent::Damaged(found.into_intent(context.process))),
            Err(error) => return Err(error),
        },
        (IntentKind::Ingest, TakePurpose::Forget) => {
            found.turn_into_forget(context.connection)?;
            Vec::new()
        }
        _ => Vec::new(),
    };
    let fencing = Fencing(context.next_version().0);
    context
        .connection
        .prepare_cached("UPDATE intent SET holder = ?2, fencing = ?3 WHERE key = ?1")?
        .execute(params![found.id.0, context.process.name, fencing.0])?;
    context.changed("intent", "", message.subject.as_str());
    found.holder.clone_from(&context.process.name);
    Ok(TakenIntent::Taken { intent: found.into_intent(context.process), fencing, payload })
}

pub(super) fn finish(context: &mut Writing<'_>, message: &FinishIntents) -> Outcome<Vec<Option<u64>>> {
    check_count(message.intents.len())?;
    let mut rows_left = ROWS_AT_ONCE_MAX;
    message.intents.iter().map(|(id, fencing)| finish_one(context, *id, *fencing, &mut rows_left)).collect()
}

fn finish_one(
    context: &mut Writing<'_>,
    id: IntentId,
    fencing: Fencing,
    rows_left: &mut usize,
) -> Outcome<Option<u64>> {
    let found = IntentRow::find_by_id(context.connection, id)?;
    let Some(found) = found.filter(|found| found.fencing == fencing) else { return Ok(None) };
    delete_rows(context.connection, id)?;
    let mut node_count = 0;
    if let (IntentKind::Forget, IntentSubject::Document(document)) = (found.kind, &found.subject)
        && let Some((key, member)) = members::place(context.connection, document)?
        && may_delete(context.connection, key, member, &found.context)?
    {
        node_count = delete::delete_with_nodes(context, document, rows_left)?.unwrap_or(0);
    }
    context.changed("intent", "", found.subject.as_str());
    Ok(Some(node_count))
}

fn delete_rows(connection: &Connection, id: IntentId) -> Outcome<u64> {
    let payload = connection.prepare_cached("DELETE FROM intent_payload WHERE intent_key = ?1")?.execute([id.0])?;
    let intent = connection.prepare_cached("DELETE FROM intent WHERE key = ?1")?.execute([id.0])?;
    Ok((payload + intent) as u64)
}

/// Tells whether a context deletes the document that it forgets: its own, or one of which nothing but a failure is known.
fn may_delete(connection: &Connection, key: i64, member: Option<Member>, context: &ContextName) -> Outcome<bool> {
    if let Some(member) = member {
        return Ok(member.context == *context);
    }
    let mut statement =
        connection.prepare_cached("SELECT hash IS NULL AND node_count = 0 FROM document WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| row.get(0))?)
}

pub(super) fn list(context: &Reading<'_>, message: &ListIntents) -> Outcome<Vec<Intent>> {
    check_limit(message.limit)?;
    let sql = format!("SELECT {COLUMNS} FROM intent WHERE key > ?1 AND (?2 IS NULL OR context = ?2) ORDER BY key");
    let mut statement = context.connection.prepare_cached(&sql)?;
    let after = message.after.map_or(0, |after| after.0);
    let name = message.context.as_ref().map(ContextName::as_str);
    let mut rows = statement.query(params![after, name])?;
    let mut intents = Vec::new();
    while intents.len() < message.limit
        && let Some(row) = rows.next()?
    {
        intents.extend(IntentRow::read_if_sound(row)?.map(|found| found.into_intent(context.process)));
    }
    Ok(intents)
}

pub(super) fn list_damaged(context: &Reading<'_>, message: &ListDamagedIntents) -> Outcome<Vec<DamagedIntent>> {
    check_limit(message.limit)?;
    context.at_one_instant(|connection| {
        let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM intent ORDER BY key"))?;
        let mut rows = statement.query([])?;
        let mut damaged = Vec::new();
        while damaged.len() < message.limit
            && let Some(row) = rows.next()?
        {
            if IntentRow::read_if_sound(row)?.is_none() {
                damaged.extend(damaged_of(connection, row, &message.context)?);
            }
        }
        Ok(damaged)
    })
}

/// Returns a damaged intent that may be a context's. One column of it is damaged, most likely: where that is the context's name, the
/// document says whose it is.
fn damaged_of(connection: &Connection, row: &Row<'_>, context: &ContextName) -> Outcome<Option<DamagedIntent>> {
    let subject = match (row.get::<_, i64>(2), row.get::<_, String>(3)) {
        (Ok(kind), Ok(name)) => subject_of(kind, &name).ok(),
        _ => None,
    };
    let member = match &subject {
        Some(IntentSubject::Document(document)) => members::place(connection, document)?.and_then(|(_, member)| member),
        _ => None,
    };
    let is_own = match member {
        Some(member) => member.context == *context,
        // Where it stands for no context that can be, anyone may see to it.
        None => {
            row.get::<_, String>(1).map_or(true, |name| name == context.as_str() || ContextName::new(name).is_err())
        }
    };
    Ok(is_own.then_some(DamagedIntent { id: IntentId(row.get::<_, i64>(0)?.cast_unsigned()), subject }))
}

pub(super) fn drop_damaged(context: &mut Writing<'_>, message: &DropDamagedIntents) -> Outcome<u64> {
    check_count(message.ids.len())?;
    let mut count = 0;
    for id in &message.ids {
        match IntentRow::find_by_id(context.connection, *id) {
            Ok(_) => {}
            Err(Failure::Refused(_)) => count += delete_rows(context.connection, *id)?,
            Err(error) => return Err(error),
        }
    }
    let sql = format!("DELETE FROM intent_payload WHERE {STRAY}");
    Ok(count + context.connection.prepare_cached(&sql)?.execute([])? as u64)
}

/// What a payload is whose intent is not there.
const STRAY: &str = "NOT EXISTS (SELECT 1 FROM intent WHERE intent.key = intent_payload.intent_key)";

/// Verifies every intent with its payload.
pub(super) fn check(connection: &Connection, found: &mut dyn FnMut(String)) -> Outcome<()> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM intent"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let verified = IntentRow::read(row).and_then(|intent| read_payload(connection, &intent));
        match verified {
            Ok(_) => {}
            Err(Failure::Refused(damage)) => found(damage.to_string()),
            Err(error) => return Err(error),
        }
    }
    let sql = format!("SELECT count(*) FROM intent_payload WHERE {STRAY}");
    let strays: Option<u64> = connection.prepare_cached(&sql)?.query_row([], |row| row.get(0)).optional()?;
    if strays.is_some_and(|strays| strays > 0) {
        found("payloads belong to no intent".to_owned());
    }
    Ok(())
}
