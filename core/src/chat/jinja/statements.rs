//! Tokens to a tree: text and blocks.

use super::super::limits::BRANCHES;
use super::ast::{Block, Expr, For, Macro, Stmt, StmtKind, Target};
use super::lexer::Token;
use super::parser::Parser;
use super::{Fault, Result};
use std::rc::Rc;

/// Names that cannot be assigned to.
const CONSTANTS: [&str; 6] = ["true", "True", "false", "False", "none", "None"];

impl Parser<'_, '_> {
    /// Text and blocks up to a block of one of the names in `ends`, whose name is next; or up to the template's end.
    pub(super) fn block(&mut self, ends: &[&str]) -> Result<Block> {
        self.nested(|parser| {
            let mut block = Vec::new();
            loop {
                let line = parser.line();
                let kind = match parser.next() {
                    Token::Text(text) => StmtKind::Text(text.into()),
                    Token::PrintBegin => {
                        let expr = parser.tuple()?;
                        match parser.peek() {
                            Token::PrintEnd => parser.next(),
                            _ => return parser.unexpected("`}}`"),
                        };
                        StmtKind::Print(expr)
                    }
                    Token::BlockBegin => {
                        if ends.iter().any(|end| parser.is_name(end)) {
                            return Ok(block);
                        }
                        let kind = parser.statement();
                        kind.map_err(|fault| fault.at(line))?
                    }
                    Token::End if ends.is_empty() => return Ok(block),
                    Token::End => {
                        let end = ends.last().unwrap_or(&"");
                        let what = format!("a block without `{end}`");
                        return Err(Fault::new(what).at(line));
                    }
                    _ => return parser.unexpected("text or a tag"),
                };
                block.push(Stmt { kind, line });
            }
        })
    }

    /// `%}`.
    fn end(&mut self) -> Result<()> {
        match self.peek() {
            Token::BlockEnd => {
                self.next();
                Ok(())
            }
            _ => self.unexpected("`%}`"),
        }
    }

    /// A block's body, from its `%}` to the end of the tag that closes it.
    fn body(&mut self, end: &str) -> Result<Block> {
        self.end()?;
        let block = self.block(&[end])?;
        self.next();
        self.end()?;
        Ok(block)
    }

    fn statement(&mut self) -> Result<StmtKind> {
        let name = self.name()?;
        match &*name {
            "if" => self.if_blocks(),
            "for" => self.for_loop(),
            "set" => self.set(),
            "macro" => {
                let name = self.name()?;
                Ok(StmtKind::Macro(Rc::new(self.macro_rest(name, "endmacro")?)))
            }
            "call" => self.call_block(),
            "filter" => {
                let filter = self.filter(None)?;
                let filter = self.more_filters(filter)?;
                Ok(StmtKind::Filter(filter, self.body("endfilter")?))
            }
            "with" => {
                let mut assignments = Vec::new();
                while !matches!(self.peek(), Token::BlockEnd) {
                    if !assignments.is_empty() {
                        self.expect_op(",")?;
                    }
                    let target = Target::Name(self.assignable()?);
                    self.expect_op("=")?;
                    assignments.push((target, self.expression()?));
                }
                Ok(StmtKind::With(assignments, self.body("endwith")?))
            }
            "generation" => Ok(StmtKind::Plain(self.body("endgeneration")?)),
            "block" => {
                self.name()?;
                let _ = self.skip_name("scoped") || self.skip_name("required");
                self.end()?;
                let block = self.block(&["endblock"])?;
                self.next();
                if let Token::Name(_) = self.peek() {
                    self.next();
                }
                self.end()?;
                Ok(StmtKind::Plain(block))
            }
            "break" => self.end().map(|()| StmtKind::Break),
            "continue" => self.end().map(|()| StmtKind::Continue),
            "include" | "import" | "from" | "extends" => {
                while !matches!(self.peek(), Token::BlockEnd | Token::End) {
                    self.next();
                }
                self.end()?;
                Ok(StmtKind::Refused("a chat template reads no other template"))
            }
            other => Err(Fault::new(format!("an unknown tag `{other}`"))),
        }
    }

    fn if_blocks(&mut self) -> Result<StmtKind> {
        let mut branches = Vec::new();
        loop {
            let condition = self.tuple()?;
            self.end()?;
            branches.push((condition, self.block(&["elif", "else", "endif"])?));
            if !self.skip_name("elif") {
                break;
            }
            if branches.len() > BRANCHES {
                return Err(Fault::new(format!(
                    "`if` with more than {BRANCHES} branches"
                )));
            }
        }
        let mut otherwise = Vec::new();
        if self.skip_name("else") {
            self.end()?;
            otherwise = self.block(&["endif"])?;
        }
        self.next();
        self.end()?;
        Ok(StmtKind::If(branches, otherwise))
    }

