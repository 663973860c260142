//! The little language the phrasings are written in.
//!
//! `(a|b|)` is a choice, `[a]` is `(a|)`, `<key:kind>` is a slot filled by a value of that kind (`<key>` where kind and key are one),
//! `<key=constant>` gives an argument a value without a word for it, and a leading `~` marks a whole sentence, which takes
//! no "can you" before it.

use dram_files::Rng;

#[derive(Debug, Clone)]
pub(crate) enum Node {
    Text(&'static str),
    Choice(Vec<Vec<Node>>),
    Slot {
        key: &'static str,
        kind: &'static str,
    },
    Constant {
        key: &'static str,
        value: &'static str,
    },
}

/// One phrasing.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    /// "can you …" may stand before it.
    pub(crate) imperative: bool,
    pub(crate) nodes: Vec<Node>,
}

impl Template {
    /// Parses the notation; mistakes in it are programming errors, found by the test that parses every template.
    pub(crate) fn parse(source: &'static str) -> Self {
        let (imperative, body) = match source.strip_prefix('~') {
            Some(rest) => (false, rest),
            None => (true, source),
        };
        let mut rest = body;
        let mut alternatives = sequence(&mut rest, source);
        assert!(
            rest.is_empty() && alternatives.len() == 1,
            "unbalanced template: {source}"
        );
        Template {
            imperative,
            nodes: alternatives.remove(0),
        }
    }

    /// Chooses among the alternatives; slots and constants are handed to `slot`, words to `word`.
    pub(crate) fn walk(&self, rng: &mut Rng, visit: &mut dyn FnMut(&mut Rng, &Node)) {
        walk(&self.nodes, rng, visit);
    }

    /// Every piece of plain text in it, whichever alternative it is in.
    pub(crate) fn texts(&self) -> Vec<&'static str> {
        fn collect(nodes: &[Node], into: &mut Vec<&'static str>) {
            for node in nodes {
                match node {
                    Node::Text(text) => into.push(text),
                    Node::Choice(options) => options.iter().for_each(|o| collect(o, into)),
                    Node::Slot { .. } | Node::Constant { .. } => {}
                }
            }
        }
        let mut texts = Vec::new();
        collect(&self.nodes, &mut texts);
        texts
    }

    /// Every way through the alternatives, with slots as `<key>`.
    pub(crate) fn expansions(&self) -> Vec<String> {
        expand(&self.nodes)
            .into_iter()
            .map(|s| s.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    }
}

fn walk(nodes: &[Node], rng: &mut Rng, visit: &mut dyn FnMut(&mut Rng, &Node)) {
    for node in nodes {
        match node {
            Node::Choice(options) => {
                let option = rng.below(options.len());
                walk(&options[option], rng, visit);
            }
            other => visit(rng, other),
        }
    }
}

/// Alternatives up to an unmatched closing bracket or the end.
fn sequence(rest: &mut &'static str, source: &str) -> Vec<Vec<Node>> {
    let mut alternatives = vec![Vec::new()];
    while let Some(at) = rest.find(['(', '[', '<', '|', ')', ']']) {
        let last = alternatives.len() - 1;
        if at > 0 {
            alternatives[last].push(Node::Text(&rest[..at]));
        }
        let mark = rest.as_bytes()[at];
        match mark {
            b')' | b']' => {
                *rest = &rest[at..];
                return alternatives;
            }
            b'|' => {
                *rest = &rest[at + 1..];
                alternatives.push(Vec::new());
            }
            b'<' => {
                let end = rest
                    .find('>')
                    .unwrap_or_else(|| panic!("open slot: {source}"));
                let inside = &rest[at + 1..end];
                alternatives[last].push(if let Some((key, value)) = inside.split_once('=') {
                    Node::Constant { key, value }
                } else {
                    let (key, kind) = inside.split_once(':').unwrap_or((inside, inside));
                    Node::Slot { key, kind }
                });
                *rest = &rest[end + 1..];
            }
            _ => {
                *rest = &rest[at + 1..];
                let mut inner = sequence(rest, source);
                let closing = if mark == b'(' { ')' } else { ']' };
                *rest = rest
                    .strip_prefix(closing)
                    .unwrap_or_else(|| panic!("open bracket: {source}"));
                if mark == b'[' {
                    inner.push(Vec::new());
                }
                alternatives[last].push(Node::Choice(inner));
            }
        }
    }
    if !rest.is_empty() {
        let last = alternatives.len() - 1;
        alternatives[last].push(Node::Text(rest));
        *rest = "";
    }
    alternatives
}

fn expand(nodes: &[Node]) -> Vec<String> {
    let mut out = vec![String::new()];
    for node in nodes {
        let tails: Vec<String> = match node {
            Node::Text(t) => vec![(*t).into()],
            Node::Slot { key, .. } => vec![format!("<{key}>")],
            Node::Constant { .. } => vec![String::new()],
            Node::Choice(options) => options.iter().flat_map(|o| expand(o)).collect(),
        };
        out = out
            .iter()
            .flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}")))
            .collect();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notation() {
        let t = Template::parse("~(set|start [up]) a <n:num> timer<m=x>");
        assert!(!t.imperative);
        let mut all = t.expansions();
        all.sort();
        assert_eq!(
            all,
            [
                "set a <n> timer",
                "start a <n> timer",
                "start up a <n> timer"
            ]
        );
    }
}
