//! The properties of the strict window, checked against a second implementation and against broken ones.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

use super::super::rows::{Rows, row};
use super::*;

/// One thing that a window policy may get wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    None,
    ForgetsOverhead,
    ForgetsCalls,
    SplitsTurns,
    KeepsOrphans,
    DropsResults,
    DropsPinned,
    DropsPartnersOfPinned,
    TakesOneTurnLess,
}

/// The places of the rows in the window, and its tokens; or the tokens it needs.
type Outcome = Result<(BTreeSet<usize>, u64), u64>;

/// The policy as its description reads, trying every number of turns; `flaw` breaks it.
fn model(rows: &Rows, limits: StrictLimits, flaw: Flaw) -> Outcome {
    let all = &rows.rows;
    let pairs = rows.pairs();
    let mut mandatory: BTreeSet<usize> = (0..all.len()).filter(|&at| all[at].is_mandatory()).collect();
    if flaw == Flaw::DropsPinned {
        mandatory.retain(|&at| !all[at].pinned);
    }
    for _ in 0..if flaw == Flaw::DropsPartnersOfPinned { 0 } else { all.len() } {
        for &(call, result) in &pairs {
            if mandatory.contains(&call) || mandatory.contains(&result) {
                mandatory.extend([call, result]);
            }
        }
    }
    let opens = |at: &usize| match flaw {
        Flaw::SplitsTurns => true,
        _ => all[*at].opens_turn(),
    };
    let openers: Vec<usize> = (0..all.len()).filter(opens).collect();
    let window = |turns: usize| {
        let start = if turns == 0 { all.len() } else { openers[openers.len() - turns] };
        let mut places: BTreeSet<usize> = (start..all.len()).chain(mandatory.iter().copied()).collect();
        let called = |at: usize| pairs.iter().any(|&(call, result)| result == at && places.contains(&call));
        let drops = |at: usize| all[at].is_only_results() && (flaw == Flaw::DropsResults || !called(at));
        let dropped: Vec<usize> =
            places.iter().copied().filter(|&at| flaw != Flaw::KeepsOrphans && drops(at)).collect();
        places.retain(|at| !dropped.contains(at));
        let overhead = if flaw == Flaw::ForgetsOverhead { 0 } else { limits.overhead_tokens_per_message };
        let cost = |row: &Row| if flaw == Flaw::ForgetsCalls && !row.calls.is_empty() { 0 } else { row.tokens.cost };
        let tokens = places.iter().map(|&at| cost(&all[at]) + overhead).sum::<u64>() + limits.initial_tokens;
        (places, tokens)
    };
    let least = window(openers.len().min(1));
    if least.1 > limits.limit {
        return Err(least.1);
    }
    let fitting = (0..=openers.len()).map(window).take_while(|(_, tokens)| *tokens <= limits.limit);
    let mut fitting: Vec<_> = fitting.collect();
    if flaw == Flaw::TakesOneTurnLess && fitting.len() > 2 {
        fitting.pop();
    }
    Ok(fitting.pop().unwrap_or_default())
}

fn real(rows: &Rows, limits: StrictLimits) -> Outcome {
    match strict(&mut rows.clone(), limits) {
        Ok(window) if !window.rows.iter().filter(|row| !row.summary).is_sorted_by_key(|row| row.id) => {
            panic!("out of order: {window:?}")
        }
        Ok(window) => Ok((window.rows.iter().map(place).collect(), window.tokens)),
        Err(WindowError::TooSmall { needed_tokens, .. }) => Err(needed_tokens),
        Err(other) => panic!("{other:?}"),
    }
}

fn place(row: &Row) -> usize {
    usize::try_from(row.id.0).unwrap()
}

/// Checks one promise of the window; `Ok` when it holds.
type Promise = fn(&Rows, StrictLimits, &Outcome) -> Result<(), TestCaseError>;

fn never_over_the_limit(rows: &Rows, limits: StrictLimits, outcome: &Outcome) -> Result<(), TestCaseError> {
    let Ok((places, tokens)) = outcome else { return Ok(()) };
    let cost = |&at: &usize| rows.rows[at].tokens.cost + limits.overhead_tokens_per_message;
    prop_assert_eq!(*tokens, limits.initial_tokens + places.iter().map(cost).sum::<u64>());
    prop_assert!(*tokens <= limits.limit);
    Ok(())
}

