//! Losslessness, by property and by example.

use proptest::prelude::*;

use super::*;

/// Any JSON, with the keys and words of the format among the rest, so that known fields get odd values.
fn any_json() -> impl Strategy<Value = Value> {
    let word = || {
        prop_oneof![
            3 => prop::sample::select(WORDS.to_vec()).prop_map(str::to_owned),
            1 => ".{0,6}",
        ]
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..5).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

const WORDS: &[&str] = &[
    "",
    "role",
    "tool",
    "assistant",
    "content",
    "type",
    "text",
    "input_text",
    "thinking",
    "image_url",
    "url",
    "file",
    "file_id",
    "file_data",
    "input_audio",
    "data",
    "format",
    "id",
    "function",
    "name",
    "arguments",
    "tool_calls",
    "tool_call_id",
    "function_call",
    "custom",
    "input",
    "absent",
    "detail",
];

/// A part or a call that is nearly right: a known shape in which single fields are replaced, added or removed.
fn nearly(shape: Value) -> impl Strategy<Value = Value> {
    let changes = prop::collection::vec((prop::sample::select(WORDS.to_vec()), prop::option::of(any_json())), 0..2);
    (Just(shape), changes, any::<prop::sample::Index>()).prop_map(|(mut shape, changes, place)| {
        let mut places: Vec<String> = vec![String::new()];
        places.extend(shape.as_object().into_iter().flatten().filter(|f| f.1.is_object()).map(|f| format!("/{}", f.0)));
        let place = place.get(&places).clone();
        if let Some(Value::Object(object)) = shape.pointer_mut(&place) {
            for (key, value) in changes {
                match value {
                    Some(value) => drop(object.insert(key.to_owned(), value)),
                    None => drop(object.remove(key)),
                }
            }
        }
        shape
    })
}

fn part() -> impl Strategy<Value = Value> {
    prop_oneof![
        nearly(json!({"type": "text", "text": "a"})),
        nearly(json!({"type": "output_text", "text": "a", "annotations": []})),
        nearly(json!({"type": "thinking", "thinking": "hm", "signature": "s"})),
        nearly(json!({"type": "image_url", "image_url": {"url": "https://x", "detail": "low"}})),
        nearly(json!({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}})),
        nearly(json!({"type": "file", "file": {"file_id": "f1"}})),
        nearly(json!({"type": "file", "file": {"file_data": "AA", "filename": "x.pdf"}})),
        any_json(),
    ]
}

fn call() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => nearly(json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}})),
        1 => nearly(json!({"id": "", "type": "function", "function": {"name": "f", "arguments": "{}"}})),
        1 => nearly(json!({"id": "c2", "type": "custom", "custom": {"name": "f", "input": "x"}})),
    ]
}

fn openai_message() -> impl Strategy<Value = Value> {
    let content = prop_oneof![
        Just(Value::Null),
        Just(json!("")),
        ".{0,8}".prop_map(Value::from),
        prop::collection::vec(part(), 0..4).prop_map(Value::from),
        any_json(),
    ];
    let role = prop::sample::select(vec!["system", "user", "assistant", "tool", "function", "critic"]);
    let calls = prop_oneof![3 => prop::collection::vec(call(), 0..3).prop_map(Value::from), 1 => any_json()];
    let function_call = nearly(json!({"name": "f", "arguments": "{}"}));
    let fields = (
        prop::option::of(content),
        prop::option::of(calls),
        prop::option::weighted(0.2, function_call),
        prop::option::of(prop_oneof![Just(json!("c1")), any_json()]),
        prop::option::of(prop_oneof![Just(json!("bob")), any_json()]),
        prop::collection::vec((prop::sample::select(WORDS.to_vec()), any_json()), 0..2),
    );
    (role, fields).prop_map(|(role, (content, calls, function_call, call_id, name, others))| {
        let mut message: Object = others.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let named = [
            ("content", content),
            ("tool_calls", calls),
            ("function_call", function_call),
            ("tool_call_id", call_id),
            ("name", name),
        ];
        for (key, value) in named {
            message.extend(value.map(|value| (key.to_owned(), value)));
        }
        message.insert("role".to_owned(), Value::from(role));
        Value::Object(message)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn openai_json_comes_back_unchanged(openai in openai_message()) {
        let message = ChatMessage::from_openai(&openai).unwrap();
        prop_assert_eq!(message.to_openai(), openai.clone());
        // And so it does after a stay in a store.
        let bytes = postcard::to_stdvec(&message).unwrap();
        let stored: ChatMessage = postcard::from_bytes(&bytes).unwrap();
        prop_assert_eq!(stored.to_openai(), openai);
    }
}

#[test]
fn plain_messages_write_the_plain_shape() {
    assert_eq!(ChatMessage::user("hi").to_openai(), json!({"role": "user", "content": "hi"}));
    assert_eq!(
        ChatMessage::tool_result("c1", "42").to_openai(),
        json!({"role": "tool", "tool_call_id": "c1", "content": "42"})
    );
    let call = ChatMessage::from_blocks(Role::Assistant, vec![ContentBlock::tool_call("c1", "add", "{}")]);
    assert_eq!(
        call.to_openai(),
        json!({"role": "assistant",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}]})
    );
}

#[test]
fn plain_messages_come_back_as_the_same_blocks() {
    let call = ContentBlock::tool_call("c1", "add", "{}");
    for message in [
        ChatMessage::user("hi").with_name("bob"),
        ChatMessage::tool_result("c1", "42"),
        ChatMessage::assistant("thinking aloud").with_block(call),
        ChatMessage::user("see").with_block(ContentBlock::image_url("https://x")),
    ] {
        assert_eq!(ChatMessage::from_openai(&message.to_openai()).unwrap(), message);
    }
}

#[test]
fn calls_of_an_unexpected_shape_are_still_counted_and_paired() {
    let openai = json!({"role": "assistant", "tool_calls": [
        {"id": "c1", "function": {"name": "f", "arguments": {"x": 1}}},
        {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "y"}},
    ]});
    let message = ChatMessage::from_openai(&openai).unwrap();
    assert_eq!(message.call_ids().collect::<Vec<_>>(), ["c1", "c2"]);
    assert_eq!(message.blocks[0], ContentBlock::tool_call("c1", "f", r#"{"x":1}"#));
    assert_eq!(message.to_openai(), openai);
}

#[test]
fn a_tool_result_in_parts_keeps_its_text_and_its_parts() {
    let openai = json!({"role": "tool", "tool_call_id": "c1",
        "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]});
    let message = ChatMessage::from_openai(&openai).unwrap();
    assert_eq!(message.text().as_deref(), Some("a\nb"));
    assert_eq!(message.to_openai(), openai);
}

#[test]
fn what_is_not_a_message_is_refused() {
    for value in [json!([]), json!({}), json!({"role": 1}), json!("user")] {
        assert!(matches!(ChatMessage::from_openai(&value), Err(Error::Invalid { .. })));
    }
}
