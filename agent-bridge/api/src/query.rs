//! What a list may be narrowed to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most elements of a page, and how many it has if nothing else is asked for.
pub const MAX_LIMIT: u32 = 10_000;

/// Header of an answer to which there is more: the `cursor` of the next page.
pub const NEXT_CURSOR: &str = "outrider-next-cursor";

/// Parameters of every list. An answer is a page: it may have fewer elements than were asked for
/// though there are more, if they are large.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Most elements to answer, 1 to 10000, which is the default; the header `outrider-next-cursor`
    /// says where to go on.
    pub limit: Option<u32>,
    /// Goes on behind the page whose `outrider-next-cursor` this was.
    pub cursor: Option<String>,
    /// Only what this workload took part in: `<namespace>/<name>`, or the bare name.
    pub workload: Option<String>,
    /// Only this application, in any case of letters.
    pub app: Option<String>,
    /// Only what was seen at that Unix second or later, in lists whose elements have a time.
    pub since: Option<u64>,
}

/// Parameters of the stream of events.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Kinds with commas between them: `flow`, `violation`, `threat`, `mode`; all if left out.
    pub kinds: Option<String>,
    /// Only what this workload took part in: `<namespace>/<name>`, or the bare name.
    pub workload: Option<String>,
    /// Only this application, in any case of letters; modes have none.
    pub app: Option<String>,
}
