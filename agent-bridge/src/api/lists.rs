//! Lists: narrowed, in an order that stays, page by page.
//!
//! A cursor is the place of the last element in the order, not a count: what comes or goes between
//! two pages moves nothing else. In lists that have the newest first, what is seen again meanwhile
//! moves to the front, out of the pages that are still to come.

use std::cmp::Ordering;

use axum::{
    Json,
    http::{HeaderName, HeaderValue},
    response::{IntoResponse, Response},
};
use outrider_api::{
    Conversation, Flow, ListQuery, MAX_LIMIT, ModeChange, NEXT_CURSOR, Rule, Session, Threat,
    Violation, Workload,
};
use serde::Serialize;

use crate::node::Refusal;

/// Longest cursor that is looked at.
const MAX_CURSOR: usize = 8192;

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

/// An element of a list.
pub(crate) trait Listed {
    /// Its place in the order, compared as text.
    fn place(&self) -> String;
    /// Whether a workload of that name took part.
    fn concerns(&self, workload: &str) -> bool;
    /// Whether a group took part.
    fn concerns_group(&self, _group: &str) -> bool {
        false
    }
    /// Its application, if such elements have one.
    fn app(&self) -> Option<&str>;
    /// When it was seen last, if such elements have a time.
    fn last_seen(&self) -> Option<u64> {
        None
    }
}

