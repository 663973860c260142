//! Reading GBNF.

use super::{Class, Grammar, Node, Part};
use std::collections::{BTreeMap, HashSet};
use std::iter::Peekable;
use std::str::Chars;

/// Repetitions at most, as in llama.cpp.
const MAX_TIMES: u32 = 2000;
const LAST: u32 = 0x10_FFFF;
const SURROGATES: (u32, u32) = (0xD800, 0xDFFF);

pub(super) fn parse(text: &str) -> Result<Grammar, String> {
    let mut reader = Reader {
        chars: text.chars().peekable(),
        line: 1,
        parts: Vec::new(),
        names: BTreeMap::new(),
        rules: Vec::new(),
    };
    reader.rule_number("root");
    reader.space(true);
    while reader.chars.peek().is_some() {
        reader.rule()?;
    }
    let missing = reader
        .names
        .iter()
        .find(|(_, number)| reader.rules[**number].is_none());
    if let Some((name, _)) = missing {
        return Err(format!("expected a rule `{name}`, got none"));
    }
    let rules: Vec<Node> = reader.rules.into_iter().flatten().collect();
    let is_regular = regular(&reader.parts, &rules);
    Ok(Grammar {
        parts: reader.parts,
        rules,
        is_regular,
    })
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
    parts: Vec<Part>,
    names: BTreeMap<String, usize>,
    rules: Vec<Option<Node>>,
}

impl Reader<'_> {
    fn wrong<T>(&mut self, expected: &str) -> Result<T, String> {
        let got = match self.chars.peek() {
            Some('<') | Some('!') => {
                "a token, which a Lark grammar has and GBNF here has not".to_owned()
            }
            Some(c) => format!("{c:?}"),
            None => "the end".into(),
        };
        Err(format!(
            "line {}: expected {expected}, got {got}",
            self.line
        ))
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.next();
        self.line += usize::from(c == Some('\n'));
        c
    }

    /// Passes over white space and comments; with `lines`, over line breaks too.
    fn space(&mut self, lines: bool) {
        while let Some(&c) = self.chars.peek() {
            match c {
                ' ' | '\t' => {}
                '\r' | '\n' if lines => {}
                '#' => {
                    while self.chars.peek().is_some_and(|&c| c != '\n' && c != '\r') {
                        self.next();
                    }
                    continue;
                }
                _ => return,
            }
            self.next();
        }
    }

    fn add(&mut self, part: Part) -> Node {
        self.parts.push(part);
        self.parts.len() - 1
    }

    fn rule_number(&mut self, name: &str) -> usize {
        if let Some(&number) = self.names.get(name) {
            return number;
        }
        self.names.insert(name.to_owned(), self.rules.len());
        self.rules.push(None);
        self.rules.len() - 1
    }

    fn name(&mut self) -> Result<String, String> {
        let mut name = String::new();
        while let Some(c) = self
            .chars
            .next_if(|&c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        {
            name.push(c);
        }
        if name.is_empty() {
            self.wrong("a name")
        } else {
            Ok(name)
        }
    }

    fn rule(&mut self) -> Result<(), String> {
        let name = self.name()?;
        self.space(false);
        for c in "::=".chars() {
            if self.chars.next_if_eq(&c).is_none() {
                return self.wrong("`::=`");
            }
        }
        self.space(true);
        let alternatives = self.alternatives(false)?;
        if self.chars.peek().is_some_and(|&c| c != '\n' && c != '\r') {
            return self.wrong("the end of the line");
        }
        self.space(true);
        let number = self.rule_number(&name);
        if self.rules[number].is_some() {
            return Err(format!(
                "line {}: expected one rule `{name}`, got two",
                self.line
            ));
        }
        self.rules[number] = Some(alternatives);
        Ok(())
    }

    /// Alternatives up to the end of the line, or inside of brackets.
    fn alternatives(&mut self, inside: bool) -> Result<Node, String> {
        let mut all = vec![self.sequence(inside)?];
        while self.chars.next_if_eq(&'|').is_some() {
            self.space(true);
            all.push(self.sequence(inside)?);
        }
        Ok(self.add(Part::Group(all)))
    }

    fn sequence(&mut self, inside: bool) -> Result<Vec<Node>, String> {
        let mut parts = Vec::new();
        while let Some(&c) = self.chars.peek() {
            match c {
                '"' => {
                    let text = self.literal()?;
                    let one = |c| self.add(Part::Class(vec![(c, c)]));
                    let text = text.into_iter().map(one).collect();
                    parts.push(self.add(Part::Group(vec![text])));
                }
                '[' => {
                    let class = self.class()?;
                    parts.push(self.add(Part::Class(class)));
                }
                '.' => {
                    self.next();
                    parts.push(self.add(Part::Class(without(&[]))));
                }
                '(' => {
                    self.next();
                    self.space(true);
                    let group = self.alternatives(true)?;
                    if self.chars.next_if_eq(&')').is_none() {
                        return self.wrong("`)`");
                    }
                    parts.push(group);
                }
                '*' | '+' | '?' | '{' => {
                    let (least, most) = self.times()?;
                    let Some(part) = parts.pop() else {
                        return self.wrong("something before a repetition");
                    };
                    parts.push(self.add(Part::Repeat(part, least, most)));
                }
                c if c.is_ascii_alphanumeric() || c == '-' || c == '_' => {
                    let name = self.name()?;
                    let number = self.rule_number(&name);
                    parts.push(self.add(Part::Rule(number)));
                }
                '|' | ')' | '\r' | '\n' => break,
                _ => return self.wrong("a text, a class, a name or a bracket"),
            }
            self.space(inside);
        }
        Ok(parts)
    }

    fn times(&mut self) -> Result<(u32, Option<u32>), String> {
        match self.next() {
            Some('*') => return Ok((0, None)),
            Some('+') => return Ok((1, None)),
            Some('?') => return Ok((0, Some(1))),
            _ => {}
        }
        self.space(true);
        let least = self.count()?;
        self.space(true);
        let most = match self.chars.next_if_eq(&',') {
            None => Some(least),
            Some(_) => {
                self.space(true);
                match self.chars.peek() {
                    Some('}') => None,
                    _ => Some(self.count()?),
                }
            }
        };
        self.space(true);
        if self.chars.next_if_eq(&'}').is_none() {
            return self.wrong("`}`");
        }
        match most {
            Some(most) if most < least => Err(format!(
                "line {}: expected at least {least} repetitions, got at most {most}",
                self.line
            )),
            _ => Ok((least, most)),
        }
    }

    fn count(&mut self) -> Result<u32, String> {
        let digits: String =
            std::iter::from_fn(|| self.chars.next_if(char::is_ascii_digit)).collect();
        match digits.parse() {
            Ok(count) if count <= MAX_TIMES => Ok(count),
            _ if digits.is_empty() => self.wrong("a number"),
            _ => Err(format!(
                "line {}: expected at most {MAX_TIMES} repetitions, got {digits}",
                self.line
            )),
        }
    }

    fn literal(&mut self) -> Result<Vec<u32>, String> {
        self.next();
        let mut text = Vec::new();
        while self.chars.next_if_eq(&'"').is_none() {
            text.push(self.character()?);
        }
        Ok(text)
    }

    fn class(&mut self) -> Result<Class, String> {
        self.next();
        let is_negated = self.chars.next_if_eq(&'^').is_some();
        let mut class = Vec::new();
        while self.chars.next_if_eq(&']').is_none() {
            let first = self.character()?;
            let mut last = first;
            if self.chars.peek() == Some(&'-') {
                self.next();
                // A dash at the end is one.
                match self.chars.peek() {
                    Some(']') => class.push((u32::from('-'), u32::from('-'))),
                    _ => last = self.character()?,
                }
            }
            if last < first {
                return Err(format!(
                    "line {}: expected a range from a lower to a higher character, got another",
                    self.line
                ));
            }
            class.push((first, last));
        }
        let class = if is_negated {
            without(&class)
        } else {
            without(&without(&class))
        };
        match class.is_empty() {
            true => Err(format!(
                "line {}: expected a class of at least one character, got none",
                self.line
            )),
            false => Ok(class),
        }
    }

    fn character(&mut self) -> Result<u32, String> {
        match self.next() {
            None => self.wrong("a character"),
            Some('\\') => {
                let escape = self.next();
                let digits = match escape {
                    Some('x') => 2,
                    Some('u') => 4,
                    Some('U') => 8,
                    Some('t') => return Ok(9),
                    Some('n') => return Ok(10),
                    Some('r') => return Ok(13),
                    Some(c @ ('\\' | '"' | '[' | ']')) => return Ok(u32::from(c)),
                    _ => {
                        return Err(format!(
                            "line {}: expected an escape \\x, \\u, \\U, \\t, \\r, \\n, \\\\, \\\", \\[ or \\], got another",
                            self.line
                        ));
                    }
                };
                let hex: String =
                    std::iter::from_fn(|| self.chars.next_if(char::is_ascii_hexdigit))
                        .take(digits)
                        .collect();
                match u32::from_str_radix(&hex, 16) {
                    Ok(c) if hex.len() == digits && char::from_u32(c).is_some() => Ok(c),
                    _ => Err(format!(
                        "line {}: expected {digits} hexadecimal digits of a character, got {hex:?}",
                        self.line
                    )),
                }
            }
            Some(c) => Ok(u32::from(c)),
        }
    }
}

