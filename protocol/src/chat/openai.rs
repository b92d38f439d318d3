//! OpenAI-shaped message JSON to [`ChatMessage`] and back, without loss.
//!
//! Start at [`ChatMessage::from_openai`] and [`ChatMessage::to_openai`], which mirror each other.
//!
//! Always true: reading takes a field out of the JSON only if writing puts the same field back; whatever is left
//! over stays in an `extra`, and a field that has an unexpected shape is kept whole in the message's `extra`, which wins.

use serde_json::{Map, Value, json};

use super::{ChatMessage, ContentBlock, MediaReference, Role};
use crate::error::Error;
use crate::json_text::JsonText;

type Object = Map<String, Value>;

impl ChatMessage {
    /// Reads a message in the shape of OpenAI's chat completions.
    ///
    /// [`to_openai`](Self::to_openai) writes exactly the same JSON again, unknown fields included.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not an object with a `role` of text, or is nested more than 127 deep.
    ///
    /// # Examples
    /// ```
    /// use larder_protocol::chat::ChatMessage;
    /// use serde_json::json;
    ///
    /// let openai = json!({
    ///     "role": "assistant", "content": null, "new_field": 1,
    ///     "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    /// });
    /// let message = ChatMessage::from_openai(&openai)?;
    /// assert_eq!(message.call_ids().collect::<Vec<_>>(), ["c1"]);
    /// assert_eq!(message.to_openai(), openai);
    /// # Ok::<(), larder_protocol::Error>(())
    /// ```
    pub fn from_openai(value: &Value) -> Result<Self, Error> {
        let mut rest = value.as_object().cloned().ok_or_else(|| Error::invalid("message", "it is not an object"))?;
        let role = take_text(&mut rest, "role").ok_or_else(|| Error::invalid("message", "it has no role of text"))?;
        let mut message = Self::from_blocks(Role::from(role), Vec::new());
        message.name = take_text(&mut rest, "name");
        read_content(&mut message, &mut rest)?;
        read_calls(&mut message.blocks, &mut rest)?;
        message.extra = keep(rest)?;
        Ok(message)
    }

    /// Writes the message in the shape of OpenAI's chat completions.
    ///
    /// A message that was read by [`from_openai`](Self::from_openai) gives the same JSON. `metadata`, `created` and
    /// `client_id` are the program's own and are not written, since the API refuses fields that it does not know.
    #[must_use]
    pub fn to_openai(&self) -> Value {
        let mut out = object_of(self.extra.as_ref());
        put_absent(&mut out, "role", || Value::from(self.role.as_str()));
        if let Some(name) = &self.name {
            put_absent(&mut out, "name", || Value::from(name.as_str()));
        }
        write_content(self, &mut out);
        write_calls(&self.blocks, &mut out);
        Value::Object(out)
    }
}

/// The key under which a tool result remembers that its message had no `content` at all.
const ABSENT: &str = "absent";

fn read_content(message: &mut ChatMessage, rest: &mut Object) -> Result<(), Error> {
    if message.role == Role::Tool
        && let Some(call_id) = take_text(rest, "tool_call_id")
    {
        let block = read_tool_content(call_id, rest.remove("content"))?;
        message.blocks.push(block);
        return Ok(());
    }
    match rest.get("content") {
        Some(Value::String(text)) => message.blocks.push(ContentBlock::text(text)),
        Some(Value::Array(parts)) if !parts.is_empty() => {
            for part in parts {
                message.blocks.push(read_part(part)?);
            }
            // A lone text without more fields would be written as a string.
            if let [ContentBlock::Text { extra: extra @ None, .. }] = message.blocks.as_mut_slice() {
                *extra = Some(JsonText::from_value(&json!({}))?);
            }
        }
        // Null, an empty list or something else: stays in `rest`, so in the message's `extra`.
        _ => return Ok(()),
    }
    rest.remove("content");
    Ok(())
}

/// A tool message's content is one block whatever its shape; what is not plain text also keeps its shape.
fn read_tool_content(call_id: String, content: Option<Value>) -> Result<ContentBlock, Error> {
    let (text, extra) = match content {
        Some(Value::String(text)) => (text, None),
        None => (String::new(), Some(json!({ ABSENT: true }))),
        Some(content) => {
            let texts: Vec<&str> =
                content.as_array().into_iter().flatten().filter_map(|part| part.get("text")?.as_str()).collect();
            (texts.join("\n"), Some(json!({ "content": content })))
        }
    };
    let extra = extra.as_ref().map(JsonText::from_value).transpose()?;
    Ok(ContentBlock::ToolResult { call_id, text, is_error: false, extra })
}

fn read_part(part: &Value) -> Result<ContentBlock, Error> {
    match part.as_object().map(|part| read_known_part(part.clone())) {
        Some(Some((mut block, rest))) => {
            if let ContentBlock::Text { extra, .. }
            | ContentBlock::Image { extra, .. }
            | ContentBlock::Audio { extra, .. }
            | ContentBlock::Document { extra, .. }
            | ContentBlock::Thinking { extra, .. } = &mut block
            {
                *extra = keep(rest)?;
            }
            Ok(block)
        }
        _ => Ok(ContentBlock::Unknown(JsonText::from_value(part)?)),
    }
}

