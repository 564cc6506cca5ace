//! Text into objects, within bounds.

use std::fmt;

use serde_json::Value;

/// Bytes of a text that is read.
pub const MAX_BYTES: usize = 8 << 20;
/// Objects in it, those of its lists each.
pub const MAX_OBJECTS: usize = 4_096;
/// How deep its values are nested.
pub const MAX_DEPTH: usize = 64;
/// Values, keys and ends of values in it.
pub const MAX_EVENTS: usize = 500_000;
/// As many again that its aliases stand for: an alias of an alias of a list would make terabytes of a line.
pub const MAX_ALIASED: usize = 100_000;

/// How deep aliases stand for aliases.
const MAX_ALIAS_DEPTH: usize = 8;

/// Why a text is none of objects.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReadError {
    /// It has more than [`MAX_BYTES`].
    TooLarge,
    /// It has more than [`MAX_OBJECTS`].
    TooMany,
    /// It is no YAML, or exceeds another bound; what and where.
    Yaml(String),
    /// A document is no object; which, from 1.
    NoObject(usize),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(f, "larger than {MAX_BYTES} bytes: split it"),
            Self::TooMany => write!(f, "more than {MAX_OBJECTS} objects: split it"),
            Self::Yaml(why) => f.write_str(why),
            Self::NoObject(at) => write!(f, "document {at} is no object"),
        }
    }
}

impl std::error::Error for ReadError {}

/// Reads objects: YAML of several documents, or JSON; a `List` is the objects in it, an empty document is nothing.
///
/// # Errors
///
/// When it exceeds a bound, is no YAML, or has a document that is no object.
pub fn read(text: &str) -> Result<Vec<Value>, ReadError> {
    read_within(text, MAX_EVENTS)
}

fn read_within(text: &str, max_events: usize) -> Result<Vec<Value>, ReadError> {
    if text.len() > MAX_BYTES {
        return Err(ReadError::TooLarge);
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_documents: MAX_OBJECTS.saturating_mul(2),
            max_events: max_events,
            max_nodes: max_events,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_ALIASED,
            max_replay_stack_depth: MAX_ALIAS_DEPTH,
        },
    };
    let wrong = |error: serde_saphyr::Error| ReadError::Yaml(error.to_string());
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(wrong)?;
    let mut all = Vec::new();
    for (at, mut document) in documents.into_iter().enumerate() {
        match document.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => all.extend(items),
            _ if document.is_object() => all.push(document),
            _ => return Err(ReadError::NoObject(at + 1)),
        }
        if all.len() > MAX_OBJECTS {
            return Err(ReadError::TooMany);
        }
    }
    match all.iter().position(|one| !one.is_object()) {
        Some(at) => Err(ReadError::NoObject(at + 1)),
        None => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_lists_and_json_are_objects() {
        let text = "# said\nkind: A\n---\n---\nkind: List\nitems: [{kind: B}, {kind: C}]\n---\n{\"kind\": \"D\"}\n";
        let kinds: Vec<_> = read(text)
            .unwrap()
            .iter()
            .map(|one| one["kind"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(kinds, ["A", "B", "C", "D"]);
        assert_eq!(read("").unwrap(), Vec::<Value>::new());
        assert_eq!(read("a: b\n---\n- c\n"), Err(ReadError::NoObject(2)));
        assert_eq!(read("items: [a]"), Err(ReadError::NoObject(1)));
    }

    #[test]
    fn every_bound_holds() {
        assert_eq!(read(&" ".repeat(MAX_BYTES + 1)), Err(ReadError::TooLarge));
        let many = |count: usize| "kind: A\n---\n".repeat(count);
        assert_eq!(read(&many(MAX_OBJECTS + 1)), Err(ReadError::TooMany));
        let list = |count: usize| format!("items: [{}]", "{},".repeat(count));
        assert_eq!(read(&list(MAX_OBJECTS)).unwrap().len(), MAX_OBJECTS);
        assert_eq!(read(&list(MAX_OBJECTS + 1)), Err(ReadError::TooMany));
        let deep = |levels: usize| format!("a: {}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(&deep(MAX_DEPTH - 2)).is_ok());
        assert!(matches!(read(&deep(MAX_DEPTH + 1)), Err(ReadError::Yaml(_))));
        let long = format!("a: [{}]", "b,".repeat(1_000));
        assert!(read_within(&long, 1_010).is_ok());
        assert!(matches!(read_within(&long, 1_000), Err(ReadError::Yaml(_))));
    }

    /// Nine levels of nine aliases each: 387 million values of 400 bytes.
    #[test]
    fn aliases_that_stand_for_more_and_more_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let before = format!("*a{}, ", level - 1).repeat(9);
            bomb.push_str(&format!("a{level}: &a{level} [{before}]\n"));
        }
        assert!(matches!(read(&bomb), Err(ReadError::Yaml(_))));
        assert_eq!(read("a: &a {b: c}\nd: *a\n").unwrap()[0]["d"]["b"], "c");
    }
}
