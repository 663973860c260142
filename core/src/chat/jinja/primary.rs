//! Tokens to a tree: values, and what stands behind them.

use super::ast::{Args, Expr, Kind};
use super::lexer::Token;
use super::parser::Parser;
use super::value::Value;
use super::{Result, filters, tests};

impl Parser<'_, '_> {
    pub(super) fn primary(&mut self) -> Result<Expr> {
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

    pub(super) fn postfix(&mut self, mut expr: Expr) -> Result<Expr> {
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
    pub(super) fn filters(&mut self, mut expr: Expr) -> Result<Expr> {
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

pub(super) fn deepest(exprs: &[Expr]) -> u16 {
    exprs.iter().map(|expr| expr.depth).max().unwrap_or(0)
}
