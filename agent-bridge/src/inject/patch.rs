//! JSON Patch (RFC 6902), as much of it as injection writes.

use serde::Serialize;
use serde_json::{Value, json};

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation {
    /// What is done.
    pub op: Op,
    /// Where: a JSON pointer.
    pub path: String,
    /// With what; nothing for a removal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// What is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// A member is set, or an item is put in front of the one at that index.
    Add,
    /// A member or item goes.
    Remove,
}

/// Changes in the making.
#[derive(Debug, Default)]
pub(super) struct Patch(Vec<Operation>);

impl Patch {
    /// Sets a member, or puts an item into a list.
    pub(super) fn add(&mut self, path: String, value: Value) {
        self.0
            .push(Operation { op: Op::Add, path, value: Some(value) });
    }

    /// Takes a member or an item away.
    pub(super) fn remove(&mut self, path: String) {
        self.0.push(Operation { op: Op::Remove, path, value: None });
    }

    /// Sets a member of an object that may not be there itself.
    pub(super) fn add_member(&mut self, holder: &Value, path: &str, member: &str, value: Value) {
        if holder.is_object() {
            self.add(format!("{path}/{}", member), value);
        } else {
            self.add(path.to_owned(), json!({ member: value }));
        }
    }

    /// The changes.
    pub(super) fn done(self) -> Vec<Operation> {
        self.0
    }
}

/// A member's name as a pointer writes it.
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
