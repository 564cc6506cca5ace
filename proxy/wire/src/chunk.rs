//! Long requests: split into chunks, and put together again.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use outrider_model::MacAddr;

use crate::{
    ChunkFlags, WireError,
    error::within,
    limits::{
        DLP_PER_CHUNK, MAX_DLP_ENTRIES, MAX_PENDING_SEQUENCES, MAX_RULES, MAX_SUBNETS,
        RULES_PER_CHUNK, SPLIT_ABOVE, SUBNETS_PER_CHUNK,
    },
    request::{BuildDlp, CfgDlp, Policy, Request, Subnets},
};

/// How far into its two lists a request has been sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Position {
    /// Entries of the first list: rules, subnets, DLP.
    pub first: usize,
    /// Entries of the second list: their IPv6 kin, or WAF.
    pub second: usize,
}

impl Position {
    fn total(self) -> usize {
        self.first.saturating_add(self.second)
    }

    /// `count` entries on, the first list first, not beyond `end`.
    fn advance(self, count: usize, end: Self) -> Self {
        let first = self.first.saturating_add(count).min(end.first);
        let left = count.saturating_sub(first.saturating_sub(self.first));
        Self { first, second: self.second.saturating_add(left).min(end.second) }
    }

    fn entries_until(self, to: Self) -> usize {
        to.total().saturating_sub(self.total())
    }
}

/// A request that may be long: up to two lists, and members that every chunk repeats.
pub trait Chunked: Sized {
    /// What its entries are called.
    const ENTRIES: &'static str;
    /// Entries per datagram at first.
    const AT_FIRST: usize;
    /// Entries of an assembled request.
    const CAP: usize;

    /// Which chunk this is.
    fn chunk(&self) -> ChunkFlags;

    /// The end of its lists.
    fn end(&self) -> Position;

    /// Where a chunk of `count` entries that starts at `from` ends.
    fn advance(&self, from: Position, count: usize) -> Position {
        from.advance(count, self.end())
    }

    /// The chunk between two positions.
    #[must_use]
    fn part(&self, from: Position, to: Position, chunk: ChunkFlags) -> Self;

    /// Appends the lists of the next chunk; members that the last chunk decides are replaced.
    fn append(&mut self, next: Self);

    /// For whom: chunks of sequences for others do not mix with these.
    fn addressees(&self) -> &[MacAddr] {
        &[]
    }
}

/// Splits a request into datagrams as the agent does. `request` makes a request of each chunk.
/// Chunks carry no numbers: if one can't be sent, those after it must not be sent either, or the
/// peer would take a request with a hole for the whole.
///
/// # Errors
/// [`WireError::TooLong`] if a single entry does not fit a datagram: nothing should be sent then.
pub fn split<C: Chunked>(
    whole: &C,
    request: impl Fn(C) -> Request,
) -> Result<Vec<Vec<u8>>, WireError> {
    let (end, mut from, mut step) = (whole.end(), Position::default(), C::AT_FIRST);
    let mut datagrams = Vec::new();
    loop {
        let to = whole.advance(from, step);
        let chunk = ChunkFlags::NONE
            .with(ChunkFlags::START, from == Position::default())
            .with(ChunkFlags::END, to == end);
        let json = request(whole.part(from, to, chunk)).json()?;
        if json.len() > SPLIT_ABOVE {
            step = fewer(step, json.len(), from.entries_until(to))
                .ok_or(WireError::TooLong(json.len()))?;
            continue;
        }
        datagrams.push(json);
        if to == end {
            return Ok(datagrams);
        }
        from = to;
    }
}

/// How many entries to try after `entries` took `size` bytes; `None` if there is no fewer.
fn fewer(step: usize, size: usize, entries: usize) -> Option<usize> {
    let entry_size = size.checked_div(entries)?.saturating_add(1);
    let fits = SPLIT_ABOVE.checked_div(entry_size)?;
    let fits = if fits == step { fits.saturating_sub(1) } else { fits };
    (fits > 0).then_some(fits)
}

/// Puts chunks of one key together. Nothing takes effect before the last one.
#[derive(Clone, Debug)]
pub struct Assembler<C> {
    pending: VecDeque<C>,
    discarded: u64,
}

impl<C> Default for Assembler<C> {
    fn default() -> Self {
        Self { pending: VecDeque::new(), discarded: 0 }
    }
}

impl<C: Chunked> Assembler<C> {
    /// Takes the next chunk; gives the whole request once it is complete.
    ///
    /// # Errors
    /// [`WireError::NoStart`] for a chunk that continues nothing, [`WireError::TooMany`] above the
    /// cap: the sequence is discarded, and the rest of it will find no start.
    pub fn push(&mut self, chunk: C) -> Result<Option<C>, WireError> {
        let flags = chunk.chunk();
        let earlier = self.take(&chunk);
        let whole = if flags.contains(ChunkFlags::START) {
            self.discard(earlier.is_some());
            chunk
        } else {
            let mut whole = earlier.ok_or(WireError::NoStart)?;
            whole.append(chunk);
            whole
        };
        within(C::ENTRIES, whole.end().total(), C::CAP)
            .inspect_err(|_| self.discarded = self.discarded.saturating_add(1))?;
        if flags.contains(ChunkFlags::END) {
            return Ok(Some(whole));
        }
        self.pending.push_back(whole);
        if self.pending.len() > MAX_PENDING_SEQUENCES {
            let oldest = self.pending.pop_front();
            self.discard(oldest.is_some());
        }
        Ok(None)
    }

