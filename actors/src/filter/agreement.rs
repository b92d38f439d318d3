//! Proof that SQL and memory give the same answer, on random pairs and on hostile texts.
//!
//! Start at `sql_and_memory_agree`. It checks 5,000 (filter, document) pairs; for 100,000 run
//! `LARDER_FILTER_PAIRS=100000 cargo test -p larder-actors filter::agreement`.
//!
//! Always true: the harness catches each deliberately broken evaluator of `broken_evaluators_are_caught`.

mod columns;

use larder_protocol::filter::{Comparison, FieldPath, Filter, Operand, Operator, Scalar, field};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use rusqlite::{Connection, params_from_iter};
use serde_json::Value;

use super::{DeclaredField, JsonColumn, compile, matches, read_json};

const COLUMN: JsonColumn = JsonColumn { in_query: "entry.metadata", in_index: "metadata" };
const DOCUMENTS_PER_FILTER: usize = 10;

/// Decides one pair from the document's text; the real one reads it with `read_json`.
type Evaluator = fn(&Filter, &str) -> bool;

fn evaluate(filter: &Filter, text: &str) -> bool {
    matches(filter, &read_json(text.as_bytes()).unwrap())
}

struct Table {
    connection: Connection,
    declared: Vec<DeclaredField>,
}

impl Table {
    fn new(paths: &[&[&str]]) -> Self {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE entry (id INTEGER PRIMARY KEY, metadata TEXT NOT NULL)").unwrap();
        let path = |keys: &&[&str]| FieldPath(keys.iter().map(|&key| key.to_owned()).collect());
        let declared: Vec<_> = paths.iter().map(|keys| DeclaredField::new(path(keys)).unwrap()).collect();
        for (number, field) in declared.iter().enumerate() {
            let expression = field.index_expression(COLUMN);
            connection.execute_batch(&format!("CREATE INDEX field_{number} ON entry({expression})")).unwrap();
        }
        Self { connection, declared }
    }

    fn fill(&self, texts: &[String]) {
        self.connection.execute_batch("BEGIN; DELETE FROM entry").unwrap();
        let mut insert = self.connection.prepare_cached("INSERT INTO entry VALUES (?1, ?2)").unwrap();
        for (id, text) in texts.iter().enumerate() {
            insert.execute((i64::try_from(id).unwrap(), text)).unwrap();
        }
        self.connection.execute_batch("COMMIT").unwrap();
    }

    /// The condition as a result column, for every row: it must be 0 or 1.
    fn answers(&self, filter: &Filter) -> Vec<bool> {
        let condition = compile(filter, COLUMN, &[], 1).unwrap();
        let sql = format!("SELECT {} FROM entry ORDER BY id", condition.sql);
        let mut statement = self.connection.prepare(&sql).unwrap();
        let rows = statement.query_map(params_from_iter(&condition.parameters), |row| row.get::<_, i64>(0)).unwrap();
        rows.map(|answer| answer.expect("the condition is never NULL") != 0).collect()
    }

    /// The rows that a `WHERE` with indexes finds.
    fn found(&self, filter: &Filter) -> Vec<i64> {
        let condition = compile(filter, COLUMN, &self.declared, 3).unwrap();
        let sql = format!("SELECT id FROM entry WHERE id >= ?1 AND id < ?2 AND {} ORDER BY id", condition.sql);
        let mut statement = self.connection.prepare(&sql).unwrap();
        let mut parameters = vec![rusqlite::types::Value::Integer(0), rusqlite::types::Value::Integer(1_000)];
        parameters.extend(condition.parameters);
        let rows = statement.query_map(params_from_iter(&parameters), |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn check(&self, filter: &Filter, texts: &[String], evaluator: Evaluator) -> Result<(), TestCaseError> {
        let expected: Vec<_> = texts.iter().map(|text| evaluator(filter, text)).collect();
        let ids = || (0_i64..).zip(&expected).filter(|(_, is_match)| **is_match).map(|(id, _)| id);
        self.fill(texts);
        prop_assert_eq!(self.answers(filter), expected.clone());
        prop_assert_eq!(self.found(filter), ids().collect::<Vec<_>>());
        Ok(())
    }
}

fn run(pair_count: usize, shrink: bool, evaluator: Evaluator) -> Result<(), TestError<(Filter, Vec<String>)>> {
    let cases = u32::try_from(pair_count.div_ceil(DOCUMENTS_PER_FILTER)).unwrap();
    let max_shrink_iters = if shrink { 4_096 } else { 0 };
    let config = Config { cases, max_shrink_iters, failure_persistence: None, ..Config::default() };
    let table = Table::new(&[&["a"], &["b"], &["a", "b"], &["0"]]);
    TestRunner::new(config).run(&pairs(), |(filter, texts)| table.check(&filter, &texts, evaluator))
}

fn pairs() -> impl Strategy<Value = (Filter, Vec<String>)> {
    palettes()
        .prop_flat_map(|palette| (filters(&palette), prop::collection::vec(documents(&palette), DOCUMENTS_PER_FILTER)))
}

fn keys() -> impl Strategy<Value = String> {
    let odd =
        ["", "a.b", "[0]", "#", "$", "\"", "\\", "'", "a\"", "\\\"", "é", "\n", "\u{1F600}", "\u{fffe}", "\u{2028}\\"];
    prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "0"]).prop_map(str::to_owned),
        1 => prop::sample::select(odd.to_vec()).prop_map(str::to_owned),
    ]
}

