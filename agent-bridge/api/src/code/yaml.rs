//! Objects into text: block YAML, the same bytes each time.

use serde_json::Value;

/// The key of what is written as a comment above an object or an element of a list.
pub const COMMENT: &str = "#";

/// Words that YAML takes for something else than text, or once did.
const TAKEN: [&str; 10] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan"];

/// Writes objects as documents; a member [`COMMENT`] becomes a comment.
#[must_use]
pub fn write(objects: &[Value]) -> String {
    let mut out = String::new();
    for object in objects {
        if !out.is_empty() {
            out.push_str("---\n");
        }
        comment(&mut out, object, 0);
        block(&mut out, object, 0, "");
    }
    out
}

/// The same object without comments.
#[must_use]
pub fn plain(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(key, _)| *key != COMMENT)
            .map(|(key, value)| (key.clone(), plain(value)))
            .collect(),
        Value::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}

/// Writes an object's members or a list's elements, each on lines of its own; `lead` stands before the first one, in
/// the room of its indentation.
fn block(out: &mut String, value: &Value, depth: usize, lead: &str) {
    let indent = |out: &mut String, is_first: bool| match is_first && !lead.is_empty() {
        true => out.push_str(lead),
        false => out.push_str(&"  ".repeat(depth)),
    };
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().filter(|(key, _)| *key != COMMENT).collect();
            members.sort_by_key(|(key, _)| (*key != "name", *key));
            for (at, (key, value)) in members.into_iter().enumerate() {
                indent(out, at == 0);
                scalar(out, key);
                out.push(':');
                if is_inline(value) {
                    out.push(' ');
                    inline(out, value);
                    out.push('\n');
                } else {
                    out.push('\n');
                    block(out, value, depth + 1, "");
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                let dash = format!("{}- ", "  ".repeat(depth));
                if is_inline(item) {
                    out.push_str(&dash);
                    inline(out, item);
                    out.push('\n');
                } else {
                    comment(out, item, depth);
                    block(out, item, depth + 1, &dash);
                }
            }
        }
        other => inline(out, other),
    }
}

fn comment(out: &mut String, value: &Value, depth: usize) {
    let Some(text) = value.get(COMMENT).and_then(Value::as_str) else { return };
    for line in text.lines() {
        let line: String = line
            .chars()
            .map(|letter| if letter.is_control() { ' ' } else { letter })
            .collect();
        out.push_str(&"  ".repeat(depth));
        out.push_str("# ");
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// Scalars, lists of scalars, and what is empty.
fn is_inline(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.keys().all(|key| key == COMMENT),
        Value::Array(items) => items
            .iter()
            .all(|item| !item.is_object() && !item.is_array()),
        _ => true,
    }
}

fn inline(out: &mut String, value: &Value) {
    match value {
        Value::Object(_) => out.push_str("{}"),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                inline(out, item);
            }
            out.push(']');
        }
        Value::String(text) => scalar(out, text),
        other => out.push_str(&other.to_string()),
    }
}

/// Text bare where nobody can take it for anything else, else in quotes.
fn scalar(out: &mut String, text: &str) {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte);
    let is_bare = text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && text.bytes().all(bare)
        && !TAKEN.iter().any(|taken| text.eq_ignore_ascii_case(taken));
    if is_bare {
        return out.push_str(text);
    }
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            ' '..='~' => out.push(letter),
            other => match u16::try_from(u32::from(other)) {
                Ok(short) => out.push_str(&format!("\\u{short:04x}")),
                Err(_long) => out.push_str(&format!("\\U{:08x}", u32::from(other))),
            },
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::code::read;

    #[test]
    fn text_is_as_people_write_it_and_reads_as_the_same() {
        let objects = [
            json!({"kind": "A", "#": "twice\nseen \u{1b}[2J", "spec": {"list": [
                {"#": "why", "ports": ["tcp/80", "any"], "name": "one", "peers": [{"cidr": "10.0.0.0/8"}]},
                {"name": "two", "inner": {"a": {"b": true}}},
            ]}}),
            json!({"kind": "B", "empty": {}, "none": [], "odd": ["yes", "1", "a: b", "", "ä\u{2028}😀", "\"\\\n"], "n": 5}),
        ];
        let text = write(&objects);
        let expected = "\
# twice
# seen  [2J
kind: A
spec:
  list:
    # why
    - name: one
      peers:
        - cidr: \"10.0.0.0/8\"
      ports: [tcp/80, any]
    - name: two
      inner:
        a:
          b: true
---
";
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(read(&text).unwrap(), objects.map(|one| plain(&one)));
    }
}
