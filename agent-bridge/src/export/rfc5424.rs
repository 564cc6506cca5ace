//! An event as one syslog message (RFC 5424), whatever its texts hold.

use super::event::{Event, Kind};

/// Name of our structured data. The enterprise number is the one for examples (RFC 5612): we have
/// none of our own.
const SD_ID: &str = "outrider@32473";
/// Most bytes of a host name (RFC 5424, section 6).
const MAX_HOST: usize = 255;

/// The message, without its frame. `facility` is 0 to 23.
pub(super) fn message(event: &Event, facility: u8) -> String {
    let priority = u16::from(facility) * 8 + u16::from(severity(event));
    let kind = event.kind.label();
    let mut text = format!(
        "<{priority}>1 {} {} outrider - {kind} [{SD_ID}",
        timestamp(event.time),
        token(&event.node, MAX_HOST)
    );
    let numbers = [
        ("rule", u64::from(event.rule)),
        ("threat", event.threat.into()),
        ("clientPort", event.client.port.into()),
        ("serverPort", event.server.port.into()),
        ("count", event.count),
        ("suppressed", event.suppressed),
    ];
    let texts = [
        ("id", &event.id),
        ("workload", &event.workload),
        ("client", &event.client.name),
        ("clientIp", &event.client.ip),
        ("server", &event.server.name),
        ("serverIp", &event.server.ip),
        ("proto", &event.proto),
        ("app", &event.app),
        ("name", &event.name),
        ("action", &event.action),
        ("severity", &event.severity),
    ];
    for (name, value) in texts.into_iter().filter(|(_, value)| !value.is_empty()) {
        write_quoted(&mut text, name, &clean(value));
    }
    for (name, value) in numbers {
        write_quoted(&mut text, name, &value.to_string());
    }
    text.push_str("] \u{feff}");
    text.push_str(&clean(&event.message));
    text
}

/// The message behind its length (RFC 6587 section 3.4.1, RFC 5425 section 4.3).
pub(super) fn frame(message: &str) -> String {
    format!("{} {message}", message.len())
}

fn severity(event: &Event) -> u8 {
    match (event.kind, event.severity.as_str()) {
        (Kind::Conversation, _) => 6,
        (_, "critical") => 2,
        (_, "high") => 3,
        (_, "medium") => 4,
        (_, "low") => 5,
        _ => 6,
    }
}

fn write_quoted(text: &mut String, name: &str, value: &str) {
    text.push(' ');
    text.push_str(name);
    text.push_str("=\"");
    for letter in value.chars() {
        if matches!(letter, '"' | '\\' | ']') {
            text.push('\\');
        }
        text.push(letter);
    }
    text.push('"');
}

/// Control characters become `<U+000A>`: they would end a line, or move the cursor of who reads it.
pub(super) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for letter in text.chars() {
        let is_line_end = matches!(letter, '\u{2028}' | '\u{2029}');
        if letter.is_control() || is_line_end {
            cleaned.push_str(&format!("<U+{:04X}>", u32::from(letter)));
        } else {
            cleaned.push(letter);
        }
    }
    cleaned
}

/// A header field: printable ASCII without spaces, `-` if nothing is left.
fn token(text: &str, most: usize) -> String {
    let kept: String = text
        .chars()
        .filter(char::is_ascii_graphic)
        .take(most)
        .collect();
    if kept.is_empty() { "-".into() } else { kept }
}