fn never_separates_a_call_from_its_result(
    rows: &Rows,
    _: StrictLimits,
    outcome: &Outcome,
) -> Result<(), TestCaseError> {
    let Ok((places, _)) = outcome else { return Ok(()) };
    for (call, result) in rows.pairs() {
        prop_assert!(!places.contains(&call) || places.contains(&result), "call {call} without result {result}");
    }
    for &at in places {
        let row = &rows.rows[at];
        let called = |id| rows.caller(at, id).is_some_and(|call| places.contains(&call));
        prop_assert!(!row.is_only_results() || row.answered().any(called), "result {at} without a call");
    }
    Ok(())
}

fn starts_with_an_opener(rows: &Rows, _: StrictLimits, outcome: &Outcome) -> Result<(), TestCaseError> {
    let Ok((places, _)) = outcome else { return Ok(()) };
    let pairs = rows.pairs();
    let mut kept: BTreeSet<usize> = (0..rows.rows.len()).filter(|&at| rows.rows[at].is_mandatory()).collect();
    for _ in 0..rows.rows.len() {
        let more = pairs.iter().filter(|(call, result)| kept.contains(call) || kept.contains(result));
        kept = more.flat_map(|&(call, result)| [call, result]).chain(kept.iter().copied()).collect();
    }
    let Some(first) = places.iter().find(|at| !kept.contains(at)) else { return Ok(()) };
    // It opens a turn, or the opener of its turn is pinned and so in the window.
    let opener = (0..=*first).rev().find(|&at| rows.rows[at].opens_turn());
    prop_assert!(opener.is_some_and(|at| places.contains(&at)), "starts with {first}");
    Ok(())
}

fn keeps_what_is_mandatory(rows: &Rows, _: StrictLimits, outcome: &Outcome) -> Result<(), TestCaseError> {
    let Ok((places, _)) = outcome else { return Ok(()) };
    for (at, row) in rows.rows.iter().enumerate() {
        let orphan = row.is_only_results() && !row.answered().any(|id| rows.caller(at, id).is_some());
        prop_assert!(!row.is_mandatory() || orphan || places.contains(&at), "mandatory {at} is missing");
    }
    Ok(())
}

/// As many turns as fit, no fewer; and the error names the smallest limit that would do.
fn is_what_the_description_says(rows: &Rows, limits: StrictLimits, outcome: &Outcome) -> Result<(), TestCaseError> {
    prop_assert_eq!(outcome, &model(rows, limits, Flaw::None));
    if let Err(needed) = outcome {
        let fits = |limit: u64| real(rows, StrictLimits { limit, ..limits }).is_ok();
        prop_assert!(fits(*needed) && !fits(needed - 1));
    }
    Ok(())
}

fn any_row() -> impl Strategy<Value = Row> {
    let role = prop_oneof![
        1 => Just("system"), 6 => Just("user"), 8 => Just("assistant"), 6 => Just("tool"), 1 => Just("function"),
        1 => Just("model"), 1 => Just("critic"),
    ];
    let ids = || prop::collection::vec(prop::sample::select(vec!["a", "b", "c", ""]).prop_map(str::to_owned), 0..3);
    (role, 0_u64..20, ids(), prop::bool::weighted(0.07), 0_u8..12).prop_map(|(role, cost, ids, pinned, odd)| {
        let mut row = Row { pinned, ..row(0, role, cost) };
        match role {
            "assistant" => row.calls = ids,
            "tool" => row.answers = ids,
            // Anthropic's shape: results in a user's message, with or without words of the user's own.
            "user" if odd == 0 => row.answers = ids,
            _ => {}
        }
        if odd == 1 && role != "assistant" {
            row.calls = vec!["b".to_owned()];
        }
        row.holds_more &= row.answers.is_empty() || odd > 5;
        row
    })
}

/// Conversations as they are, and any rows at all.
fn history() -> impl Strategy<Value = Rows> {
    let turn = (1_usize..4, 0_u64..20).prop_map(|(steps, cost)| {
        let mut rows = vec![row(0, "user", cost)];
        for step in 0..steps {
            let id = format!("step {step}");
            rows.push(Row { calls: vec![id.clone()], ..row(0, "assistant", cost / 2) });
            rows.push(Row { answers: vec![id], ..row(0, "tool", cost) });
        }
        rows.push(row(0, "assistant", cost));
        rows
    });
    let rows = prop_oneof![
        prop::collection::vec(prop_oneof![turn, any_row().prop_map(|row| vec![row])], 0..8)
            .prop_map(|rows| rows.concat()),
        prop::collection::vec(any_row(), 0..20),
    ];
    (rows, prop::option::weighted(0.3, any::<prop::sample::Index>())).prop_map(|(rows, summary)| {
        let mut history = Rows::default();
        for row in rows {
            history.push(Row { id: MessageId(history.rows.len() as u64), ..row }, "");
        }
        if let Some(at) = summary.filter(|_| !history.rows.is_empty()) {
            let at = at.index(history.rows.len());
            history.rows[at] = Row { id: MessageId(at as u64), summary: true, ..row(at, "assistant", 3) };
        }
        history
    })
}