const TEXTS: [&str; 22] = [
    "",
    "a",
    "A",
    "ab",
    "AB",
    "b",
    "1",
    "1.0",
    "true",
    "null",
    "[1]",
    "{}",
    "é",
    "É",
    "\0",
    "a\0b",
    "A\0B",
    "%",
    "_",
    "\"",
    "\\",
    "\u{1F600}",
];

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![4 => prop::sample::select(TEXTS.to_vec()).prop_map(str::to_owned), 1 => ".{0,3}"]
}

/// Numbers as JSON may spell them; neighbours are easily taken for each other.
const NUMBERS: [&str; 34] = [
    "0",
    "-0",
    "0.0",
    "-0.0",
    "0e5",
    "1",
    "1.0",
    "1e0",
    "10E-1",
    "1.00000000000000000000000000",
    "2",
    "-1",
    "1.5",
    "9007199254740992",
    "9007199254740993",
    "9007199254740992.0",
    "9007199254740993.0",
    "9223372036854775807",
    "9223372036854775808",
    "9223372036854775807.0",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "1e19",
    "0.1",
    "0.1000000000000000055511151231257827",
    "5013241732453585408.109",
    "3500000000000000.2500001",
    "3500000000000000.5",
    "5e-324",
    "1e-400",
    "1.7976931348623157e308",
    "2.2250738585072011e-308",
];

fn numbers() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(NUMBERS.to_vec()).prop_map(str::to_owned),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => prop::num::f64::NORMAL.prop_map(|number| format!("{number:e}")),
        1 => "-?[1-9][0-9]{0,40}(\\.[0-9]{1,30})?(e-?[1-9][0-9]?)?",
    ]
}

/// The few numbers and texts that one filter and its documents share; with more, they would seldom meet.
#[derive(Debug, Clone)]
struct Palette {
    numbers: Vec<String>,
    texts: Vec<String>,
}

fn palettes() -> impl Strategy<Value = Palette> {
    // An integer that a float cannot hold, its neighbour, and the float that both round to.
    let large = ((1_i64 << 53)..i64::MAX).prop_map(|number| {
        let number = number >> (number % 10);
        vec![
            number.to_string(),
            (number - 1).to_string(),
            format!("{:.1}", serde_json::json!(number).as_f64().unwrap()),
        ]
    });
    let numbers = prop_oneof![3 => neighbors(&NUMBERS), 2 => large, 1 => prop::collection::vec(numbers(), 3)];
    let with_nul = "[a-zA-Z]{0,2}".prop_map(|text| vec![format!("{text}\0{text}"), format!("{text}\0"), text]);
    let texts = prop_oneof![3 => neighbors(&TEXTS), 1 => with_nul, 1 => prop::collection::vec(texts(), 3)];
    (numbers, texts).prop_map(|(numbers, texts)| Palette { numbers, texts })
}

fn neighbors(all: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop::sample::select(all.windows(3).collect::<Vec<_>>())
        .prop_map(|texts| texts.iter().map(|&text| text.to_owned()).collect())
}

/// A JSON string, spelled plainly or with every character escaped.
fn quoted(text: &str, escape: bool) -> String {
    if escape {
        format!("\"{}\"", text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<String>())
    } else {
        serde_json::to_string(text).unwrap()
    }
}

