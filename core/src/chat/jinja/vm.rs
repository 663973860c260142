//! Evaluation of blocks: what they write, and the variables that they see.

use super::super::limits::{Budget, Held, Out};
use super::ast::{Block, Expr, For, Kind, Stmt, StmtKind, Target};
use super::calls::FUNCTIONS;
use super::value::{Code, Namespace, Seq, Value};
use super::{Fault, Result, print, sequences};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

/// One rendering.
pub(super) struct Vm<'v> {
    pub(super) budget: &'v Budget<'v>,
    /// Every namespace that was made.
    pub(super) spaces: RefCell<Vec<Rc<Namespace>>>,
    /// The time now by a format.
    pub(super) clock: &'v dyn Fn(&str) -> Result<String>,
}

/// Variables of a loop's turn, a macro's call or the template.
pub(in super::super) struct Scope {
    variables: RefCell<HashMap<Rc<str>, Value>>,
    parent: Option<Rc<Scope>>,
    held: RefCell<Vec<Held>>,
}

/// The variable `loop`.
pub(in super::super) struct LoopState {
    pub(super) of: Rc<For>,
    pub(super) scope: Weak<Scope>,
    pub(super) items: Rc<Seq>,
    pub(super) index: Cell<usize>,
    pub(super) depth: usize,
    pub(super) last_changed: RefCell<Option<Value>>,
    _held: Held,
}

enum Flow {
    Next,
    Break,
    Continue,
}

/// What the template `source` writes with these variables.
pub(in super::super) fn render(
    source: &str,
    variables: Vec<(&str, Value)>,
    budget: &Budget<'_>,
    clock: &dyn Fn(&str) -> Result<String>,
) -> Result<String> {
    let template = super::parser::parse(source, budget)?;
    let vm = Vm {
        budget,
        spaces: RefCell::default(),
        clock,
    };
    let scope = vm.scope(None)?;
    for (name, value) in variables {
        vm.store(&scope, &name.into(), value)?;
    }
    let mut out = Out::new(budget)?;
    let result = vm.block(&template, &scope, &mut out);
    // Namespaces may hold each other, and each holds no more than a value's depth once it is empty.
    for space in vm.spaces.borrow().iter() {
        drop(space.entries.take());
    }
    result.map(|_| out.finish())
}

impl<'v> Vm<'v> {
    pub(super) fn scope(&self, parent: Option<Rc<Scope>>) -> Result<Rc<Scope>> {
        Ok(Rc::new(Scope {
            variables: RefCell::default(),
            parent,
            held: RefCell::new(vec![self.budget.hold(128)?]),
        }))
    }

    pub(super) fn store(&self, scope: &Scope, name: &Rc<str>, value: Value) -> Result<()> {
        let old = scope.variables.borrow_mut().insert(Rc::clone(name), value);
        if old.is_none() {
            scope.held.borrow_mut().push(self.budget.hold(96)?);
        }
        Ok(())
    }

    pub(super) fn load(&self, scope: &Rc<Scope>, name: &str) -> Result<Value> {
        let mut scope = Some(scope);
        while let Some(inner) = scope {
            if let Some(value) = inner.variables.borrow().get(name) {
                return Ok(value.clone());
            }
            self.budget.spend(1)?;
            scope = inner.parent.as_ref();
        }
        let function = FUNCTIONS.iter().find(|function| function.name == name);
        match function {
            Some(function) => self.budget.callable(Code::Function(function)),
            None => Ok(Value::Undefined),
        }
    }

    pub(super) fn set_attribute(
        &self,
        space: &Namespace,
        name: &Rc<str>,
        value: &Value,
    ) -> Result<()> {
        let mut entries = space.entries.borrow_mut();
        self.budget.spend(1 + entries.len() as u64 / 8)?;
        match entries.iter_mut().find(|(known, _)| known == name) {
            Some(entry) => entry.1 = value.clone(),
            None => {
                space
                    .held
                    .borrow_mut()
                    .push(self.budget.hold(96 + name.len())?);
                entries.push((Rc::clone(name), value.clone()));
            }
        }
        Ok(())
    }

    /// As `str` gives it.
    pub(super) fn string(&self, value: &Value) -> Result<String> {
        print::string(self.budget, value)
    }

    fn assign(&self, target: &Target, value: Value, scope: &Rc<Scope>) -> Result<()> {
        match target {
            Target::Name(name) => self.store(scope, name, value),
            Target::Attr(name, attribute) => match self.load(scope, name)? {
                Value::Namespace(space) => self.set_attribute(&space, attribute, &value),
                other => Err(Fault::new(format!(
                    "`{name}` is a {}; only a namespace's attributes can be set",
                    other.kind()
                ))),
            },
            Target::Tuple(targets) => {
                let items = sequences::items(self.budget, &value)?;
                if items.len() != targets.len() {
                    return Err(Fault::new(format!(
                        "expected {} values to unpack, got {}",
                        targets.len(),
                        items.len()
                    )));
                }
                let mut pairs = targets.iter().zip(items);
                pairs.try_for_each(|(target, item)| self.assign(target, item, scope))
            }
        }
    }

