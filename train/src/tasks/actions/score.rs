//! The task's own metric.

use std::collections::BTreeMap;

use serde_json::Value;

/// Whether `generated` is the expected call. Both are parsed and compared as JSON, so spaces and the order of keys do not matter;
/// what is not valid JSON earns nothing. A trailing end token in either is ignored.
pub fn exact_match(expected: &str, generated: &str) -> bool {
    let parse =
        |text: &str| serde_json::from_str::<Value>(text.trim().trim_end_matches(super::END)).ok();
    matches!((parse(expected), parse(generated)), (Some(a), Some(b)) if a == b)
}

/// Exact matches, in all and per function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Score {
    /// function → (right, asked)
    pub per_function: BTreeMap<String, (usize, usize)>,
    /// Answers with the right function but other arguments.
    pub right_name: usize,
    /// Answers that are not JSON.
    pub invalid: usize,
}

impl Score {
    /// Counts one answer; says whether it was right.
    pub fn add(&mut self, expected: &super::Sample, generated: &str) -> bool {
        let right = exact_match(&expected.call, generated);
        let entry = self
            .per_function
            .entry(expected.function.to_string())
            .or_default();
        entry.1 += 1;
        entry.0 += usize::from(right);
        match serde_json::from_str::<Value>(generated.trim().trim_end_matches(super::END)) {
            Err(_) => self.invalid += 1,
            Ok(value) if !right && value["name"] == expected.function => self.right_name += 1,
            Ok(_) => {}
        }
        right
    }

    pub fn right(&self) -> usize {
        self.per_function.values().map(|v| v.0).sum()
    }

    pub fn asked(&self) -> usize {
        self.per_function.values().map(|v| v.1).sum()
    }

    /// Exact matches over requests, 0..=1; 0 when nothing was asked.
    pub fn rate(&self) -> f64 {
        self.right() as f64 / self.asked().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_json_matches() {
        let call = r#"{"name":"set_wifi","arguments":{"state":"on"}}"#;
        assert!(exact_match(call, call));
        assert!(exact_match(
            call,
            r#" {"arguments": {"state":"on"}, "name":"set_wifi"}<|end|>"#
        ));
        assert!(!exact_match(
            call,
            r#"{"name":"set_wifi","arguments":{"state":"off"}}"#
        ));
        assert!(!exact_match(call, &call[..call.len() - 1]));
        assert!(!exact_match(call, ""));
        assert!(!exact_match("", ""));
    }
}