fn json_texts(palette: &Palette) -> impl Strategy<Value = String> + use<> {
    let leaf = prop_oneof![
        1 => Just("null".to_owned()),
        1 => any::<bool>().prop_map(|value| value.to_string()),
        3 => prop::sample::select(palette.numbers.clone()),
        3 => (prop::sample::select(palette.texts.clone()), any::<bool>()).prop_map(|(text, escape)| quoted(&text, escape)),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            objects(inner),
        ]
    })
}

fn objects(values: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let member = (any::<prop::sample::Index>(), any::<bool>());
    prop::collection::hash_map(keys(), (values, member), 0..5).prop_map(|members| {
        let text = |(key, (value, (_, escape))): (String, _)| format!("{}: {value}", quoted(&key, escape));
        format!("{{{}}}", members.into_iter().map(text).collect::<Vec<_>>().join(","))
    })
}

fn documents(palette: &Palette) -> impl Strategy<Value = String> + use<> {
    prop_oneof![12 => objects(json_texts(palette)), 1 => json_texts(palette)]
}

fn scalars(palette: &Palette) -> impl Strategy<Value = Scalar> + Clone + use<> {
    let float = |text: &str| Scalar::Float(text.parse().unwrap());
    let number = prop::sample::select(palette.numbers.clone());
    prop_oneof![
        1 => Just(Scalar::Null),
        1 => any::<bool>().prop_map(Scalar::Bool),
        3 => number.clone().prop_map(move |text| text.parse().map_or_else(|_| float(&text), Scalar::Integer)),
        2 => number.prop_map(move |text| float(&text)),
        4 => prop::sample::select(palette.texts.clone()).prop_map(Scalar::String),
    ]
    .prop_filter("finite", |scalar| !matches!(scalar, Scalar::Float(number) if !number.is_finite()))
}

fn comparisons(palette: &Palette) -> impl Strategy<Value = Filter> + use<> {
    use Operator::{All, Any, Contains, Eq, Gt, Gte, In, IsEmpty, Lt, Lte, Ne, Nin, TextMatch, TextMatchInsensitive};
    let path = prop_oneof![
        20 => keys().prop_map(|key| vec![key]),
        10 => prop::collection::vec(keys(), 2..4),
        1 => Just(vec!["a\0b".to_owned()]),
    ];
    let list = prop::collection::vec(scalars(palette), 0..4).prop_map(Operand::List);
    let text = prop::sample::select(palette.texts.clone()).prop_map(|text| Operand::Scalar(Scalar::String(text)));
    let test = prop_oneof![
        4 => (
            prop::sample::select(vec![Eq, Ne, Gt, Gte, Lt, Lte, Contains]),
            scalars(palette).prop_map(Operand::Scalar)
        ),
        3 => (prop::sample::select(vec![In, Nin, Any, All]), list),
        1 => (prop::sample::select(vec![TextMatch, TextMatchInsensitive]), text),
        1 => Just((IsEmpty, Operand::Nothing)),
    ];
    (path.prop_map(FieldPath), test)
        .prop_map(|(field, (operator, operand))| Filter::Compare(Comparison { field, operator, operand }))
}

fn filters(palette: &Palette) -> impl Strategy<Value = Filter> + use<> {
    comparisons(palette).prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::And),
            prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::Or),
            inner.prop_map(|filter| Filter::Not(Box::new(filter))),
        ]
    })
}

fn pair_count() -> usize {
    std::env::var("LARDER_FILTER_PAIRS").map_or(5_000, |count| count.parse().expect("LARDER_FILTER_PAIRS is a number"))
}

#[test]
fn sql_and_memory_agree() {
    run(pair_count(), true, evaluate).unwrap();
}

