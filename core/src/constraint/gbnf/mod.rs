//! Grammars in GBNF, the form of llama.cpp, as Lark grammars of the engine.
//!
//! GBNF knows characters only; the engine splits a text into terminals, each as long as possible, and parses these. A grammar without recursion becomes one
//! terminal, which means the same. In others, parts without recursion become terminals where no longer one can begin as they end (see [`terminals`]);
//! elsewhere each character is one.

mod parse;
mod terminals;

use parse::parse;
use std::fmt::Write as _;
use terminals::Terminal;

/// Inclusive ranges of code points, in order, apart from each other.
type Class = Vec<(u32, u32)>;

/// A part of a rule, by its number.
type Node = usize;

enum Part {
    Class(Class),
    Rule(usize),
    /// Alternatives of sequences.
    Group(Vec<Vec<Node>>),
    Repeat(Node, u32, Option<u32>),
}

struct Grammar {
    parts: Vec<Part>,
    /// The group that a rule is.
    rules: Vec<Node>,
    /// Whether a rule is made of characters alone, without recursion.
    is_regular: Vec<bool>,
}

/// # Errors
/// Where it is no GBNF, or has tokens.
pub(super) fn to_lark(text: &str) -> Result<String, String> {
    let grammar = parse(text)?;
    let mut out = String::new();
    if grammar.is_regular[0] {
        out.push_str("start: R0\n");
        for (i, &rule) in grammar
            .rules
            .iter()
            .enumerate()
            .filter(|(i, _)| grammar.is_regular[*i])
        {
            let _ = writeln!(out, "R{i}: {}", grammar.terminal(rule));
        }
        return Ok(out);
    }
    let terminals = terminals::choose(&grammar);
    out.push_str("start: r0\n");
    for (i, &rule) in grammar.rules.iter().enumerate() {
        let _ = writeln!(out, "r{i}: {}", grammar.rule(rule, &terminals));
    }
    for (i, &rule) in grammar
        .rules
        .iter()
        .enumerate()
        .filter(|(i, _)| grammar.is_regular[*i])
    {
        let _ = writeln!(out, "R{i}: {}", grammar.terminal(rule));
    }
    for terminal in &terminals {
        let text = grammar.terminal(terminal.node);
        let _ = match terminal.is_nullable() {
            true => writeln!(out, "T{}: ({text}) & /(.|\\n)+/", terminal.node),
            false => writeln!(out, "T{}: {text}", terminal.node),
        };
    }
    Ok(out)
}

impl Grammar {
    fn is_regular(&self, node: Node) -> bool {
        match &self.parts[node] {
            Part::Class(_) => true,
            Part::Rule(rule) => self.is_regular[*rule],
            Part::Group(alternatives) => alternatives
                .iter()
                .flatten()
                .all(|&part| self.is_regular(part)),
            Part::Repeat(part, ..) => self.is_regular(*part),
        }
    }

    /// A part as a terminal of Lark is written.
    fn terminal(&self, node: Node) -> String {
        match &self.parts[node] {
            Part::Class(class) => class_text(class),
            Part::Rule(rule) => format!("R{rule}"),
            Part::Group(alternatives) => {
                let sequence = |parts: &Vec<Node>| {
                    parts
                        .iter()
                        .map(|&part| self.terminal(part))
                        .collect::<Vec<_>>()
                        .join(" ")
                };
                alternatives_text(alternatives.iter().map(sequence))
            }
            Part::Repeat(part, least, most) => {
                format!("({}){}", self.terminal(*part), repetition(*least, *most))
            }
        }
    }

    /// A part as a rule of Lark is written: parts that are terminals by their names.
    fn rule(&self, node: Node, terminals: &[Terminal]) -> String {
        if let Some(terminal) = terminals.iter().find(|terminal| terminal.node == node) {
            let optional = if terminal.is_nullable() { "?" } else { "" };
            return format!("T{node}{optional}");
        }
        match &self.parts[node] {
            Part::Class(class) => class_text(class),
            Part::Rule(rule) => format!("r{rule}"),
            Part::Group(alternatives) => {
                let one = |&part: &Node| self.rule(part, terminals);
                let sequence =
                    |parts: &Vec<Node>| parts.iter().map(one).collect::<Vec<_>>().join(" ");
                alternatives_text(alternatives.iter().map(sequence))
            }
            Part::Repeat(part, least, most) => format!(
                "({}){}",
                self.rule(*part, terminals),
                repetition(*least, *most)
            ),
        }
    }
}

fn alternatives_text(alternatives: impl Iterator<Item = String>) -> String {
    let full = |text: String| {
        if text.is_empty() {
            "\"\"".to_owned()
        } else {
            text
        }
    };
    format!(
        "({})",
        alternatives.map(full).collect::<Vec<_>>().join(" | ")
    )
}

fn repetition(least: u32, most: Option<u32>) -> String {
    match (least, most) {
        (0, None) => "*".into(),
        (1, None) => "+".into(),
        (0, Some(1)) => "?".into(),
        (least, None) => format!("{{{least},}}"),
        (least, Some(most)) => format!("{{{least},{most}}}"),
    }
}

/// One character of a class, as a regular expression.
fn class_text(class: &[(u32, u32)]) -> String {
    let mut out = String::from("/[");
    for (first, last) in class {
        let _ = write!(out, "\\x{{{first:x}}}-\\x{{{last:x}}}");
    }
    out.push_str("]/");
    out
}

#[cfg(test)]
mod tests;
