//! Lists: narrowed, in an order that stays, page by page.
//!
//! A page is picked from the state as it goes by: as many references as a page has elements are held,
//! and only what is on the page is copied. A cursor is the place of the last element in the order, not
//! a count: what comes or goes between two pages moves nothing else. In lists that have the newest
//! first, what is seen again meanwhile moves to the front, out of the pages that are still to come.

mod elements;

use std::{borrow::Cow, collections::BinaryHeap, fmt};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use outrider_api::{ListQuery, MAX_LIMIT, NEXT_CURSOR};
use serde::Serialize;

use crate::node::Refusal;
pub(crate) use elements::Said;

/// Longest cursor that is looked at.
const MAX_CURSOR: usize = 8192;
/// A page ends with the element that makes it this large, in bytes.
const MAX_PAGE: usize = 2 << 20;

/// Whom a list is narrowed to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Whom {
    /// The name, full or bare.
    pub(crate) workload: Option<String>,
    /// The group of that workload, if it is known.
    pub(crate) group: Option<String>,
    /// The application.
    pub(crate) app: Option<String>,
}

/// Something that may be narrowed.
pub(crate) trait Concerning {
    /// Whether a workload of that name took part.
    fn concerns(&self, workload: &str) -> bool;
    /// Whether a group took part.
    fn concerns_group(&self, _group: &str) -> bool {
        false
    }
    /// Its application, if such elements have one.
    fn app(&self) -> Option<Cow<'_, str>>;
}

/// An element of a list.
pub(crate) trait Listed: Concerning {
    /// What is shown of it.
    type Shown: Serialize;
    /// Writes its place in the order, which is compared as text.
    ///
    /// # Errors
    /// None: writing to a string does not fail.
    fn place(&self, out: &mut String) -> fmt::Result;
    /// When it was seen last, if such elements have a time.
    fn last_seen(&self) -> Option<u64> {
        None
    }
    /// What is shown of it.
    fn shown(&self) -> Self::Shown;
}

impl Whom {
    /// Whether an element is one of those.
    pub(crate) fn includes(&self, item: &impl Concerning) -> bool {
        let takes_part = |name: &String| {
            item.concerns(name)
                || self
                    .group
                    .as_ref()
                    .is_some_and(|group| item.concerns_group(group))
        };
        let is_app = |wanted: &String| {
            item.app()
                .is_some_and(|app| app.eq_ignore_ascii_case(wanted))
        };
        self.workload.as_ref().is_none_or(takes_part) && self.app.as_ref().is_none_or(is_app)
    }
}

/// A place in a list; elements at one place are told apart by number.
pub(crate) type Place = (String, u32);

/// Which part of a list is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    limit: usize,
    after: Option<Place>,
    since: u64,
    whom: Whom,
}

/// What was picked from a list.
#[derive(Debug)]
pub(crate) struct Picked<T> {
    items: Vec<(Place, T)>,
    /// There is more behind it.
    more: bool,
}

impl<T> Default for Picked<T> {
    fn default() -> Self {
        Self { items: Vec::new(), more: false }
    }
}

impl<T> Picked<T> {
    /// Nothing more fits on the page.
    pub(crate) fn is_full(&self, asked: &Selection) -> bool {
        self.more || self.items.len() > asked.limit
    }
}

