//! A window out of rows agrees with the same policy over a history in memory.

use larder_protocol::chat::{
    AppendMessages, ArchiveMessages, ChatMessage, ContentBlock, ListMessages, MessageOrder, PinMessage, PutSummary,
    TokenCounts, TokenLimit,
};
use larder_protocol::{Sequence, SessionId, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

use super::super::place::IS_SUMMARY;
use super::super::window::rows::Rows;
use super::super::{Chat, ChatSettings, append, edit, list};
use super::*;
use crate::sqlite::connection::{Durability, StoreFile};
use crate::sqlite::watermark::Watermark;
use crate::store::{ChangeSet, Process, StoreSettings, WriteContext, store_file};

/// A message, and what is done to it.
#[derive(Debug, Clone)]
struct Step {
    role: &'static str,
    text: String,
    calls: Vec<u8>,
    answers: Vec<u8>,
    is_pinned: bool,
    is_archived: bool,
}

/// Few call ids, so that they are used again, and some texts that end blank.
fn any_step() -> impl Strategy<Value = Step> {
    let role = prop::sample::select(vec!["user", "user", "assistant", "assistant", "tool", "system", "critic"]);
    let text = prop::collection::vec(prop::sample::select(vec!["apple", "brook", "cloud.", "\n", " ", ""]), 0..12);
    let calls = prop::collection::vec(0..4_u8, 0..3);
    let is = |odds: f64| prop::bool::weighted(odds);
    (role, text, calls.clone(), calls, is(0.4), is(0.4), is(0.12), is(0.12)).prop_map(
        |(role, words, calls, answers, has_calls, has_answers, is_pinned, is_archived)| Step {
            role,
            text: words.join(" "),
            calls: if has_calls { calls } else { Vec::new() },
            answers: if has_answers { answers } else { Vec::new() },
            is_pinned,
            is_archived,
        },
    )
}

fn message(step: &Step) -> ChatMessage {
    let mut message = ChatMessage::new(step.role.into(), step.text.as_str());
    for call in &step.calls {
        message = message.with_block(ContentBlock::tool_call(format!("c{call}"), "look", "{}"));
    }
    for answer in &step.answers {
        message = message.with_block(ContentBlock::tool_result(format!("c{answer}"), "seen"));
    }
    message
}

/// A store's file with one session, filled through the handlers themselves.
struct Filled {
    _folder: tempfile::TempDir,
    file: StoreFile,
    settings: ChatSettings,
    session: SessionId,
}

fn fill(steps: &[Step], summary: Option<usize>) -> Filled {
    let folder = tempfile::tempdir().unwrap();
    let settings = ChatSettings::default();
    let common = StoreSettings { durability: Durability::Relaxed, ..StoreSettings::default() };
    let file = store_file::<Chat>(folder.path(), &common, &settings);
    file.prepare().unwrap();
    let connection = file.writer().unwrap();
    let session = SessionId::new("a").unwrap();
    let mut changes = ChangeSet::default();
    changes.reset(Sequence(0));
    connection.execute_batch("BEGIN").unwrap();
    let process = Process { folder: folder.path().to_path_buf(), name: "1".to_owned() };
    let mut context = WriteContext::<Chat> {
        connection: &connection,
        now: Timestamp(1),
        settings: &settings,
        memory: &(),
        changes: &mut changes,
        process: &process,
    };
    for (at, step) in steps.iter().enumerate() {
        let messages = vec![message(step)];
        let tokens = vec![count_message(settings.counter.counter(), &messages[0]).unwrap()];
        let counts = TokenCounts { counter: settings.counter.id().to_owned(), tokens };
        let counts = Some(counts);
        let ids =
            append::append(&mut context, &AppendMessages { session: session.clone(), messages, counts }).unwrap().ids;
        if step.is_pinned {
            edit::pin(&mut context, &PinMessage { session: session.clone(), id: ids[0], pinned: true }).unwrap();
        }
        if step.is_archived {
            edit::archive(
                &mut context,
                &ArchiveMessages { session: session.clone(), ids: ids.clone(), archived: true },
            )
            .unwrap();
        }
        if summary == Some(at) {
            let message = ChatMessage::system("what was said before");
            let tokens = vec![count_message(settings.counter.counter(), &message).unwrap()];
            let counts = Some(TokenCounts { counter: settings.counter.id().to_owned(), tokens });
            let summary = PutSummary { session: session.clone(), message, through: ids[0], counts };
            append::put_summary(&mut context, &summary).unwrap();
        }
    }
    connection.execute_batch("COMMIT").unwrap();
    Filled { _folder: folder, file, settings, session }
}

/// The rows of the session as a page and the summary tell them, each with its id; `is_strict`: with the summary.
fn in_memory(context: &Reading<'_>, session: &SessionId, is_strict: bool) -> (Rows, Vec<MessageId>) {
    let (order, limit) = (MessageOrder::OldestFirst, 10_000);
    let page = ListMessages { session: session.clone(), order, after: None, include_archived: false, limit };
    let mut messages = list::page(context, &page).unwrap().messages;
    let session_id = sessions::find_id(context.connection, session.as_str()).unwrap().unwrap_or(-1);
    let sql =
        format!("SELECT {COLUMNS} FROM {SOURCE} WHERE place.session_id = ?1 AND place.archived = 0 AND {IS_SUMMARY}");
    if is_strict {
        messages
            .extend(row::read_all(context.connection, &sql, [session_id]).unwrap().into_iter().map(|one| one.stored));
    }
    messages.sort_by_key(|message| message.id);
    let counter = context.settings.counter.counter();
    let mut rows = Rows::of(counter, &messages.iter().map(|one| one.message.clone()).collect::<Vec<_>>());
    for (row, stored) in rows.rows.iter_mut().zip(&messages) {
        (row.pinned, row.summary) = (stored.pinned, stored.summary);
    }
    (rows, messages.into_iter().map(|message| message.id).collect())
}

/// A window's messages, tokens and what it left out; or the tokens it needs.
type Answer = Result<(Vec<MessageId>, u64, LeftOut), u64>;

fn from_rows(context: &Reading<'_>, ask: &GetWindow) -> Answer {
    match window(context, ask) {
        Ok(window) => {
            let window = window.expect("it may take long");
            Ok((window.messages.iter().map(|message| message.id).collect(), window.tokens, window.left_out))
        }
        Err(Failure::Refused(Kind::WindowTooSmall { needed_tokens, .. })) => Err(needed_tokens),
        Err(other) => panic!("{other:?}"),
    }
}

fn from_memory(mut rows: Rows, ids: &[MessageId], counter: &dyn TokenCounter, ask: &GetWindow) -> Answer {
    let id = |row: MessageId| ids[usize::try_from(row.0).unwrap()];
    let refused = |error| match error {
        WindowError::TooSmall { needed_tokens, .. } => needed_tokens,
        WindowError::InitialOverLimit { initial_tokens, .. } => initial_tokens,
        WindowError::Read(never) => match never {},
    };
    let (limit, initial_tokens) = (ask.limit.tokens(), ask.initial_tokens);
    if ask.policy == WindowPolicy::ChatMemoryBuffer {
        let found = chat_memory_buffer(&mut rows, counter, limit, initial_tokens).map_err(refused)?;
        let kept: Vec<MessageId> = found.rows.iter().map(|row| id(row.id)).collect();
        let through = kept.first().and_then(|first| ids.iter().rev().find(|id| *id < first).copied());
        return Ok((kept, found.tokens, LeftOut { through, orphan_results: Vec::new() }));
    }
    let overhead_tokens_per_message = ask.overhead_tokens_per_message;
    let found =
        strict(&mut rows, StrictLimits { limit, initial_tokens, overhead_tokens_per_message }).map_err(refused)?;
    let through = found.left_out.through.map(id);
    let orphans = found.left_out.orphan_results.into_iter().map(|one| OrphanResult { id: id(one.id), ..one });
    let left_out = LeftOut { through, orphan_results: orphans.collect() };
    Ok((found.rows.iter().map(|row| id(row.id)).collect(), found.tokens, left_out))
}

/// Compares both at several limits; `forgets_pins`: the history in memory is broken.
fn agree(steps: &[Step], summary: Option<usize>, forgets_pins: bool) -> Result<(), TestCaseError> {
    let Filled { _folder, file, settings, session } = fill(steps, summary);
    let connection = file.reader().unwrap();
    let watermark = Watermark::open(None).unwrap();
    let process = Process { folder: _folder.path().to_path_buf(), name: "1".to_owned() };
    let context = Reading {
        connection: &connection,
        now: Timestamp(1),
        settings: &settings,
        memory: &(),
        is_in_place: false,
        watermark: &watermark,
        process: &process,
    };
    for policy in [WindowPolicy::Strict, WindowPolicy::ChatMemoryBuffer] {
        let (mut rows, ids) = in_memory(&context, &session, policy == WindowPolicy::Strict);
        if forgets_pins {
            rows.rows.iter_mut().for_each(|row| row.pinned = false);
        }
        for limit in [0, 1, 5, 10, 20, 40, 80, 1_000] {
            let ask = GetWindow {
                session: session.clone(),
                policy,
                limit: TokenLimit::Tokens(limit),
                initial_tokens: limit % 3,
                overhead_tokens_per_message: limit % 2,
                may_take_long: true,
            };
            let expected = from_memory(rows.clone(), &ids, settings.counter.counter(), &ask);
            prop_assert_eq!(from_rows(&context, &ask), expected, "{:?} of {}", policy, limit);
            let in_place = GetWindow { may_take_long: false, ..ask.clone() };
            let in_place = window(&context, &in_place).ok().flatten();
            prop_assert!(in_place.is_none_or(|found| Some(found) == window(&context, &ask).ok().flatten()));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn windows_out_of_rows_agree_with_those_in_memory(
        steps in prop::collection::vec(any_step(), 0..24),
        summary in prop::option::of(0..24_usize),
    ) {
        agree(&steps, summary, false)?;
    }
}

#[test]
fn control_a_forgotten_pin_is_noticed() {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&prop::collection::vec(any_step(), 0..24), |steps| agree(&steps, None, true));
    assert!(outcome.is_err(), "it went unseen");
}