    fn for_loop(&mut self) -> Result<StmtKind> {
        let target = self.targets()?;
        if !self.skip_name("in") {
            return self.unexpected("`in`");
        }
        // Without a condition of its own: `if` begins the loop's.
        let over = self.without_if()?;
        let condition = match self.skip_name("if") {
            true => Some(self.expression()?),
            false => None,
        };
        let recursive = self.skip_name("recursive");
        self.end()?;
        let body = self.block(&["endfor", "else"])?;
        let mut otherwise = Vec::new();
        if self.skip_name("else") {
            self.end()?;
            otherwise = self.block(&["endfor"])?;
        }
        self.next();
        self.end()?;
        Ok(StmtKind::For(Rc::new(For {
            target,
            over,
            condition,
            recursive,
            body,
            otherwise,
        })))
    }

    fn without_if(&mut self) -> Result<Expr> {
        self.nested(Self::or_tuple)
    }

    fn assignable(&mut self) -> Result<Rc<str>> {
        let name = self.name()?;
        match CONSTANTS.contains(&&*name) {
            true => Err(Fault::new(format!("cannot assign to `{name}`"))),
            false => Ok(name),
        }
    }

    /// A name, an attribute of a namespace, or several in parentheses.
    fn target(&mut self) -> Result<Target> {
        if self.skip_op("(") {
            let target = self.nested(Self::targets)?;
            self.expect_op(")")?;
            return Ok(target);
        }
        let name = self.assignable()?;
        match self.skip_op(".") {
            true => Ok(Target::Attr(name, self.name()?)),
            false => Ok(Target::Name(name)),
        }
    }

    fn targets(&mut self) -> Result<Target> {
        let first = self.target()?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut targets = vec![first];
        while self.skip_op(",") {
            if self.is_name("in") || self.is_op("=") || self.is_op(")") {
                break;
            }
            targets.push(self.target()?);
        }
        Ok(Target::Tuple(targets))
    }

    fn set(&mut self) -> Result<StmtKind> {
        let target = self.targets()?;
        if self.skip_op("=") {
            let value = self.tuple()?;
            self.end()?;
            return Ok(StmtKind::Set(target, value));
        }
        let filter = match self.skip_op("|") {
            true => {
                let filter = self.filter(None)?;
                Some(self.more_filters(filter)?)
            }
            false => None,
        };
        Ok(StmtKind::SetBlock(target, filter, self.body("endset")?))
    }

    fn more_filters(&mut self, mut filter: Expr) -> Result<Expr> {
        while self.skip_op("|") {
            filter = self.filter(Some(filter))?;
        }
        Ok(filter)
    }

    /// A macro from its parameters on.
    fn macro_rest(&mut self, name: Rc<str>, end: &str) -> Result<Macro> {
        let mut parameters: Vec<(Rc<str>, Option<Expr>)> = Vec::new();
        let outer = std::mem::take(&mut self.names);
        if self.skip_op("(") {
            while !self.skip_op(")") {
                if !parameters.is_empty() {
                    self.expect_op(",")?;
                    if self.skip_op(")") {
                        break;
                    }
                }
                let parameter = self.assignable()?;
                let default = match self.skip_op("=") {
                    true => Some(self.expression()?),
                    false => None,
                };
                parameters.push((parameter, default));
            }
        }
        let body = self.body(end)?;
        let names = std::mem::replace(&mut self.names, outer);
        let has = |name: &str| names.iter().any(|known| known == name);
        Ok(Macro {
            name,
            parameters,
            body,
            varargs: has("varargs"),
            kwargs: has("kwargs"),
            caller: has("caller"),
        })
    }

    fn call_block(&mut self) -> Result<StmtKind> {
        // The parameters stand before the call, the body behind it.
        let mut parameters: Vec<(Rc<str>, Option<Expr>)> = Vec::new();
        if self.skip_op("(") {
            while !self.skip_op(")") {
                if !parameters.is_empty() {
                    self.expect_op(",")?;
                }
                let parameter = self.assignable()?;
                let default = match self.skip_op("=") {
                    true => Some(self.expression()?),
                    false => None,
                };
                parameters.push((parameter, default));
            }
        }
        let call = self.expression()?;
        let body = self.macro_rest("caller".into(), "endcall")?;
        Ok(StmtKind::Call(call, Rc::new(Macro { parameters, ..body })))
    }
}
