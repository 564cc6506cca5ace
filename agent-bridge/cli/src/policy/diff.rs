//! Which rules differ.

use outrider_api::code::{self, Change, Difference};
use serde_json::Value;

use super::source::Source;
use crate::{Asked, client::Failure, show::Output};

/// Prints what differs; it is a failure if anything does.
pub(super) async fn run(
    asked: &Asked,
    output: &mut Output,
    before: &Source,
    after: &Source,
) -> Result<(), Failure> {
    // What can't be compared is no difference: 2 and nothing else says that.
    let cannot = |failure: Failure| Failure::Usage(failure.to_string());
    if before == after && *before == Source::Input {
        return Err(Failure::Usage("standard input can be read once: name a file".into()));
    }
    let first = before.objects(asked).await.map_err(cannot)?;
    let second = after.objects(asked).await.map_err(cannot)?;
    let found = code::diff(&first, &second);
    print(output, &found)?;
    match found.len() {
        0 => Ok(()),
        1 => Err(Failure::Refused("1 rule, group or mode differs".into())),
        many => Err(Failure::Refused(format!("{many} rules, groups or modes differ"))),
    }
}

/// Prints differences: objects for programs, lines for people.
pub(super) fn print(output: &mut Output, found: &[Difference]) -> Result<(), Failure> {
    if output.is_json() {
        return found.iter().try_for_each(|one| output.object(one));
    }
    let text: String = found.iter().map(lines).collect();
    output.text(&text)
}

fn lines(one: &Difference) -> String {
    let says = |sign: &str, says: &std::collections::BTreeMap<String, Value>| -> String {
        says.iter()
            .map(|(field, value)| format!("    {sign} {field}: {}\n", short(value)))
            .collect()
    };
    let (sign, before, after) = match one.change {
        Change::Added => ('+', String::new(), says("+", &one.after)),
        Change::Removed => ('-', says("-", &one.before), String::new()),
        Change::Changed => ('~', says("-", &one.before), says("+", &one.after)),
    };
    format!("{sign} {}\n{before}{after}", crate::human::plain(&one.what))
}

/// A value on one line, text without quotes.
fn short(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(short).collect();
            items.join(", ")
        }
        other => other.to_string(),
    };
    crate::human::plain(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_says_what_was_and_what_is() {
        let read = |text: &str| code::read(text).unwrap();
        let rule = |ports: &str| {
            let rule = format!(
                "{{kind: NetworkRule, metadata: {{name: web, namespace: shop}}, spec: {{egress: [{{name: a, action: Allow, ports: [{ports}]}}]}}}}"
            );
            read(&rule)
        };
        let found = code::diff(&rule("tcp/80"), &rule("tcp/80, tcp/81"));
        let expected =
            "~ NetworkRule/shop/web egress a\n    - ports: tcp/80\n    + ports: tcp/80, tcp/81\n";
        assert_eq!(found.iter().map(lines).collect::<String>(), expected);
        let found = code::diff(&[], &rule("any"));
        let expected = "+ NetworkRule/shop/web egress a\n    + action: Allow\n    + priority: 50\n    + target: {}\n";
        assert_eq!(found.iter().map(lines).collect::<String>(), expected);
    }
}