/// Returns the block and the fields it does not hold; `None` when the part is not of a known shape.
fn read_known_part(mut part: Object) -> Option<(ContentBlock, Object)> {
    let kind = take_text(&mut part, "type")?;
    let block = match kind.as_str() {
        "text" => ContentBlock::Text { text: take_text(&mut part, "text")?, extra: None },
        "input_text" | "output_text" => {
            // The newer names of the same part; the kind goes back into `extra` and wins when written.
            let text = take_text(&mut part, "text")?;
            part.insert("type".to_owned(), Value::String(kind));
            ContentBlock::Text { text, extra: None }
        }
        "thinking" => ContentBlock::Thinking { text: take_text(&mut part, "thinking")?, extra: None },
        "image_url" => {
            let url = take_nested(&mut part, "image_url", "url")?;
            ContentBlock::Image { source: MediaReference::Url(url), extra: None }
        }
        "input_audio" => {
            let data = take_nested(&mut part, "input_audio", "data")?;
            let format = take_nested(&mut part, "input_audio", "format");
            ContentBlock::Audio { source: MediaReference::Base64 { data, format }, extra: None }
        }
        "file" => {
            let source = match take_nested(&mut part, "file", "file_id") {
                Some(id) => MediaReference::FileId(id),
                None => MediaReference::Base64 { data: take_nested(&mut part, "file", "file_data")?, format: None },
            };
            ContentBlock::Document { source, extra: None }
        }
        _ => return None,
    };
    Some((block, part))
}

/// Calls become blocks in any case, since they are counted and paired; if one has an unexpected shape, the original
/// list is kept as well and is what gets written.
fn read_calls(blocks: &mut Vec<ContentBlock>, rest: &mut Object) -> Result<(), Error> {
    let calls: Vec<Value> = rest.get("tool_calls").and_then(Value::as_array).cloned().unwrap_or_default();
    let known: Option<Vec<_>> = calls.iter().map(read_known_call).collect::<Result<_, _>>()?;
    match known {
        Some(known) if !known.is_empty() => {
            blocks.extend(known);
            rest.remove("tool_calls");
        }
        Some(_) => {}
        None => blocks.extend(calls.iter().map(read_odd_call)),
    }
    let Some(Value::Object(call)) = rest.get("function_call") else { return Ok(()) };
    let mut call = call.clone();
    let name = take_text(&mut call, "name");
    let arguments = take_text(&mut call, "arguments");
    // A kept list of calls silences the call blocks, so the function call must be kept beside it.
    if let (Some(name), Some(arguments), false) = (&name, &arguments, rest.contains_key("tool_calls")) {
        let (name, arguments) = (name.clone(), arguments.clone());
        blocks.push(ContentBlock::ToolCall { id: String::new(), name, arguments, extra: keep(call)? });
        rest.remove("function_call");
    } else {
        blocks.push(ContentBlock::tool_call("", name.unwrap_or_default(), arguments.unwrap_or_default()));
    }
    Ok(())
}

fn read_known_call(call: &Value) -> Result<Option<ContentBlock>, Error> {
    let Some(mut call) = call.as_object().cloned() else { return Ok(None) };
    let id = take_text(&mut call, "id").filter(|id| !id.is_empty());
    let is_function = take_text(&mut call, "type").is_some_and(|kind| kind == "function");
    let name = take_nested(&mut call, "function", "name");
    let arguments = take_nested(&mut call, "function", "arguments");
    let (Some(id), true, Some(name), Some(arguments)) = (id, is_function, name, arguments) else { return Ok(None) };
    Ok(Some(ContentBlock::ToolCall { id, name, arguments, extra: keep(call)? }))
}

fn read_odd_call(call: &Value) -> ContentBlock {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let body = call.get("function").or_else(|| call.get("custom"));
    let name = text(body.and_then(|body| body.get("name")));
    let arguments = match body.and_then(|body| body.get("arguments").or_else(|| body.get("input"))) {
        Some(Value::String(arguments)) => arguments.clone(),
        Some(other) => other.to_string(),
        None => call.to_string(),
    };
    ContentBlock::tool_call(text(call.get("id")), name, arguments)
}

fn write_content(message: &ChatMessage, out: &mut Object) {
    if let (Role::Tool, [ContentBlock::ToolResult { call_id, text, is_error: false, extra }]) =
        (&message.role, content_blocks(&message.blocks).collect::<Vec<_>>().as_slice())
    {
        put_absent(out, "tool_call_id", || Value::from(call_id.as_str()));
        let mut extra = object_of(extra.as_ref());
        if !extra.contains_key(ABSENT) {
            put_absent(out, "content", || extra.remove("content").unwrap_or_else(|| Value::from(text.as_str())));
        }
        return;
    }
    let parts: Vec<&ContentBlock> = content_blocks(&message.blocks).collect();
    match parts.as_slice() {
        [] => {}
        [ContentBlock::Text { text, extra: None }] => put_absent(out, "content", || Value::from(text.as_str())),
        parts => put_absent(out, "content", || parts.iter().copied().map(write_part).collect()),
    }
}