impl Whom {
    /// Whether an element is one of those.
    pub(crate) fn includes(&self, item: &impl Listed) -> bool {
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

/// A page of a list.
#[derive(Debug)]
pub(super) struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

impl<T: Listed> Page<T> {
    /// The page that was asked for.
    pub(super) fn of(items: Vec<T>, asked: &ListQuery, whom: &Whom) -> Result<Self, Refusal> {
        let limit = match asked.limit {
            Some(limit) if !(1..=MAX_LIMIT).contains(&limit) => {
                return Err(Refusal::Bad(format!("limit is 1 to {MAX_LIMIT}")));
            }
            limit => limit.map_or(usize::MAX, |limit| limit as usize),
        };
        let after = asked.cursor.as_deref().map(read_cursor).transpose()?;
        let seen = |item: &T| {
            let since = asked.since.unwrap_or_default();
            item.last_seen().is_none_or(|last| last >= since)
        };
        let mut placed: Vec<_> = items
            .into_iter()
            .filter(|item| seen(item) && whom.includes(item))
            .map(|item| ((item.place(), 0), item))
            .collect();
        placed.sort_by(|(one, _), (other, _)| one.cmp(other));
        number(&mut placed);
        let first = after.map_or(0, |after| {
            placed.partition_point(|(place, _)| place.cmp(&after) != Ordering::Greater)
        });
        let mut rest = placed.into_iter().skip(first);
        let mut items = Vec::new();
        let mut last = None;
        for (place, item) in rest.by_ref().take(limit) {
            items.push(item);
            last = Some(place);
        }
        let next = last.filter(|_| rest.next().is_some());
        Ok(Self { items, next: next.as_ref().map(write_cursor) })
    }
}

/// Elements at one place are told apart by number.
fn number<T>(placed: &mut [((String, u32), T)]) {
    let mut before: Option<(String, u32)> = None;
    for ((place, number), _) in placed {
        *number = match &before {
            Some((known, number)) if known == place => number.saturating_add(1),
            _ => 0,
        };
        before = Some((place.clone(), *number));
    }
}

fn write_cursor((place, number): &(String, u32)) -> String {
    let place: String = place.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{number:x}.{place}")
}

fn read_cursor(text: &str) -> Result<(String, u32), Refusal> {
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

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let mut answer = Json(&self.items).into_response();
        if let Some(next) = self.next.and_then(|next| HeaderValue::try_from(next).ok()) {
            answer
                .headers_mut()
                .insert(HeaderName::from_static(NEXT_CURSOR), next);
        }
        answer
    }
}

/// Whether a full name is meant by a full or bare one.
fn is_named(full: &str, wanted: &str) -> bool {
    full == wanted || full.split_once('/').is_some_and(|(_, bare)| bare == wanted)
}

/// The newest first, then by text.
fn newest(at: u64, rest: &[&str]) -> String {
    format!("{:016x}\0{}", u64::MAX - at, rest.join("\0"))
}

impl Listed for Workload {
    fn place(&self) -> String {
        self.uid.clone()
    }
    fn concerns(&self, workload: &str) -> bool {
        is_named(&self.name, workload)
    }
    fn app(&self) -> Option<&str> {
        None
    }
}

impl Listed for Conversation {
    fn place(&self) -> String {
        let Self { client, server, app, proto, port, .. } = self;
        format!("{client}\0{server}\0{app}\0{proto}\0{port:05}")
    }
    fn concerns(&self, workload: &str) -> bool {
        is_named(&self.client, workload) || is_named(&self.server, workload)
    }
    fn app(&self) -> Option<&str> {
        Some(&self.app)
    }
    fn last_seen(&self) -> Option<u64> {
        Some(self.last_seen)
    }
}

impl Listed for Rule {
    fn place(&self) -> String {
        format!("{:010}", self.id)
    }
    fn concerns(&self, workload: &str) -> bool {
        self.from == workload || self.to == workload
    }
    fn concerns_group(&self, group: &str) -> bool {
        self.concerns(group)
    }
    fn app(&self) -> Option<&str> {
        Some(&self.app)
    }
    fn last_seen(&self) -> Option<u64> {
        Some(self.evidence.last_seen)
    }
}

impl Listed for Violation {
    fn place(&self) -> String {
        let port = format!("{:05}", self.port);
        let ends = [&self.client, &self.server, &self.client_ip, &self.server_ip];
        let [client, server, client_ip, server_ip] = ends.map(String::as_str);
        let rest = [client, server, client_ip, server_ip, &self.proto, &port, &self.app];
        newest(self.last_seen, &rest)
    }
    fn concerns(&self, workload: &str) -> bool {
        is_named(&self.client, workload) || is_named(&self.server, workload)
    }
    fn app(&self) -> Option<&str> {
        Some(&self.app)
    }
    fn last_seen(&self) -> Option<u64> {
        Some(self.last_seen)
    }
}

impl Listed for Threat {
    fn place(&self) -> String {
        let (id, port) = (format!("{:010}", self.id), format!("{:05}", self.server_port));
        let rest = [&self.workload, &id, &self.client_ip, &self.server_ip, &port, &self.message];
        newest(self.reported_at, &rest.map(String::as_str))
    }
    fn concerns(&self, workload: &str) -> bool {
        is_named(&self.workload, workload)
    }
    fn app(&self) -> Option<&str> {
        Some(&self.app)
    }
    fn last_seen(&self) -> Option<u64> {
        Some(self.reported_at)
    }
}

impl Listed for Flow {
    fn place(&self) -> String {
        newest(self.at, &[&self.workload, &self.client, &self.server, &self.app])
    }
    fn concerns(&self, workload: &str) -> bool {
        is_named(&self.workload, workload)
    }
    fn app(&self) -> Option<&str> {
        Some(&self.app)
    }
    fn last_seen(&self) -> Option<u64> {
        Some(self.at)
    }
}

impl Listed for ModeChange {
    fn place(&self) -> String {
        self.workload.clone()
    }
    fn concerns(&self, workload: &str) -> bool {
        is_named(&self.workload, workload)
    }
    fn app(&self) -> Option<&str> {
        None
    }
}

impl Listed for Session {
    fn place(&self) -> String {
        format!("{}\0{:010}", self.workload, self.id)
    }
    fn concerns(&self, workload: &str) -> bool {
        is_named(&self.workload, workload)
    }
    fn app(&self) -> Option<&str> {
        Some(&self.app)
    }
}

#[cfg(test)]
mod tests;
