//! Tokens to a tree: expressions.

use super::super::limits::{Budget, NESTING, SOURCE};
use super::ast::{Block, Comparison, Expr, Kind, Operator};
use super::lexer::{Token, tokens};
use super::primary::deepest;
use super::{Fault, Result};
use std::rc::Rc;

/// The tree of a template.
pub(super) fn parse(source: &str, budget: &Budget<'_>) -> Result<Block> {
    if source.len() > SOURCE {
        return Err(Fault::new(format!(
            "expected at most {SOURCE} bytes, got {}",
            source.len()
        )));
    }
    budget.read(source.len())?;
    let mut parser = Parser {
        tokens: tokens(source)?,
        at: 0,
        nesting: 0,
        names: Vec::new(),
        budget,
    };
    let block = parser.block(&[]);
    block.map_err(|fault| fault.at(parser.line()))
}

pub(super) struct Parser<'b, 'a> {
    tokens: Vec<(Token, u32)>,
    pub(super) at: usize,
    /// How deep the parser has recursed.
    nesting: u16,
    /// Which of the names that only a macro has were met.
    pub(super) names: Vec<String>,
    pub(super) budget: &'b Budget<'a>,
}

/// What binary operators stand for, loosest first.
const LEVELS: [&[(&str, Operator)]; 3] = [
    &[("+", Operator::Add), ("-", Operator::Sub)],
    &[
        ("*", Operator::Mul),
        ("/", Operator::Div),
        ("//", Operator::FloorDiv),
        ("%", Operator::Mod),
    ],
    &[("**", Operator::Pow)],
];

const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Eq),
    ("!=", Comparison::Ne),
    ("<", Comparison::Lt),
    ("<=", Comparison::Le),
    (">", Comparison::Gt),
    (">=", Comparison::Ge),
];

fn too_deep() -> Fault {
    Fault::new(format!("it is nested more than {NESTING} levels deep"))
}

impl Parser<'_, '_> {
    pub(super) fn peek(&self) -> &Token {
        self.tokens
            .get(self.at)
            .map_or(&Token::End, |(token, _)| token)
    }

    pub(super) fn second(&self) -> &Token {
        self.tokens
            .get(self.at + 1)
            .map_or(&Token::End, |(token, _)| token)
    }

    pub(super) fn line(&self) -> u32 {
        let at = self.at.min(self.tokens.len() - 1);
        self.tokens[at].1
    }

    pub(super) fn next(&mut self) -> Token {
        let token = match self.tokens.get_mut(self.at) {
            Some((Token::End, _)) | None => return Token::End,
            Some((token, _)) => std::mem::replace(token, Token::End),
        };
        // What was read is never looked at again; its place keeps its line.
        self.at += 1;
        token
    }

