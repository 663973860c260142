//! Which parts of a grammar can be terminals.
//!
//! The engine ends a terminal where it can go on with none. A terminal A is safe beside B if no text of A, followed by a character that may follow A, is the
//! beginning of a text of B: then what ends A also ends B. Where that does not hold, B is split into its parts, down to single characters, whose texts
//! all have one length. Positions of a regular expression and what follows them are Glushkov's (1961).

use super::parse::without;
use super::{Class, Grammar, Node, Part};
use std::collections::{HashMap, HashSet};

pub(super) struct Terminal {
    pub(super) node: Node,
    ends: Ends,
    /// The character at each position.
    classes: Vec<Class>,
    /// What may come after each position.
    next: Vec<Vec<usize>>,
}

/// Positions of a terminal at most; a larger part is split.
const MAX_POSITIONS: usize = 600;
/// Pairs of positions that are looked at for one grammar at most; beyond it all is split.
const MAX_PAIRS: usize = 5_000_000;

/// The terminals that a grammar has.
pub(super) fn choose(grammar: &Grammar) -> Vec<Terminal> {
    let (mut split, mut pairs) = (HashSet::new(), 0);
    loop {
        let (terminals, mut bad) = find(grammar, &split);
        if bad.is_empty() {
            let follow = follow(grammar, &terminals);
            for (terminal, follow) in terminals.iter().zip(&follow) {
                for other in terminals.iter().filter(|other| other.is_long()) {
                    if pairs > MAX_PAIRS
                        || (!bad.contains(&other.node)
                            && runs_on(terminal, other, follow, &mut pairs))
                    {
                        bad.insert(other.node);
                    }
                }
            }
        }
        if bad.is_empty() {
            return terminals;
        }
        split.extend(bad);
    }
}

/// The terminals if these parts are split, and which of them are too large.
fn find(grammar: &Grammar, split: &HashSet<Node>) -> (Vec<Terminal>, HashSet<Node>) {
    let (mut terminals, mut large) = (Vec::new(), HashSet::new());
    let (mut seen, mut nodes) = (HashSet::from([0]), vec![grammar.rules[0]]);
    while let Some(node) = nodes.pop() {
        let is_rule = grammar.rules.contains(&node);
        if !is_rule && grammar.is_regular(node) && !split.contains(&node) {
            match Terminal::new(grammar, node) {
                Some(terminal) if terminal.classes.is_empty() => {}
                Some(terminal) => terminals.push(terminal),
                None => {
                    large.insert(node);
                }
            }
            continue;
        }
        match &grammar.parts[node] {
            Part::Class(_) => {}
            Part::Rule(rule) if seen.insert(*rule) => nodes.push(grammar.rules[*rule]),
            Part::Rule(_) => {}
            Part::Group(alternatives) => nodes.extend(alternatives.iter().flatten()),
            Part::Repeat(part, ..) => nodes.push(*part),
        }
    }
    (terminals, large)
}

/// Whether a text of `terminal`, followed by one of these characters, is the beginning of a text of `other`.
fn runs_on(terminal: &Terminal, other: &Terminal, follow: &Class, looked: &mut usize) -> bool {
    let (mut seen, mut pairs) = (HashSet::new(), Vec::new());
    let meet = |a: &[usize], b: &[usize], pairs: &mut Vec<(usize, usize)>| {
        for &a in a {
            let matching = b
                .iter()
                .filter(|&&b| meets(&terminal.classes[a], &other.classes[b]));
            pairs.extend(matching.map(|&b| (a, b)));
        }
        a.len() * b.len()
    };
    *looked += meet(&terminal.ends.first, &other.ends.first, &mut pairs);
    while let Some((a, b)) = pairs.pop() {
        if !seen.insert((a, b)) {
            continue;
        }
        let next = &other.next[b];
        if terminal.ends.last.contains(&a)
            && next.iter().any(|&next| meets(&other.classes[next], follow))
        {
            return true;
        }
        *looked += 1 + meet(&terminal.next[a], next, &mut pairs);
        if *looked > MAX_PAIRS {
            return true;
        }
    }
    false
}

/// Where a part of a regular expression begins and ends.
struct Ends {
    first: Vec<usize>,
    last: Vec<usize>,
    is_nullable: bool,
}

const EMPTY: Ends = Ends {
    first: Vec::new(),
    last: Vec::new(),
    is_nullable: true,
};

impl Terminal {
    /// `None`: it is too large.
    fn new(grammar: &Grammar, node: Node) -> Option<Terminal> {
        let mut terminal = Terminal {
            node,
            ends: EMPTY,
            classes: Vec::new(),
            next: Vec::new(),
        };
        terminal.ends = terminal.add(grammar, node)?;
        Some(terminal)
    }

    /// Whether a text of it has more than one character.
    fn is_long(&self) -> bool {
        self.next.iter().any(|next| !next.is_empty())
    }

    pub(super) fn is_nullable(&self) -> bool {
        self.ends.is_nullable
    }