/// RFC 3339 in UTC; `-` beyond the year 9999.
fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, so that the leap day is their last; eras of 400 years.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let in_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * in_year + 2) / 153;
    let date = in_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    if year > 9999 {
        return "-".into();
    }
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::export::event::{End, example};

    /// A message as a receiver reads it: priority, header fields, parameters, text.
    #[derive(Debug)]
    pub(crate) struct Read {
        pub(crate) priority: u16,
        pub(crate) header: Vec<String>,
        pub(crate) params: Vec<(String, String)>,
        pub(crate) text: String,
    }

    /// The grammar of RFC 5424, section 6, as strict as it is written.
    pub(crate) fn parse(message: &str) -> Option<Read> {
        let rest = message.strip_prefix('<')?;
        let (priority, rest) = rest.split_once('>')?;
        let mut rest = rest.strip_prefix("1 ")?;
        let mut header = Vec::new();
        for _ in 0..5 {
            let (field, after) = rest.split_once(' ')?;
            if field.is_empty() || !field.chars().all(|letter| letter.is_ascii_graphic()) {
                return None;
            }
            header.push(field.to_owned());
            rest = after;
        }
        let rest = rest.strip_prefix('[')?.strip_prefix(SD_ID)?;
        let (params, rest) = params(rest)?;
        let text = rest.strip_prefix(" \u{feff}")?.to_owned();
        Some(Read { priority: priority.parse().ok()?, header, params, text })
    }

    fn params(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
        let mut params = Vec::new();
        loop {
            if let Some(after) = rest.strip_prefix(']') {
                return Some((params, after));
            }
            let (name, after) = rest.strip_prefix(' ')?.split_once("=\"")?;
            let (mut value, mut end, mut letters) = (String::new(), None, after.char_indices());
            while let Some((at, letter)) = letters.next() {
                match letter {
                    '\\' => value.push(letters.next()?.1),
                    '"' => {
                        end = Some(at);
                        break;
                    }
                    ']' => return None,
                    other => value.push(other),
                }
            }
            params.push((name.to_owned(), value));
            rest = after.get(end? + 1..)?;
        }
    }

    #[test]
    fn a_message_is_as_the_rfc_has_it() {
        let golden = "<131>1 2023-11-14T22:13:20Z node1 outrider - threat [outrider@32473 \
            id=\"00c0ffee00c0ffee-1\" workload=\"default/cache\" clientIp=\"10.0.0.9\" \
            serverIp=\"10.0.0.2\" app=\"HTTP\" name=\"HTTP.Request.Smuggling\" action=\"alert\" \
            severity=\"high\" rule=\"0\" threat=\"2022\" clientPort=\"4000\" serverPort=\"80\" \
            count=\"1\" suppressed=\"0\"] \u{feff}two lengths";
        assert_eq!(message(&example(), 16), golden);
        assert!(frame(golden).starts_with(&format!("{} <131>1 ", golden.len())));
    }

    #[test]
    fn dates_are_right() {
        let known = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (253_402_300_800, "-"),
            (u64::MAX / 2, "-"),
        ];
        for (seconds, text) in known {
            assert_eq!(timestamp(seconds), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_back_and_stays_one_line(
            text: String, name in "\\PC*|[\\]\"\\\\ \n\r\t=]*", node: String, time in 0..u64::from(u32::MAX),
        ) {
            let event = Event {
                message: text.clone(),
                app: name.clone(),
                workload: text.clone(),
                client: End { name: name.clone(), ip: String::new(), port: 0 },
                node,
                time,
                ..example()
            };
            let line = message(&event, 23);
            prop_assert!(!line.chars().any(char::is_control), "{line:?}");
            let read = parse(&line).expect("parses");
            prop_assert_eq!(read.text, clean(&text));
            let find = |key: &str| read.params.iter().find(|(name, _)| name == key);
            for (key, value) in [("app", &name), ("workload", &text), ("client", &name)] {
                let found = find(key).map(|(_, value)| value.clone()).unwrap_or_default();
                prop_assert_eq!(found, clean(value));
            }
            prop_assert_eq!(read.params.iter().filter(|(name, _)| name == "id").count(), 1);
            prop_assert_eq!((read.priority, read.header.len()), (23 * 8 + 3, 5));
        }

        #[test]
        fn bounded_events_fit_what_receivers_take(text: String) {
            let long = text.repeat(2000 / text.len().max(1) + 1);
            let event = Event { message: long.clone(), app: long.clone(), ..example() };
            prop_assert!(message(&event.bounded(), 16).len() < 8192);
        }
    }
}
