//! The one event, and its JSON.

use serde::{Deserialize, Serialize};

/// Most bytes of a message.
pub(crate) const MAX_MESSAGE: usize = 512;
/// Most bytes of any other text.
pub(crate) const MAX_TEXT: usize = 256;

/// What an event is about.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A detector's finding.
    Threat,
    /// Traffic outside policy.
    Violation,
    /// Flows, summed.
    Conversation,
}

impl Kind {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Threat, Self::Violation, Self::Conversation];

    /// The word for it, a closed label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Threat => "threat",
            Self::Violation => "violation",
            Self::Conversation => "conversation",
        }
    }
}

/// One end of what an event is about.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct End {
    /// Workload, `external`, an address; empty where only the address is known.
    pub name: String,
    /// Its address; empty where flows from many are summed.
    pub ip: String,
    /// Its port; 0 where it is of no meaning.
    pub port: u16,
}

/// What leaves the node. Members may be added in later versions.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Event {
    /// Unique among all nodes, and the same however often the event is sent.
    pub id: String,
    /// What it is about.
    pub kind: Kind,
    /// When it was seen last, Unix seconds.
    pub time: u64,
    /// Host name of the node.
    pub node: String,
    /// Workload whose proxy saw it, `<namespace>/<name>`.
    pub workload: String,
    /// Who opened the flow.
    pub client: End,
    /// Where it went.
    pub server: End,
    /// IP protocol, `tcp`; empty where it is not known.
    pub proto: String,
    /// Application.
    pub app: String,
    /// Policy rule that decided, 0 for the default action and for threats.
    pub rule: u32,
    /// Number of the threat, 0 for other kinds.
    pub threat: u32,
    /// Name of the threat, empty for other kinds.
    pub name: String,
    /// What was done: `alert` or `block`; `violate` or `deny`; a conversation's last action.
    pub action: String,
    /// `info`, `low`, `medium`, `high`, `critical`.
    pub severity: String,
    /// What exactly was found, for people.
    pub message: String,
    /// Findings (conversations: sessions) this stands for.
    pub count: u64,
    /// Findings of the same workload, kind and threat or rule that were left out before this one.
    pub suppressed: u64,
}

impl Event {
    /// Cuts texts to their caps.
    pub(crate) fn bounded(mut self) -> Self {
        let Self { node, workload, client, server, proto, app, name, action, severity, .. } =
            &mut self;
        let ends = [&mut client.name, &mut client.ip, &mut server.name, &mut server.ip];
        for text in [node, workload, proto, app, name, action, severity]
            .into_iter()
            .chain(ends)
        {
            cut(text, MAX_TEXT);
        }
        cut(&mut self.message, MAX_MESSAGE);
        self
    }
}

fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        let at = (0..=most)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or_default();
        text.truncate(at);
    }
}

#[cfg(test)]
pub(crate) fn example() -> Event {
    Event {
        id: "00c0ffee00c0ffee-1".into(),
        kind: Kind::Threat,
        time: 1_700_000_000,
        node: "node1".into(),
        workload: "default/cache".into(),
        client: End { name: String::new(), ip: "10.0.0.9".into(), port: 4000 },
        server: End { name: String::new(), ip: "10.0.0.2".into(), port: 80 },
        proto: String::new(),
        app: "HTTP".into(),
        rule: 0,
        threat: 2022,
        name: "HTTP.Request.Smuggling".into(),
        action: "alert".into(),
        severity: "high".into(),
        message: "two lengths".into(),
        count: 1,
        suppressed: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_form_is_stable() {
        let text = serde_json::to_string(&example()).unwrap();
        let golden = concat!(
            r#"{"id":"00c0ffee00c0ffee-1","kind":"threat","time":1700000000,"node":"node1","#,
            r#""workload":"default/cache","client":{"name":"","ip":"10.0.0.9","port":4000},"#,
            r#""server":{"name":"","ip":"10.0.0.2","port":80},"proto":"","app":"HTTP","rule":0,"#,
            r#""threat":2022,"name":"HTTP.Request.Smuggling","action":"alert","severity":"high","#,
            r#""message":"two lengths","count":1,"suppressed":0}"#,
        );
        assert_eq!(text, golden);
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), example());
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let long = Event { message: "ä".repeat(1000), app: "x".repeat(1000), ..example() };
        let cut = long.bounded();
        assert_eq!((cut.message.len(), cut.app.len()), (MAX_MESSAGE, MAX_TEXT));
    }
}
