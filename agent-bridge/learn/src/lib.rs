//! Conversations in, groups and rules with evidence out. No I/O, no clock.
//!
//! [`Learner`] is fed with the rows that proxies report. It sums them into conversations, keeps
//! what was outside policy, learns (from, to, application, port) rules while a workload is in
//! Discover, and compiles for each workload the policy its proxy enforces.
#![forbid(unsafe_code)]

mod compile;
mod conversations;
mod directory;
mod error;
mod evidence;
mod explain;
mod gone;
mod group;
mod kept;
mod learner;
mod names;
mod peer;
mod policies;
mod policy;
mod reach;
mod replay;
mod row;
mod rules;
mod services;
mod settings;
mod tally;
mod touched;
mod violations;
mod words;
#[cfg(test)]
mod world;

pub use compile::{
    CompiledPolicy, MAX_ALL_COMPILED, MAX_COMPILED, MAX_CUT, MAX_DOORED, MAX_SAID, MIN_COMPILED,
};
pub use conversations::{
    Conversation, ConversationKey, Lent, MAX_CONVERSATIONS, MAX_NAME_BYTES, MAX_NAMES, Totals,
};
pub use directory::{Directory, MAX_ADDRESSES, MAX_REMOTE, MAX_WORKLOADS, Workload};
pub use error::LearnError;
pub use evidence::{Evidence, FlowSample, MAX_CLIENTS, MAX_SAMPLES};
pub use explain::{Explanation, Judgement, Place, Question};
pub use gone::MAX_GONE;
pub use group::{Endpoint, Group};
pub use learner::{Change, Learner, Record};
pub use names::{MAX_ALL_NAMED, MAX_NAMED, NAME_LIFE, Names};
pub use peer::Reached;
pub use policy::{
    ClusterChange, Ends, FIRST_LEARNED, FIRST_POLICY, MAX_MEMBERS, MAX_POLICY_RULES,
    MAX_RULE_PARTS, MAX_SET_PARTS, MAX_SETS, MAX_TEXT, Policy, PolicyRule, Ports, SetChange,
};
pub use replay::{Replay, Replayed, Supposed};
pub use row::{Row, Sample};
pub use rules::{
    Candidate, FIRST_RULE, LAST_RULE, LearnKey, MAX_CANDIDATES, MAX_GROUP_RULES, MAX_RULES,
    MIN_GROUP_RULES, Rule,
};
pub use services::{Backends, MAX_BACKENDS, MAX_DOORS, MAX_SERVICE_PARTS, MAX_SERVICES, Service};
pub use settings::Settings;
pub use tally::Tally;
pub use violations::{MAX_VIOLATIONS, MAX_WORKLOAD_VIOLATIONS, Violation, ViolationKey};
pub use words::MAX_WORDS;
