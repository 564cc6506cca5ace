//! Conversations in, groups and rules with evidence out. No I/O, no clock.
//!
//! [`Learner`] is fed with the rows that proxies report. It sums them into conversations, keeps
//! what was outside policy, learns (from, to, application, port) rules while a workload is in
//! Discover, and compiles for each workload the policy its proxy enforces.
#![forbid(unsafe_code)]

mod compile;
mod conversations;
mod directory;
mod evidence;
mod explain;
mod gone;
mod kept;
mod learner;
mod names;
mod policies;
mod row;
mod rules;
mod settings;
mod tally;
mod violations;
mod words;
#[cfg(test)]
mod world;

pub use compile::{CompiledPolicy, MAX_ALL_COMPILED, MAX_COMPILED, MIN_COMPILED};
pub use conversations::{Conversation, ConversationKey, MAX_CONVERSATIONS, MAX_NAMES, Totals};
pub use directory::{
    Directory, Endpoint, Group, LearnError, MAX_ADDRESSES, MAX_WORKLOADS, Workload,
};
pub use evidence::{Evidence, FlowSample, MAX_CLIENTS, MAX_SAMPLES};
pub use explain::{Explanation, Judgement, Place, Question};
pub use gone::MAX_GONE;
pub use learner::{Change, Learner, Record};
pub use names::{MAX_NAMED, NAME_LIFE, Names};
pub use row::{Row, Sample};
pub use rules::{
    Candidate, FIRST_RULE, LAST_RULE, LearnKey, MAX_CANDIDATES, MAX_GROUP_RULES, MAX_RULES,
    MIN_GROUP_RULES, Rule,
};
pub use settings::Settings;
pub use tally::Tally;
pub use violations::{MAX_VIOLATIONS, MAX_WORKLOAD_VIOLATIONS, Violation, ViolationKey};
pub use words::MAX_WORDS;