fn limits() -> impl Strategy<Value = StrictLimits> {
    (prop_oneof![0_u64..60, 0_u64..250], prop_oneof![Just(0), 0_u64..10], 0_u64..4).prop_map(
        |(limit, initial_tokens, overhead_tokens_per_message)| StrictLimits {
            limit,
            initial_tokens,
            overhead_tokens_per_message,
        },
    )
}

fn check(promise: Promise, policy: impl Fn(&Rows, StrictLimits) -> Outcome, cases: u32) -> bool {
    let config = ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 0, ..ProptestConfig::default() };
    let test = |(rows, limits)| promise(&rows, limits, &policy(&rows, limits));
    TestRunner::new(config).run(&(history(), limits()), test).is_ok()
}

/// Checks that the window keeps the promise and that the test notices when it is broken by `flaws`.
fn holds(promise: Promise, flaws: &[Flaw]) {
    let config = ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() };
    let test = |(rows, limits): (Rows, StrictLimits)| promise(&rows, limits, &real(&rows, limits));
    if let Err(failure) = TestRunner::new(config).run(&(history(), limits()), test) {
        panic!("{failure}");
    }
    for &flaw in flaws {
        let broken = |rows: &Rows, limits: StrictLimits| model(rows, limits, flaw);
        assert!(!check(promise, broken, 5_000), "{flaw:?} went unnoticed");
    }
}

#[test]
fn it_is_never_over_the_limit() {
    holds(never_over_the_limit, &[Flaw::ForgetsOverhead, Flaw::ForgetsCalls]);
}

#[test]
fn it_never_separates_a_tool_call_from_its_result() {
    let flaws = [Flaw::KeepsOrphans, Flaw::DropsResults, Flaw::DropsPartnersOfPinned];
    holds(never_separates_a_call_from_its_result, &flaws);
}

#[test]
fn it_never_starts_with_an_answer() {
    holds(starts_with_an_opener, &[Flaw::SplitsTurns]);
}

#[test]
fn system_pinned_and_summary_are_always_kept() {
    holds(keeps_what_is_mandatory, &[Flaw::DropsPinned]);
}

#[test]
fn it_holds_as_many_turns_as_fit() {
    holds(is_what_the_description_says, &[Flaw::TakesOneTurnLess]);
}

/// Every message is in the window, or at or before `through`, or reported as an orphan.
fn accounts_for_all(rows: &Rows, window: &StrictWindow) -> bool {
    let places: BTreeSet<usize> = window.rows.iter().map(place).collect();
    let orphan = |id| window.left_out.orphan_results.iter().any(|orphan| orphan.id == id);
    let fell_out = |id| window.left_out.through.is_some_and(|through| id <= through);
    let called = |at, id: &str| rows.caller(at, id).is_some_and(|call| places.contains(&call));
    rows.rows.iter().enumerate().all(|(at, row)| {
        let is_in = places.contains(&at);
        let has_orphan = row.answered().any(|id| !called(at, id));
        let in_reach = row.is_mandatory() || !fell_out(row.id);
        (is_in || fell_out(row.id) || orphan(row.id)) && (!(is_in || in_reach) || orphan(row.id) == has_orphan)
    })
}

#[test]
fn whatever_is_missing_is_reported() {
    let config = ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() };
    let mut missed = 0;
    for forgets in [false, true] {
        let test = |(rows, limits): (Rows, StrictLimits)| {
            let Ok(mut window) = strict(&mut rows.clone(), limits) else { return Ok(()) };
            if forgets {
                window.left_out = LeftOut::default();
            }
            prop_assert!(accounts_for_all(&rows, &window), "{window:?}");
            Ok(())
        };
        match TestRunner::new(config.clone()).run(&(history(), limits()), test) {
            Err(failure) if !forgets => panic!("{failure}"),
            result => missed += usize::from(result.is_err()),
        }
    }
    assert_eq!(missed, 1, "the control went unnoticed");
}

fn limit(limit: u64) -> StrictLimits {
    StrictLimits { limit, ..StrictLimits::default() }
}

fn of(rows: Vec<Row>) -> Rows {
    let mut history = Rows::default();
    for row in rows {
        history.push(Row { id: MessageId(history.rows.len() as u64), ..row }, "");
    }
    history
}