/// All characters that are not in `class`.
pub(super) fn without(class: &[(u32, u32)]) -> Class {
    let mut all: Vec<(u32, u32)> = class.iter().copied().chain([SURROGATES]).collect();
    all.sort_unstable();
    let (mut out, mut next) = (Vec::new(), 0);
    for (first, last) in all {
        if first > next {
            out.push((next, first - 1));
        }
        next = next.max(last + 1);
    }
    if next <= LAST {
        out.push((next, LAST));
    }
    out
}

/// Which rules come to an end of characters without meeting themselves.
fn regular(parts: &[Part], rules: &[Node]) -> Vec<bool> {
    let mut uses: Vec<HashSet<usize>> = Vec::with_capacity(rules.len());
    for &rule in rules {
        let (mut used, mut nodes) = (HashSet::new(), vec![rule]);
        while let Some(node) = nodes.pop() {
            match &parts[node] {
                Part::Class(_) => {}
                Part::Rule(rule) => {
                    used.insert(*rule);
                }
                Part::Group(alternatives) => nodes.extend(alternatives.iter().flatten()),
                Part::Repeat(part, ..) => nodes.push(*part),
            }
        }
        uses.push(used);
    }
    // A rule all of whose rules are regular is.
    let mut is_regular = vec![false; rules.len()];
    loop {
        let found = (0..rules.len())
            .filter(|&i| !is_regular[i] && uses[i].iter().all(|&used| is_regular[used]));
        let found: Vec<usize> = found.collect();
        if found.is_empty() {
            return is_regular;
        }
        found.into_iter().for_each(|i| is_regular[i] = true);
    }
}
