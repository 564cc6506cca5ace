//! What the chart makes of six sets of values, and what holds for all of them.

use serde_json::Value;

use crate::helm::{chart, render, reviewed, run, sets};

#[test]
fn helm_has_nothing_to_say_against_it() {
    let Some(report) = run(&["lint", &chart()], "") else { return };
    let report: Value = serde_json::from_str(&report).unwrap();
    let messages = report["messages"].as_array().unwrap();
    let bad: Vec<_> = messages
        .iter()
        .filter(|message| message["severity"] != 1)
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn six_sets_of_values_give_what_was_reviewed() {
    let sets = sets();
    assert_eq!(sets.len(), 6);
    // Each of them twice: the same values give the same bytes.
    let texts: Vec<_> = sets
        .iter()
        .chain(&sets)
        .map(|(_, text)| text.clone())
        .collect();
    let Some(answers) = render(&texts) else { return };
    let (once, again) = answers.results.split_at(sets.len());
    assert_eq!(once, again);
    for ((name, _), answer) in sets.iter().zip(once) {
        assert!(answer["error"].is_null(), "{name}: {}", answer["error"]);
        reviewed(&format!("charts/golden/{name}.yaml"), &text(answer));
    }
}

/// All files in one text, without what the chart only passes on.
fn text(answer: &Value) -> String {
    let mut text = String::new();
    let files = answer["files"].as_object().unwrap();
    for (path, file) in files {
        let name = path.trim_start_matches("outrider/templates/");
        let lines: Vec<_> = file.as_str().unwrap().lines().map(str::trim_end).collect();
        if ["crds.yaml", "dashboards.yaml"].contains(&name)
            || lines.iter().all(|line| line.is_empty())
        {
            continue;
        }
        text += &format!("---\n# {name}\n");
        for line in lines.iter().filter(|line| !line.is_empty()) {
            text += line;
            text += "\n";
        }
    }
    let notes: Vec<_> = answer["notes"].as_str().unwrap().lines().collect();
    for line in notes {
        text += format!("# {line}").trim_end();
        text += "\n";
    }
    text
}