    fn add(&mut self, grammar: &Grammar, node: Node) -> Option<Ends> {
        match &grammar.parts[node] {
            Part::Class(class) => {
                let position = self.classes.len();
                if position == MAX_POSITIONS {
                    return None;
                }
                self.classes.push(class.clone());
                self.next.push(Vec::new());
                Some(Ends {
                    first: vec![position],
                    last: vec![position],
                    is_nullable: false,
                })
            }
            Part::Rule(rule) => self.add(grammar, grammar.rules[*rule]),
            Part::Group(alternatives) => {
                let mut any = Ends {
                    is_nullable: false,
                    ..EMPTY
                };
                for parts in alternatives {
                    let mut sequence = EMPTY;
                    for &part in parts {
                        let part = self.add(grammar, part)?;
                        sequence = self.concatenate(sequence, part);
                    }
                    any.first.extend(sequence.first);
                    any.last.extend(sequence.last);
                    any.is_nullable |= sequence.is_nullable;
                }
                Some(any)
            }
            Part::Repeat(part, least, most) => {
                let mut tail = EMPTY;
                match most {
                    // Each of them may be the last.
                    Some(most) => {
                        for _ in *least..*most {
                            let one = self.add(grammar, *part)?;
                            tail = self.concatenate(one, tail);
                            tail.is_nullable = true;
                        }
                    }
                    None => {
                        tail = self.add(grammar, *part)?;
                        self.link(&tail.last, &tail.first);
                        tail.is_nullable = true;
                    }
                }
                for _ in 0..*least {
                    let one = self.add(grammar, *part)?;
                    tail = self.concatenate(one, tail);
                }
                Some(tail)
            }
        }
    }

    fn concatenate(&mut self, mut a: Ends, b: Ends) -> Ends {
        self.link(&a.last, &b.first);
        if a.is_nullable {
            a.first.extend(&b.first);
        }
        let mut last = b.last;
        if b.is_nullable {
            last.extend(a.last);
        }
        Ends {
            first: a.first,
            last,
            is_nullable: a.is_nullable && b.is_nullable,
        }
    }

    fn link(&mut self, from: &[usize], to: &[usize]) {
        for &position in from {
            self.next[position].extend(to);
        }
    }
}

/// What may come after each of `terminals`.
fn follow(grammar: &Grammar, terminals: &[Terminal]) -> Vec<Class> {
    let mut look = Look {
        grammar,
        numbers: terminals
            .iter()
            .enumerate()
            .map(|(i, terminal)| (terminal.node, i))
            .collect(),
        terminals,
        first: vec![(Vec::new(), false); grammar.rules.len()],
        after_rules: vec![Vec::new(); grammar.rules.len()],
        after: vec![Vec::new(); terminals.len()],
    };
    loop {
        let mut changed = false;
        for (rule, &node) in grammar.rules.iter().enumerate() {
            let (first, is_nullable) = look.begin(node);
            let known = &mut look.first[rule];
            changed |= merge(&mut known.0, &first) | (known.1 != is_nullable);
            known.1 = is_nullable;
        }
        if !changed {
            break;
        }
    }
    loop {
        let before = look.after_rules.clone();
        for (rule, &node) in grammar.rules.iter().enumerate() {
            let after = look.after_rules[rule].clone();
            look.walk(node, &after);
        }
        if before == look.after_rules {
            return look.after;
        }
    }
}

struct Look<'a> {
    grammar: &'a Grammar,
    numbers: HashMap<Node, usize>,
    terminals: &'a [Terminal],
    /// Of rules: the characters they may begin with, and whether they may be empty.
    first: Vec<(Class, bool)>,
    after_rules: Vec<Class>,
    after: Vec<Class>,
}

impl Look<'_> {
    fn begin(&self, node: Node) -> (Class, bool) {
        if let Some(&number) = self.numbers.get(&node) {
            let terminal = &self.terminals[number];
            let mut first = Vec::new();
            for &position in &terminal.ends.first {
                merge(&mut first, &terminal.classes[position]);
            }
            return (first, terminal.is_nullable());
        }
        match &self.grammar.parts[node] {
            Part::Class(class) => (class.clone(), false),
            Part::Rule(rule) => self.first[*rule].clone(),
            Part::Group(alternatives) => {
                let (mut first, mut is_nullable) = (Vec::new(), false);
                for parts in alternatives {
                    let mut goes_on = true;
                    for &part in parts {
                        let (begin, may_be_empty) = self.begin(part);
                        merge(&mut first, &begin);
                        if !may_be_empty {
                            goes_on = false;
                            break;
                        }
                    }
                    is_nullable |= goes_on;
                }
                (first, is_nullable)
            }
            Part::Repeat(part, least, _) => {
                let (first, is_nullable) = self.begin(*part);
                (first, is_nullable || *least == 0)
            }
        }
    }

    /// Notes that `after` may come after a part.
    fn walk(&mut self, node: Node, after: &Class) {
        if let Some(&number) = self.numbers.get(&node) {
            merge(&mut self.after[number], after);
            return;
        }
        match &self.grammar.parts[node] {
            Part::Class(_) => {}
            Part::Rule(rule) => {
                merge(&mut self.after_rules[*rule], after);
            }
            Part::Group(alternatives) => {
                for parts in alternatives {
                    let mut after = after.clone();
                    for &part in parts.iter().rev() {
                        self.walk(part, &after);
                        let (mut begin, is_nullable) = self.begin(part);
                        if is_nullable {
                            merge(&mut begin, &after);
                        }
                        after = begin;
                    }
                }
            }
            Part::Repeat(part, ..) => {
                let (mut begin, _) = self.begin(*part);
                merge(&mut begin, after);
                self.walk(*part, &begin);
            }
        }
    }
}

/// Adds `more` to `class`; whether that changed it.
fn merge(class: &mut Class, more: &[(u32, u32)]) -> bool {
    let is_in = |range: &(u32, u32)| class.iter().any(|own| own.0 <= range.0 && range.1 <= own.1);
    if more.iter().all(is_in) {
        return false;
    }
    let all: Class = class.iter().chain(more).copied().collect();
    *class = without(&without(&all));
    true
}

fn meets(a: &Class, b: &Class) -> bool {
    a.iter().any(|a| b.iter().any(|b| a.0 <= b.1 && b.0 <= a.1))
}