    /// Forgets every unfinished sequence: what is left of them will find no start. To be called when
    /// a chunk was lost or refused before it came here, so that a request with a hole never takes
    /// effect. Says whether there was one.
    pub fn abandon(&mut self) -> bool {
        let lost = u64::try_from(self.pending.len()).unwrap_or(u64::MAX);
        self.discarded = self.discarded.saturating_add(lost);
        self.pending.clear();
        lost > 0
    }

    /// How many sequences were begun and never finished.
    #[must_use]
    pub fn discarded(&self) -> u64 {
        self.discarded
    }

    fn take(&mut self, chunk: &C) -> Option<C> {
        let same = |pending: &C| pending.addressees() == chunk.addressees();
        let found = self.pending.iter().position(same)?;
        self.pending.remove(found)
    }

    fn discard(&mut self, one: bool) {
        self.discarded = self.discarded.saturating_add(u64::from(one));
    }
}

impl Chunked for Policy {
    const ENTRIES: &'static str = "rules";
    const AT_FIRST: usize = RULES_PER_CHUNK;
    const CAP: usize = MAX_RULES;

    fn chunk(&self) -> ChunkFlags {
        self.chunk
    }

    fn end(&self) -> Position {
        Position { first: self.rules.len(), second: self.rules6.len() }
    }

    fn part(&self, from: Position, to: Position, chunk: ChunkFlags) -> Self {
        Self {
            chunk,
            rules: self.rules.part(from.first, to.first),
            rules6: part(&self.rules6, from.second, to.second),
            macs: self.macs.clone(),
            ..*self
        }
    }

    fn append(&mut self, next: Self) {
        self.rules.append(next.rules);
        self.rules6.extend(next.rules6);
        self.chunk = ChunkFlags::WHOLE;
    }

    fn addressees(&self) -> &[MacAddr] {
        &self.macs
    }
}

impl<S: Clone> Chunked for Subnets<S> {
    const ENTRIES: &'static str = "subnets";
    const AT_FIRST: usize = SUBNETS_PER_CHUNK;
    const CAP: usize = MAX_SUBNETS;

    fn chunk(&self) -> ChunkFlags {
        self.chunk
    }

    fn end(&self) -> Position {
        Position { first: self.subnets.len(), second: self.subnets6.len() }
    }

    fn part(&self, from: Position, to: Position, chunk: ChunkFlags) -> Self {
        Self {
            chunk,
            subnets: self.subnets.part(from.first, to.first),
            subnets6: part(&self.subnets6, from.second, to.second),
        }
    }

    fn append(&mut self, next: Self) {
        self.subnets.append(next.subnets);
        self.subnets6.extend(next.subnets6);
        self.chunk = ChunkFlags::WHOLE;
    }
}

impl Chunked for CfgDlp {
    const ENTRIES: &'static str = "sensor choices";
    const AT_FIRST: usize = DLP_PER_CHUNK;
    const CAP: usize = MAX_DLP_ENTRIES;

    fn chunk(&self) -> ChunkFlags {
        self.chunk
    }

    fn end(&self) -> Position {
        Position { first: self.dlp_rule_names.len(), second: self.waf_rule_names.len() }
    }

    /// Half DLP, the rest WAF: few DLP entries leave more room for WAF, but not the other way.
    fn advance(&self, from: Position, count: usize) -> Position {
        let end = self.end();
        let half = count.checked_div(2).unwrap_or_default();
        let first = from.first.saturating_add(half).min(end.first);
        let left = count.saturating_sub(first.saturating_sub(from.first));
        Position { first, second: from.second.saturating_add(left).min(end.second) }
    }

    fn part(&self, from: Position, to: Position, chunk: ChunkFlags) -> Self {
        Self {
            chunk,
            dlp_rule_names: self.dlp_rule_names.part(from.first, to.first),
            waf_rule_names: self.waf_rule_names.part(from.second, to.second),
            ..self.clone()
        }
    }

    fn append(&mut self, next: Self) {
        self.dlp_rule_names.append(next.dlp_rule_names);
        self.waf_rule_names.append(next.waf_rule_names);
        self.chunk = ChunkFlags::WHOLE;
    }

    fn addressees(&self) -> &[MacAddr] {
        &self.macs
    }
}

impl Chunked for BuildDlp {
    const ENTRIES: &'static str = "sensor rules";
    const AT_FIRST: usize = DLP_PER_CHUNK;
    const CAP: usize = MAX_DLP_ENTRIES;

    fn chunk(&self) -> ChunkFlags {
        self.chunk
    }

    fn end(&self) -> Position {
        Position { first: self.dlp_rules.len(), second: 0 }
    }

    fn part(&self, from: Position, to: Position, chunk: ChunkFlags) -> Self {
        Self { chunk, dlp_rules: self.dlp_rules.part(from.first, to.first), ..self.clone() }
    }

    fn append(&mut self, next: Self) {
        self.dlp_rules.append(next.dlp_rules);
        self.chunk = ChunkFlags::WHOLE;
    }

    fn addressees(&self) -> &[MacAddr] {
        &self.macs
    }
}

fn part<T: Clone>(list: &[T], from: usize, to: usize) -> Vec<T> {
    list.get(from..to).unwrap_or_default().to_vec()
}