fn content_blocks(blocks: &[ContentBlock]) -> impl Iterator<Item = &ContentBlock> {
    blocks.iter().filter(|block| !matches!(block, ContentBlock::ToolCall { .. }))
}

fn write_part(block: &ContentBlock) -> Value {
    match block {
        ContentBlock::Text { text, extra } => merge(extra.as_ref(), json!({"type": "text", "text": text})),
        ContentBlock::Thinking { text, extra } => merge(extra.as_ref(), json!({"type": "thinking", "thinking": text})),
        ContentBlock::Image { source, extra } => merge(extra.as_ref(), write_media(source, "image_url")),
        ContentBlock::Audio { source, extra } => merge(extra.as_ref(), write_media(source, "input_audio")),
        ContentBlock::Document { source, extra } => merge(extra.as_ref(), write_media(source, "file")),
        ContentBlock::ToolResult { call_id, text, is_error, extra } => merge(
            extra.as_ref(),
            json!({"type": "tool_result", "tool_call_id": call_id, "content": text, "is_error": is_error}),
        ),
        ContentBlock::ToolCall { id, name, arguments, extra } => write_call(id, name, arguments, extra.as_ref()),
        ContentBlock::Unknown(json) => json.to_value(),
    }
}

/// OpenAI has a field for each pair of kind and reference that it knows; the others take the nearest one.
fn write_media(source: &MediaReference, kind: &str) -> Value {
    let body = match (kind, source) {
        ("file", MediaReference::Base64 { data, .. }) => json!({ "file_data": data }),
        (_, MediaReference::Base64 { data, format: Some(format) }) => json!({ "data": data, "format": format }),
        (_, MediaReference::Base64 { data, format: None }) => json!({ "data": data }),
        (_, MediaReference::Url(url)) => json!({ "url": url }),
        (_, MediaReference::FileId(id)) => json!({ "file_id": id }),
    };
    json!({ "type": kind, kind: body })
}

fn write_calls(blocks: &[ContentBlock], out: &mut Object) {
    if out.contains_key("tool_calls") {
        return;
    }
    let mut calls = Vec::new();
    for block in blocks {
        let ContentBlock::ToolCall { id, name, arguments, extra } = block else { continue };
        if id.is_empty() {
            let call = json!({"name": name, "arguments": arguments});
            put_absent(out, "function_call", || merge(extra.as_ref(), call));
        } else {
            calls.push(write_call(id, name, arguments, extra.as_ref()));
        }
    }
    if !calls.is_empty() {
        out.insert("tool_calls".to_owned(), Value::Array(calls));
    }
}

fn write_call(id: &str, name: &str, arguments: &str, extra: Option<&JsonText>) -> Value {
    merge(extra, json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}))
}

/// Takes the field if it holds text, and leaves it where it is otherwise.
fn take_text(object: &mut Object, key: &str) -> Option<String> {
    if !object.get(key)?.is_string() {
        return None;
    }
    match object.remove(key)? {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// Takes `object[outer][inner]` if it holds text, and the outer object with it once that is empty.
fn take_nested(object: &mut Object, outer: &str, inner: &str) -> Option<String> {
    let nested = object.get_mut(outer)?.as_object_mut()?;
    let text = take_text(nested, inner)?;
    if nested.is_empty() {
        object.remove(outer);
    }
    Some(text)
}

fn put_absent(object: &mut Object, key: &str, value: impl FnOnce() -> Value) {
    if !object.contains_key(key) {
        object.insert(key.to_owned(), value());
    }
}

/// Adds the fields of `fields` that `extra` lacks, one level of nesting included.
fn merge(extra: Option<&JsonText>, fields: Value) -> Value {
    let mut out = object_of(extra);
    let Value::Object(fields) = fields else { return Value::Object(out) };
    for (key, value) in fields {
        match (out.get_mut(&key), value) {
            (Some(Value::Object(kept)), Value::Object(value)) => {
                for (key, value) in value {
                    put_absent(kept, &key, || value);
                }
            }
            (Some(_), _) => {}
            (None, value) => {
                out.insert(key, value);
            }
        }
    }
    Value::Object(out)
}

fn object_of(extra: Option<&JsonText>) -> Object {
    match extra.map(JsonText::to_value) {
        Some(Value::Object(object)) => object,
        _ => Object::new(),
    }
}

fn keep(rest: Object) -> Result<Option<JsonText>, Error> {
    if rest.is_empty() { Ok(None) } else { JsonText::from_value(&Value::Object(rest)).map(Some) }
}

#[cfg(test)]
mod tests;