impl Selection {
    /// Reads what was asked for.
    ///
    /// # Errors
    /// When the limit is none, or the cursor none of ours.
    pub(crate) fn read(asked: &ListQuery, whom: Whom) -> Result<Self, Refusal> {
        let limit = asked.limit.unwrap_or(MAX_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Refusal::Bad(format!("limit is 1 to {MAX_LIMIT}")));
        }
        Ok(Self {
            limit: limit as usize,
            after: asked.cursor.as_deref().map(read_cursor).transpose()?,
            since: asked.since.unwrap_or_default(),
            whom,
        })
    }

    /// The workload that the list is narrowed to.
    pub(crate) fn workload(&self) -> Option<&str> {
        self.whom.workload.as_deref()
    }

    /// The place that the page begins behind, empty at the beginning.
    pub(crate) fn begin(&self) -> &str {
        self.after.as_ref().map_or("", |(place, _)| place)
    }

    /// The page's elements, in order; the elements themselves may come in any.
    pub(crate) fn pick<'a, T: Listed + 'a>(
        &self,
        all: impl IntoIterator<Item = &'a T>,
    ) -> Picked<T::Shown> {
        let mut nearest = BinaryHeap::with_capacity(self.limit.min(1024));
        let (mut place, mut at_cursor, mut skipped) = (String::new(), 0, 0);
        let wanted = all
            .into_iter()
            .filter(|item| item.last_seen().is_none_or(|last| last >= self.since))
            .filter(|item| self.whom.includes(*item));
        for (met, item) in wanted.enumerate() {
            place.clear();
            if item.place(&mut place).is_err() {
                continue;
            }
            if let Some((after, number)) = &self.after {
                let here = place.as_str().cmp(after);
                at_cursor += u32::from(here.is_eq());
                if here.is_lt() || (here.is_eq() && at_cursor <= number.saturating_add(1)) {
                    skipped = at_cursor;
                    continue;
                }
            }
            let is_full = nearest.len() > self.limit;
            if is_full
                && nearest
                    .peek()
                    .is_some_and(|last: &Near<'_, T>| last.place <= place)
            {
                continue;
            }
            if is_full {
                nearest.pop();
            }
            nearest.push(Near { place: place.clone(), met, item });
        }
        let mut nearest = nearest.into_sorted_vec();
        let more = nearest.len() > self.limit;
        nearest.truncate(self.limit);
        Picked { items: self.numbered(nearest, skipped), more }
    }

    /// Numbers elements at one place, and those at the cursor's behind the ones that were had.
    fn numbered<T: Listed>(
        &self,
        picked: Vec<Near<'_, T>>,
        skipped: u32,
    ) -> Vec<(Place, T::Shown)> {
        let after = self.after.as_ref().map(|(place, _)| place);
        let mut items: Vec<(Place, T::Shown)> = Vec::with_capacity(picked.len());
        for Near { place, item, .. } in picked {
            let number = match items.last() {
                Some(((known, number), _)) if *known == place => number.saturating_add(1),
                _ if after == Some(&place) => skipped,
                _ => 0,
            };
            items.push(((place, number), item.shown()));
        }
        items
    }

    /// Picks more for the same page, from what lies behind all that was picked before.
    pub(crate) fn pick_more<'a, T: Listed + 'a>(
        &self,
        picked: &mut Picked<T::Shown>,
        all: impl IntoIterator<Item = &'a T>,
    ) {
        let limit = self.limit.saturating_sub(picked.items.len());
        let mut more = Self { limit, ..self.clone() }.pick(all);
        picked.items.append(&mut more.items);
        picked.more |= more.more;
    }
}

/// An element that may be on the page.
struct Near<'a, T> {
    place: String,
    /// Elements at one place are in the order in which they were met.
    met: usize,
    item: &'a T,
}

impl<T> Near<'_, T> {
    fn key(&self) -> (&str, usize) {
        (&self.place, self.met)
    }
}

impl<T> PartialEq for Near<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Near<'_, T> {}

impl<T> PartialOrd for Near<'_, T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Near<'_, T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// A page as it is sent.
#[derive(Debug)]
pub(super) struct Page {
    json: Vec<u8>,
    next: Option<String>,
}

impl<T: Serialize> From<Picked<T>> for Page {
    fn from(picked: Picked<T>) -> Self {
        let (mut json, mut last) = (vec![b'['], None);
        let mut rest = picked.items.into_iter();
        for (place, item) in rest.by_ref() {
            if last.is_some() {
                json.push(b',');
            }
            // Types of ours always have a JSON form.
            drop(serde_json::to_writer(&mut json, &item));
            last = Some(place);
            if json.len() >= MAX_PAGE {
                break;
            }
        }
        json.push(b']');
        let more = picked.more || rest.next().is_some();
        Self { json, next: last.filter(|_| more).as_ref().map(write_cursor) }
    }
}

fn write_cursor((place, number): &Place) -> String {
    let place: String = place.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{number:x}.{place}")
}

fn read_cursor(text: &str) -> Result<Place, Refusal> {
    let read = || {
        let (number, place) = text.split_once('.')?;
        if text.len() > MAX_CURSOR || !place.len().is_multiple_of(2) {
            return None;
        }
        let bytes: Option<Vec<u8>> = (0..place.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(place.get(at..at + 2)?, 16).ok())
            .collect();
        Some((String::from_utf8(bytes?).ok()?, u32::from_str_radix(number, 16).ok()?))
    };
    let wrong =
        || Refusal::Bad(format!("cursor is none of ours: take it from the header {NEXT_CURSOR}"));
    read().ok_or_else(wrong)
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let mut answer = Response::new(Body::from(self.json));
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(next) = self.next.and_then(|next| HeaderValue::try_from(next).ok()) {
            headers.insert(HeaderName::from_static(NEXT_CURSOR), next);
        }
        answer
    }
}

#[cfg(test)]
mod tests;
