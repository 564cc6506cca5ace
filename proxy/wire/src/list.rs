//! Lists that tell "none" from "nil", as the agent's encoder does.

use std::ops::Deref;

use serde::{Serialize, Serializer};

/// A list in a request: nil is written `null`, an empty list `[]`. Both read as a slice.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct List<T>(Option<Vec<T>>);

impl<T> List<T> {
    /// Nil.
    #[must_use]
    pub const fn nil() -> Self {
        Self(None)
    }

    /// Whether the member was missing, `null` or no list at all.
    #[must_use]
    pub fn is_nil(&self) -> bool {
        self.0.is_none()
    }

    /// Appends what `other` has.
    pub(crate) fn append(&mut self, other: Self) {
        if let Some(mut more) = other.0 {
            self.0.get_or_insert_default().append(&mut more);
        }
    }
}

impl<T: Clone> List<T> {
    /// A part of the list; nil stays nil.
    pub(crate) fn part(&self, from: usize, to: usize) -> Self {
        Self(
            self.0
                .as_ref()
                .map(|all| all.get(from..to).unwrap_or_default().to_vec()),
        )
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self::nil()
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl<T> From<Vec<T>> for List<T> {
    fn from(list: Vec<T>) -> Self {
        Self(Some(list))
    }
}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self(Some(items.into_iter().collect()))
    }
}

impl<T> IntoIterator for List<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.unwrap_or_default().into_iter()
    }
}

impl<'a, T> IntoIterator for &'a List<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: Serialize> Serialize for List<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