/// Applies `change` to every value in the document.
fn change_values(document: Value, change: fn(Value) -> Value) -> Value {
    match document {
        Value::Array(items) => items.into_iter().map(|item| change_values(item, change)).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(key, value)| (key, change_values(value, change)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        scalar => change(scalar),
    }
}

/// Negation as SQL's three-valued logic has it: a comparison with a missing field stays false under `not` and `!=`.
fn three_valued(filter: &Filter, document: &Value) -> bool {
    match filter {
        Filter::And(filters) => filters.iter().all(|filter| three_valued(filter, document)),
        Filter::Or(filters) => filters.iter().any(|filter| three_valued(filter, document)),
        Filter::Not(inner) => !three_valued(inner, document),
        Filter::Compare(Comparison { field, operator: Operator::Ne | Operator::Nin, .. }) => {
            matches(filter, document) && !matches(&field.clone().is_empty(), document)
        }
        Filter::Compare(_) => matches(filter, document),
    }
}

#[test]
fn broken_evaluators_are_caught() {
    fn read(text: &str) -> Value {
        read_json(text.as_bytes()).unwrap()
    }
    let numbers_as_floats: Evaluator =
        |filter, text| matches(filter, &change_values(read(text), |value| value.as_f64().map_or(value, Value::from)));
    let booleans_as_numbers: Evaluator = |filter, text| {
        matches(filter, &change_values(read(text), |value| value.as_bool().map_or(value, |flag| u8::from(flag).into())))
    };
    let texts_up_to_nul: Evaluator = |filter, text| {
        let cut =
            |value: Value| value.as_str().and_then(|text| text.split('\0').next()).map(Value::from).unwrap_or(value);
        matches(filter, &change_values(read(text), cut))
    };
    let unknown_is_false: Evaluator = |filter, text| three_valued(filter, &read(text));
    let always: Evaluator = |_, _| true;
    for (name, evaluator) in [
        ("numbers as floats", numbers_as_floats),
        ("booleans as numbers", booleans_as_numbers),
        ("texts up to NUL", texts_up_to_nul),
        ("unknown is false", unknown_is_false),
        ("always", always),
    ] {
        let outcome = run(100_000, false, evaluator);
        // A wrong answer, not a panic or an SQL error.
        let is_caught =
            matches!(&outcome, Err(TestError::Fail(reason, _)) if reason.message().contains("left == right"));
        assert!(is_caught, "{name} was not caught: {outcome:?}");
    }
}

/// What `read_json` makes of a number is what SQLite makes of it, for short, long and extreme spellings.
#[test]
fn numbers_are_read_as_sqlite_reads_them() {
    let connection = Connection::open_in_memory().unwrap();
    let mut extract = connection.prepare("SELECT json_extract(?1, '$[0]')").unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut plain_serde_json_differs = 0;
    for _ in 0..20_000 {
        let bits = f64::from_bits(random());
        let tokens = [
            format!("{:e}", if bits.is_finite() { bits } else { 0.5 }),
            random().to_string(),
            format!("{}e{}", random(), i64::try_from(random() % 600).unwrap() - 320),
            format!("{}.{}{}", random() >> (random() % 64), random(), random()),
            format!("-{}{}{}e-{}", random(), random(), random(), random() % 300),
        ];
        for token in tokens {
            let text = format!("[{token}]");
            let Ok(document) = read_json(text.as_bytes()) else {
                assert!(token.parse::<f64>().unwrap().is_infinite(), "{token} is refused");
                continue;
            };
            let number = document[0].as_i64().map_or_else(
                || rusqlite::types::Value::Real(document[0].as_f64().unwrap()),
                rusqlite::types::Value::Integer,
            );
            let extracted: rusqlite::types::Value = extract.query_row([&text], |row| row.get(0)).unwrap();
            assert_eq!(number, extracted, "{token}");
            let plain: Value = serde_json::from_str(&text).unwrap();
            plain_serde_json_differs += usize::from(plain != document);
        }
    }
    // The control: without the rounding of `read_json` some would differ.
    assert!(plain_serde_json_differs > 0);
}

/// Fragments that mean something to SQL, JSON, JSON paths, LIKE, GLOB, shells or Unicode, and pairs of them.
fn hostile_texts() -> Vec<String> {
    let fragments = [
        "'",
        "''",
        "\"",
        "\"\"",
        "`",
        "\\",
        "\\\\",
        "\\\"",
        "\\'",
        "\\u0000",
        "\\u0022",
        "\0",
        "\n",
        "\r",
        "\t",
        "\u{1b}",
        "\u{7f}",
        ";",
        "--",
        "/*",
        "*/",
        ")",
        "(",
        "' OR '1'='1",
        "') OR 1=1 --",
        "'; DROP TABLE entry; --",
        "UNION SELECT 1",
        "x'00'",
        "?",
        "?1",
        ":a",
        "@a",
        "$a",
        "$",
        "$.a",
        ".",
        "..",
        "[0]",
        "[#-1]",
        "[",
        "]",
        "{",
        "}",
        "#",
        ",",
        ":",
        "%",
        "_",
        "*",
        "[a-z]",
        "^",
        "{\"a\":1}",
        "null",
        "true",
        "1",
        "\u{2019}",
        "\u{2bc}",
        "\u{ff07}",
        "\u{201d}",
        "\u{ff02}",
        "\u{202e}",
        "\u{feff}",
        "\u{fffd}",
        "\u{fffe}",
        "\u{ffff}",
        "\u{10ffff}",
        "é",
        "e\u{301}",
        "\u{2028}",
        "İ",
        "ß",
        "",
    ];
    let indexed = || fragments.iter().enumerate();
    let pairs = indexed().flat_map(|(i, a)| indexed().map(move |(j, b)| (i + j, format!("{a}{b}"))));
    // Half of the pairs: each fragment still stands first and last beside half of the others.
    let mut texts: Vec<_> = pairs.filter(|(sum, _)| sum % 2 == 0).map(|(_, text)| text).collect();
    texts.extend(fragments.iter().map(|fragment| format!("a{fragment}b")));
    texts.extend(["'", "\"", "\\", "%", "\0", "é", "a"].map(|fragment| fragment.repeat(20_000)));
    texts.sort();
    texts.dedup();
    texts
}

/// Filters of one shape around one text.
fn filters_on(key: &str, text: &str) -> Vec<Filter> {
    vec![
        field(key).eq(text),
        field(key).ne(text),
        field(key).gt(text).or(field("x").key(key).lte(text)),
        field(key).one_of(["other", text]).and(field(key).none_of([text]).not()),
        field(key).text_match(text),
        field(key).text_match_insensitive(text),
        field("tags").contains(text).or(field("tags").any([text, "other"])),
        field("tags").all([text]),
        field(key).is_empty(),
    ]
}

#[test]
fn hostile_texts_are_only_data() {
    let table = Table::new(&[&["t"], &["tags"]]);
    let texts = hostile_texts();
    assert!(texts.len() >= 2_000, "{}", texts.len());
    let shapes: Vec<_> =
        filters_on("k", "v").iter().map(|filter| compile(filter, COLUMN, &[], 1).unwrap().sql).collect();
    for hostile in &texts {
        let as_key = serde_json::json!({hostile.as_str(): "mine", "x": {hostile.as_str(): "mine"}, "tags": ["mine"]});
        let longer_key = serde_json::json!({format!("{hostile}~"): "mine", "tags": []});
        let as_text = serde_json::json!({"t": hostile, "x": {"t": hostile}, "tags": [hostile, "b"]});
        let longer_text = serde_json::json!({"t": format!("{hostile}~"), "tags": [format!("{hostile}~")]});
        let mut documents =
            vec![as_text.to_string(), longer_text.to_string(), "{}".to_owned(), r#"{"a":1}"#.to_owned()];
        // A name with a NUL is refused before it is stored; a filter may still ask for one.
        let is_storable = !hostile.contains('\0');
        assert_eq!(read_json(as_key.to_string().as_bytes()).is_ok(), is_storable);
        if is_storable {
            documents.extend([as_key.to_string(), longer_key.to_string()]);
        }
        table.fill(&documents);

        let by_text = filters_on("t", hostile);
        let by_key = filters_on(hostile, "mine");
        for (filter, shape) in by_text.iter().chain(&by_key).zip(shapes.iter().cycle()) {
            let expected: Vec<_> = documents.iter().map(|text| evaluate(filter, text)).collect();
            assert_eq!(table.answers(filter), expected, "{filter:?}");
            let sql = compile(filter, COLUMN, &[], 1).unwrap().sql;
            assert!(sql == *shape || !is_storable, "the text changed the SQL: {sql}");
        }
        assert_eq!(table.found(&field("t").eq(hostile)), [0]);
        assert_eq!(table.found(&field("tags").contains(hostile)), [0]);
        assert!(table.found(&field("t").text_match(hostile)).starts_with(&[0, 1]));
        let own_key = if is_storable { vec![4] } else { vec![] };
        assert_eq!(table.found(&field(hostile).eq("mine")), own_key);
    }
    let count: i64 = table.connection.query_row("SELECT count(*) FROM entry", [], |row| row.get(0)).unwrap();
    assert!(count >= 4);
}
