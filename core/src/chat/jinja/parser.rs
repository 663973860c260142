//! Tokens to a tree: expressions.

use super::super::limits::{Budget, NESTING, SOURCE};
use super::ast::{Args, Block, Comparison, Expr, Kind, Operator};
use super::lexer::{Token, tokens};
use super::value::Value;
use super::{Fault, Result, filters, tests};
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
    at: usize,
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

    fn second(&self) -> &Token {
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
    fn expr(&self, kind: Kind, line: u32, depth: u16) -> Result<Expr> {
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

    fn primary(&mut self) -> Result<Expr> {
        let line = self.line();
        let constant = |value| Kind::Const(value);
        let kind = match self.peek() {
            Token::Name(_) => {
                let name = self.name()?;
                match &*name {
                    "true" | "True" => constant(Value::Bool(true)),
                    "false" | "False" => constant(Value::Bool(false)),
                    "none" | "None" => constant(Value::None),
                    "varargs" | "kwargs" | "caller" => {
                        self.names.push(name.to_string());
                        Kind::Name(name)
                    }
                    _ => Kind::Name(name),
                }
            }
            Token::Str(_) => {
                let mut text = String::new();
                while let Token::Str(_) = self.peek() {
                    if let Token::Str(part) = self.next() {
                        text.push_str(&part);
                    }
                }
                constant(self.budget.text(text)?)
            }
            Token::Int(n) => {
                let n = *n;
                self.at += 1;
                constant(Value::Int(n))
            }
            Token::Float(x) => {
                let x = *x;
                self.at += 1;
                constant(Value::Float(x))
            }
            Token::Op("(") => {
                self.at += 1;
                let expr = match self.skip_op(")") {
                    true => return self.expr(Kind::Tuple(Vec::new()), line, 0),
                    false => self.tuple()?,
                };
                self.expect_op(")")?;
                return Ok(expr);
            }
            Token::Op("[") => {
                self.at += 1;
                let items = self.items("]")?;
                let depth = deepest(&items);
                return self.expr(Kind::List(items), line, depth);
            }
            Token::Op("{") => return self.dict(line),
            _ => return self.unexpected("an expression"),
        };
        self.expr(kind, line, 0)
    }

    /// Expressions with commas between them, up to a bracket, which is read.
    fn items(&mut self, close: &str) -> Result<Vec<Expr>> {
        let mut items = Vec::new();
        while !self.skip_op(close) {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.skip_op(close) {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        Ok(items)
    }

    fn dict(&mut self, line: u32) -> Result<Expr> {
        self.at += 1;
        let mut entries: Vec<(Expr, Expr)> = Vec::new();
        while !self.skip_op("}") {
            if !entries.is_empty() {
                self.expect_op(",")?;
                if self.skip_op("}") {
                    break;
                }
            }
            let key = self.expression()?;
            self.expect_op(":")?;
            entries.push((key, self.expression()?));
        }
        let depths = entries
            .iter()
            .map(|(key, value)| key.depth.max(value.depth));
        let depth = depths.max().unwrap_or(0);
        self.expr(Kind::Dict(entries), line, depth)
    }

    /// An expression, or several with commas between them, which are a tuple.
    pub(super) fn tuple(&mut self) -> Result<Expr> {
        let line = self.line();
        let first = self.expression()?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_op(",") {
            let ends = matches!(self.peek(), Token::BlockEnd | Token::PrintEnd | Token::End);
            if ends || self.is_op(")") || self.is_op("=") {
                break;
            }
            items.push(self.expression()?);
        }
        let depth = deepest(&items);
        self.expr(Kind::Tuple(items), line, depth)
    }

    fn postfix(&mut self, mut expr: Expr) -> Result<Expr> {
        loop {
            let (line, depth) = (self.line(), expr.depth);
            if self.skip_op(".") {
                if let Token::Int(n) = self.peek() {
                    let key = Kind::Const(Value::Int(*n));
                    self.at += 1;
                    let key = Box::new(self.expr(key, line, 0)?);
                    expr = self.expr(Kind::Item(Box::new(expr), key), line, depth)?;
                } else {
                    let name = self.name()?;
                    expr = self.expr(Kind::Attr(Box::new(expr), name), line, depth)?;
                }
            } else if self.skip_op("[") {
                expr = self.subscript(expr, line)?;
            } else if self.is_op("(") {
                expr = self.call(expr)?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn call(&mut self, function: Expr) -> Result<Expr> {
        let line = self.line();
        let (args, depth) = self.args()?;
        let depth = depth.max(function.depth);
        self.expr(Kind::Call(Box::new(function), args), line, depth)
    }

    /// What is in the brackets behind a value; the first is read.
    fn subscript(&mut self, of: Expr, line: u32) -> Result<Expr> {
        let mut bounds = [None, None, None];
        let mut colons = 0;
        let mut depth = of.depth;
        while !self.is_op("]") {
            if colons < 2 && self.skip_op(":") {
                colons += 1;
                continue;
            }
            if bounds[colons].is_some() {
                return self.unexpected("`]`");
            }
            let expr = if colons == 0 {
                self.tuple()?
            } else {
                self.expression()?
            };
            depth = depth.max(expr.depth);
            bounds[colons] = Some(expr);
        }
        self.at += 1;
        let of = Box::new(of);
        match (colons, bounds) {
            (0, [Some(key), ..]) => self.expr(Kind::Item(of, Box::new(key)), line, depth),
            (0, _) => self.unexpected("an index"),
            (_, bounds) => self.expr(Kind::Slice(of, Box::new(bounds)), line, depth),
        }
    }

    /// Arguments in parentheses, and how deep they are.
    fn args(&mut self) -> Result<(Args, u16)> {
        self.expect_op("(")?;
        let mut args = Args::default();
        let (mut depth, mut first) = (0, true);
        while !self.skip_op(")") {
            if !std::mem::take(&mut first) {
                self.expect_op(",")?;
                if self.skip_op(")") {
                    break;
                }
            }
            let is_named =
                matches!(self.peek(), Token::Name(_)) && *self.second() == Token::Op("=");
            let expr = if self.skip_op("*") {
                let expr = self.expression()?;
                depth = depth.max(expr.depth);
                args.list = Some(Box::new(expr));
                continue;
            } else if self.skip_op("**") {
                let expr = self.expression()?;
                depth = depth.max(expr.depth);
                args.map = Some(Box::new(expr));
                continue;
            } else if is_named {
                let name = self.name()?;
                self.at += 1;
                let expr = self.expression()?;
                depth = depth.max(expr.depth);
                args.named.push((name, expr));
                continue;
            } else {
                self.expression()?
            };
            if !args.named.is_empty() || args.map.is_some() {
                return self.unexpected("named arguments behind named ones");
            }
            depth = depth.max(expr.depth);
            args.positional.push(expr);
        }
        Ok((args, depth))
    }

    /// Filters and tests behind a value.
    fn filters(&mut self, mut expr: Expr) -> Result<Expr> {
        loop {
            if self.skip_op("|") {
                expr = self.filter(Some(expr))?;
            } else if self.is_name("is") {
                expr = self.test(expr)?;
            } else if self.is_op("(") {
                expr = self.call(expr)?;
            } else {
                return Ok(expr);
            }
        }
    }

    /// A filter's name and arguments, the bar read.
    pub(super) fn filter(&mut self, of: Option<Expr>) -> Result<Expr> {
        let line = self.line();
        let name = self.dotted()?;
        let (args, depth) = match self.is_op("(") {
            true => self.args()?,
            false => (Args::default(), 0),
        };
        let depth = depth.max(of.as_ref().map_or(0, |of| of.depth));
        let kind = match filters::find(&name) {
            Some(filter) => Kind::Filter(of.map(Box::new), filter, args),
            None => Kind::Unknown(format!("no filter named `{name}`")),
        };
        self.expr(kind, line, depth)
    }

    fn dotted(&mut self) -> Result<String> {
        let mut name = self.name()?.to_string();
        while self.skip_op(".") {
            name = format!("{name}.{}", self.name()?);
        }
        Ok(name)
    }

    fn test(&mut self, of: Expr) -> Result<Expr> {
        let line = self.line();
        self.at += 1;
        let negated = self.skip_name("not");
        let name = self.dotted()?;
        let has_argument = match self.peek() {
            Token::Name(name) => !["else", "or", "and", "is", "if", "in", "not"].contains(&&**name),
            Token::Str(_) | Token::Int(_) | Token::Float(_) | Token::Op("[" | "{") => true,
            _ => false,
        };
        let (args, depth) = if self.is_op("(") {
            self.args()?
        } else if has_argument {
            let argument = self.primary()?;
            let argument = self.postfix(argument)?;
            let depth = argument.depth;
            let positional = vec![argument];
            (
                Args {
                    positional,
                    ..Args::default()
                },
                depth,
            )
        } else {
            (Args::default(), 0)
        };
        let depth = depth.max(of.depth);
        let kind = match tests::find(&name) {
            Some(test) => Kind::Test(Box::new(of), test, args),
            None => Kind::Unknown(format!("no test named `{name}`")),
        };
        let expr = self.expr(kind, line, depth)?;
        match negated {
            true => {
                let depth = expr.depth;
                self.expr(Kind::Not(Box::new(expr)), line, depth)
            }
            false => Ok(expr),
        }
    }
}

fn deepest(exprs: &[Expr]) -> u16 {
    exprs.iter().map(|expr| expr.depth).max().unwrap_or(0)
}