    fn block(&self, block: &Block, scope: &Rc<Scope>, out: &mut Out<'_, '_>) -> Result<Flow> {
        for stmt in block {
            let flow = self.statement(stmt, scope, out);
            match flow.map_err(|fault| fault.at(stmt.line))? {
                Flow::Next => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Next)
    }

    /// What `block` writes.
    pub(super) fn captured(&self, block: &Block, scope: &Rc<Scope>) -> Result<Value> {
        let mut out = Out::new(self.budget)?;
        self.block(block, scope, &mut out)?;
        self.budget.text(out.finish())
    }

    fn statement(&self, stmt: &Stmt, scope: &Rc<Scope>, out: &mut Out<'_, '_>) -> Result<Flow> {
        self.budget.spend(1)?;
        match &stmt.kind {
            StmtKind::Text(text) => out.push_str(text)?,
            StmtKind::Print(expr) => {
                let value = self.eval(expr, scope)?;
                print::write(out, &value)?;
            }
            StmtKind::Set(target, expr) => {
                let value = self.eval(expr, scope)?;
                self.assign(target, value, scope)?;
            }
            StmtKind::If(branches, otherwise) => {
                for (condition, block) in branches {
                    if self.eval(condition, scope)?.is_true() {
                        return self.budget.deeper(|| self.block(block, scope, out));
                    }
                }
                return self.budget.deeper(|| self.block(otherwise, scope, out));
            }
            StmtKind::For(of) => {
                let over = self.eval(&of.over, scope)?;
                self.budget
                    .deeper(|| self.iterate(of, &over, scope, 0, out))?;
            }
            StmtKind::SetBlock(target, filter, block) => {
                let text = self.budget.deeper(|| self.captured(block, scope))?;
                let value = self.filtered(filter.as_ref(), text, scope)?;
                self.assign(target, value, scope)?;
            }
            StmtKind::Filter(filter, block) => {
                let inner = self.scope(Some(Rc::clone(scope)))?;
                let text = self.budget.deeper(|| self.captured(block, &inner))?;
                print::write(out, &self.filtered(Some(filter), text, scope)?)?;
            }
            StmtKind::Macro(body) => {
                let value = Code::Macro(Rc::clone(body), Rc::downgrade(scope));
                self.store(scope, &body.name, self.budget.callable(value)?)?;
            }
            StmtKind::Call(call, body) => {
                let caller = Code::Macro(Rc::clone(body), Rc::downgrade(scope));
                let Kind::Call(function, args) = &call.kind else {
                    return Err(Fault::new("`call` of something that is no call"));
                };
                let mut called = self.arguments(args, scope)?;
                let caller = self.budget.callable(caller)?;
                called.named.push(("caller".into(), caller));
                let value = self.call_expr(function, &called, scope)?;
                print::write(out, &value)?;
            }
            StmtKind::With(assignments, block) => {
                let inner = self.scope(Some(Rc::clone(scope)))?;
                for (target, expr) in assignments {
                    let value = self.eval(expr, scope)?;
                    self.assign(target, value, &inner)?;
                }
                return self.budget.deeper(|| self.block(block, &inner, out));
            }
            StmtKind::Plain(block) => {
                return self.budget.deeper(|| self.block(block, scope, out));
            }
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
            StmtKind::Refused(what) => return Err(Fault::new(*what)),
        }
        Ok(Flow::Next)
    }

    /// Passes a block's text through filters; its innermost has no value of its own.
    fn filtered(&self, filter: Option<&Expr>, text: Value, scope: &Rc<Scope>) -> Result<Value> {
        let Some(expr) = filter else { return Ok(text) };
        let (inner, filter, args) = match &expr.kind {
            Kind::Filter(inner, filter, args) => (inner, filter, args),
            Kind::Unknown(what) => return Err(Fault::new(what.as_str())),
            _ => return Err(Fault::new("expected a filter")),
        };
        let value = self
            .budget
            .deeper(|| self.filtered(inner.as_deref(), text, scope))?;
        (filter.run)(self, &value, &self.arguments(args, scope)?)
    }

    /// Turns of a loop.
    pub(super) fn iterate(
        &self,
        of: &Rc<For>,
        over: &Value,
        scope: &Rc<Scope>,
        depth: usize,
        out: &mut Out<'_, '_>,
    ) -> Result<()> {
        let mut items = sequences::items(self.budget, over)?;
        if let Some(condition) = &of.condition {
            let mut kept = Vec::new();
            for item in items {
                let inner = self.scope(Some(Rc::clone(scope)))?;
                self.assign(&of.target, item.clone(), &inner)?;
                if self.eval(condition, &inner)?.is_true() {
                    kept.push(item);
                }
            }
            items = kept;
        }
        if items.is_empty() {
            self.block(&of.otherwise, scope, out)?;
            return Ok(());
        }
        let Value::Seq(items) = self.budget.list(items)? else {
            return Ok(());
        };
        let state = Rc::new(LoopState {
            of: Rc::clone(of),
            scope: Rc::downgrade(scope),
            items: Rc::clone(&items),
            index: Cell::new(0),
            depth,
            last_changed: RefCell::new(None),
            _held: self.budget.hold(256)?,
        });
        for (index, item) in items.items.iter().enumerate() {
            self.budget.spend(1)?;
            state.index.set(index);
            let inner = self.scope(Some(Rc::clone(scope)))?;
            self.store(&inner, &"loop".into(), Value::Loop(Rc::clone(&state)))?;
            self.assign(&of.target, item.clone(), &inner)?;
            if let Flow::Break = self.block(&of.body, &inner, out)? {
                break;
            }
        }
        Ok(())
    }
}