fn ids(window: &StrictWindow) -> Vec<u64> {
    window.rows.iter().map(|row| row.id.0).collect()
}

#[test]
fn an_orphan_is_left_out_and_reported() {
    let result = Row { answers: vec!["gone".to_owned()], ..row(0, "tool", 5) };
    let mut rows = of(vec![row(0, "user", 5), result, row(0, "assistant", 5)]);
    let window = strict(&mut rows, limit(10)).unwrap();
    assert_eq!(ids(&window), [0, 2]);
    assert_eq!(window.left_out.orphan_results, [OrphanResult { id: MessageId(1), call_id: "gone".to_owned() }]);
    assert_eq!(window.left_out.through, None);
}

#[test]
fn a_result_comes_in_with_its_call_in_an_older_turn() {
    let call = Row { calls: vec!["c".to_owned()], ..row(0, "assistant", 5) };
    let result = Row { answers: vec!["c".to_owned()], ..row(0, "tool", 5) };
    let mut rows = of(vec![row(0, "user", 5), call, row(0, "user", 5), result, row(0, "assistant", 5)]);
    let window = strict(&mut rows.clone(), limit(25)).unwrap();
    assert_eq!((ids(&window), window.tokens), (vec![0, 1, 2, 3, 4], 25));
    assert!(window.left_out.orphan_results.is_empty());
    // Without room for the call the result stays out too.
    let window = strict(&mut rows, limit(24)).unwrap();
    assert_eq!((ids(&window), window.tokens), (vec![2, 4], 10));
    assert_eq!(window.left_out.through, Some(MessageId(1)));
    assert_eq!(window.left_out.orphan_results[0].id, MessageId(3));
}

#[test]
fn a_message_that_holds_more_than_an_orphan_stays() {
    let both = Row { answers: vec!["gone".to_owned()], holds_more: true, ..row(0, "user", 5) };
    let mut rows = of(vec![row(0, "user", 5), row(0, "assistant", 5), both]);
    let window = strict(&mut rows, limit(15)).unwrap();
    assert_eq!(ids(&window), [0, 1, 2]);
    assert_eq!(window.left_out.orphan_results.len(), 1);
}

#[test]
fn a_pinned_result_brings_its_call_and_all_its_results() {
    let call = Row { calls: vec!["c".to_owned(), "d".to_owned()], ..row(0, "assistant", 1) };
    let result = |id: &str| Row { answers: vec![id.to_owned()], ..row(0, "tool", 1) };
    let pinned = Row { pinned: true, ..result("d") };
    let mut rows = of(vec![row(0, "user", 50), call, result("c"), pinned, row(0, "user", 7)]);
    let window = strict(&mut rows, limit(10)).unwrap();
    assert_eq!(ids(&window), [1, 2, 3, 4]);
}

#[test]
fn the_summary_stands_before_the_turns() {
    let summary = Row { summary: true, ..row(0, "user", 1) };
    let mut rows = of(vec![row(0, "system", 1), row(0, "user", 9), row(0, "user", 1), row(0, "assistant", 1), summary]);
    let window = strict(&mut rows, limit(5)).unwrap();
    assert_eq!(ids(&window), [0, 4, 2, 3]);
}

#[test]
fn what_must_be_there_and_does_not_fit_is_an_error() {
    let mut rows = of(vec![row(0, "system", 5), row(0, "user", 5), row(0, "assistant", 5)]);
    let limits = StrictLimits { limit: 17, initial_tokens: 3, overhead_tokens_per_message: 0 };
    let error = strict(&mut rows, limits).unwrap_err();
    assert_eq!(error, WindowError::TooSmall { needed_tokens: 18, limit: 17 });
    assert_eq!(strict(&mut of(vec![]), limit(0)).unwrap().rows, []);
    assert!(strict(&mut of(vec![row(0, "user", 1)]), limit(0)).is_err());
}

#[test]
fn answers_that_nothing_opens_are_left_out() {
    let mut rows = of(vec![row(0, "system", 1), row(0, "assistant", 1), row(0, "assistant", 1)]);
    let window = strict(&mut rows, limit(9)).unwrap();
    assert_eq!((ids(&window), window.left_out.through), (vec![0], Some(MessageId(2))));
}

#[test]
fn reads_only_what_the_window_needs() {
    let mut rows = of((0..1_000).flat_map(|_| [row(0, "user", 1), row(0, "assistant", 1)]).collect());
    assert_eq!(strict(&mut rows, limit(21)).unwrap().rows.len(), 20);
    assert_eq!(rows.read, 22);
}
