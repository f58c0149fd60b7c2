//! How is JSON laid out? As Envoy does, one space a level, and what identifies an object first.

use serde_json::{Map, Value};

/// Members that come first, in this order.
const FIRST: [&str; 3] = ["@type", "name", "version_info"];
/// The member that comes last.
const LAST: &str = "last_updated";

/// A document with a newline at its end.
pub(super) fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, &mut out);
    out.push('\n');
    out
}

fn write(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            out.push('{');
            for (index, (name, value)) in ordered(members).into_iter().enumerate() {
                begin(index, depth, out);
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push_str(": ");
                write(value, depth + 1, out);
            }
            end(depth, out);
            out.push('}');
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('[');
            for (index, value) in items.iter().enumerate() {
                begin(index, depth, out);
                write(value, depth + 1, out);
            }
            end(depth, out);
            out.push(']');
        }
        value => out.push_str(&value.to_string()),
    }
}

fn ordered(members: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by_key(|(name, _)| match FIRST.iter().position(|first| first == name) {
        Some(position) => position,
        None if *name == LAST => FIRST.len() + 1,
        None => FIRST.len(),
    });
    members
}

fn begin(index: usize, depth: usize, out: &mut String) {
    out.push_str(if index > 0 { ",\n" } else { "\n" });
    out.extend(std::iter::repeat_n(' ', depth + 1));
}

fn end(depth: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_space_a_level_identity_first_time_last() {
        let value = serde_json::json!({
            "last_updated": "t", "cluster": {"alpha": [], "name": "a\"", "list": [1, {}]}, "version_info": "1",
            "@type": "x", "version_text": null
        });
        let expected = "{\n \"@type\": \"x\",\n \"version_info\": \"1\",\n \"cluster\": {\n  \"name\": \"a\\\"\",\n  \
                        \"alpha\": [],\n  \"list\": [\n   1,\n   {}\n  ]\n },\n \"version_text\": null,\n \
                        \"last_updated\": \"t\"\n}\n";
        assert_eq!(pretty(&value), expected);
        assert_eq!(pretty(&serde_json::json!({})), "{}\n");
    }
}