    pub(super) fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Token::Op(is) if *is == op)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(is) if is == name)
    }

    pub(super) fn skip_op(&mut self, op: &str) -> bool {
        let is = self.is_op(op);
        self.at += usize::from(is);
        is
    }

    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let is = self.is_name(name);
        self.at += usize::from(is);
        is
    }

    pub(super) fn unexpected<T>(&self, expected: &str) -> Result<T> {
        let got = match self.peek() {
            Token::Text(_) => "text".to_owned(),
            Token::BlockBegin => "`{%`".to_owned(),
            Token::BlockEnd => "`%}`".to_owned(),
            Token::PrintBegin => "`{{`".to_owned(),
            Token::PrintEnd => "`}}`".to_owned(),
            Token::Name(name) => format!("`{name}`"),
            Token::Str(_) => "a string".to_owned(),
            Token::Int(_) | Token::Float(_) => "a number".to_owned(),
            Token::Op(op) => format!("`{op}`"),
            Token::End => "the end of the template".to_owned(),
        };
        Err(Fault::new(format!("expected {expected}, got {got}")).at(self.line()))
    }

    pub(super) fn expect_op(&mut self, op: &str) -> Result<()> {
        match self.skip_op(op) {
            true => Ok(()),
            false => self.unexpected(&format!("`{op}`")),
        }
    }

    pub(super) fn name(&mut self) -> Result<Rc<str>> {
        match self.peek() {
            Token::Name(_) => match self.next() {
                Token::Name(name) => Ok(name.into()),
                _ => self.unexpected("a name"),
            },
            _ => self.unexpected("a name"),
        }
    }

    /// Runs `inner` one level deeper.
    pub(super) fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.nesting >= NESTING {
            return Err(too_deep());
        }
        self.budget.spend(1)?;
        self.nesting += 1;
        let result = inner(self);
        self.nesting -= 1;
        result
    }

    /// An expression above others of `depth`.
    pub(super) fn expr(&self, kind: Kind, line: u32, depth: u16) -> Result<Expr> {
        if depth >= NESTING {
            return Err(too_deep());
        }
        let depth = depth + 1;
        Ok(Expr { kind, line, depth })
    }

    /// `a if condition else b`, or a simpler one.
    pub(super) fn expression(&mut self) -> Result<Expr> {
        self.nested(|parser| {
            let mut then = parser.or()?;
            while parser.is_name("if") {
                let line = parser.line();
                parser.next();
                let condition = parser.or()?;
                let otherwise = match parser.skip_name("else") {
                    true => Some(parser.expression()?),
                    false => None,
                };
                let depth = then.depth.max(condition.depth);
                let depth = depth.max(otherwise.as_ref().map_or(0, |expr| expr.depth));
                let otherwise = otherwise.map(Box::new);
                let kind = Kind::If(Box::new(condition), Box::new(then), otherwise);
                then = parser.expr(kind, line, depth)?;
            }
            Ok(then)
        })
    }

    fn or(&mut self) -> Result<Expr> {
        self.logical("or", Kind::Or, |parser| {
            parser.logical("and", Kind::And, Self::not)
        })
    }

    /// What a loop goes over: no `if`, and with commas a tuple.
    pub(super) fn or_tuple(&mut self) -> Result<Expr> {
        let line = self.line();
        let first = self.or()?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_op(",") {
            if matches!(self.peek(), Token::BlockEnd) || self.is_name("recursive") {
                break;
            }
            items.push(self.or()?);
        }
        let depth = deepest(&items);
        self.expr(Kind::Tuple(items), line, depth)
    }

    fn logical(
        &mut self,
        name: &str,
        make: fn(Box<Expr>, Box<Expr>) -> Kind,
        inner: impl Fn(&mut Self) -> Result<Expr>,
    ) -> Result<Expr> {
        let mut left = inner(self)?;
        while self.is_name(name) {
            let line = self.line();
            self.next();
            let right = inner(self)?;
            let depth = left.depth.max(right.depth);
            left = self.expr(make(Box::new(left), Box::new(right)), line, depth)?;
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr> {
        if !self.is_name("not") {
            return self.comparison();
        }
        let line = self.line();
        self.next();
        let of = self.nested(Self::not)?;
        let depth = of.depth;
        self.expr(Kind::Not(Box::new(of)), line, depth)
    }

    fn comparison(&mut self) -> Result<Expr> {
        let first = self.binary(0)?;
        let mut rest = Vec::new();
        let (line, mut depth) = (self.line(), first.depth);
        loop {
            let known = COMPARISONS.iter().find(|(op, _)| self.is_op(op));
            let op = match known {
                Some((_, op)) => *op,
                None if self.is_name("in") => Comparison::In,
                None if self.is_name("not") && *self.second() == Token::Name("in".into()) => {
                    self.at += 1;
                    Comparison::NotIn
                }
                None => break,
            };
            self.at += 1;
            let right = self.binary(0)?;
            depth = depth.max(right.depth);
            rest.push((op, right));
        }
        match rest.is_empty() {
            true => Ok(first),
            false => self.expr(Kind::Compare(Box::new(first), rest), line, depth),
        }
    }

    /// Operators of a level and those that bind closer. `~` stands between the first two levels.
    fn binary(&mut self, level: usize) -> Result<Expr> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary(true);
        };
        let inner = |parser: &mut Self| match level {
            0 => parser.concat(),
            _ => parser.binary(level + 1),
        };
        let mut left = inner(self)?;
        while let Some((_, op)) = operators.iter().find(|(op, _)| self.is_op(op)) {
            let line = self.line();
            self.at += 1;
            let right = inner(self)?;
            let depth = left.depth.max(right.depth);
            let kind = Kind::Binary(*op, Box::new(left), Box::new(right));
            left = self.expr(kind, line, depth)?;
        }
        Ok(left)
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.binary(1)?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let (line, mut depth) = (self.line(), first.depth);
        let mut parts = vec![first];
        while self.skip_op("~") {
            let part = self.binary(1)?;
            depth = depth.max(part.depth);
            parts.push(part);
        }
        self.expr(Kind::Concat(parts), line, depth)
    }

    fn unary(&mut self, with_filters: bool) -> Result<Expr> {
        let line = self.line();
        let make = match self.peek() {
            Token::Op("-") => Some(Kind::Neg as fn(Box<Expr>) -> Kind),
            Token::Op("+") => Some(Kind::Pos as fn(Box<Expr>) -> Kind),
            _ => None,
        };
        let mut expr = match make {
            Some(make) => {
                self.at += 1;
                let of = self.nested(|parser| parser.unary(false))?;
                let depth = of.depth;
                self.expr(make(Box::new(of)), line, depth)?
            }
            None => self.primary()?,
        };
        expr = self.postfix(expr)?;
        match with_filters {
            true => self.filters(expr),
            false => Ok(expr),
        }
    }
}
