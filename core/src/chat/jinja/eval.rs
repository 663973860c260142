//! Evaluation of expressions.

use super::super::limits::{Budget, Out};
use super::ast::{Args, Expr, Kind, Macro};
use super::calls::Called;
use super::value::{Callable, Code, SeqKind, Value};
use super::vm::{LoopState, Scope, Vm};
use super::{Fault, Result, methods, operators, sequences};
use std::rc::Rc;

impl Vm<'_> {
    pub(super) fn eval(&self, expr: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        self.budget.spend(1)?;
        let value = match &expr.kind {
            Kind::Const(value) => return Ok(value.clone()),
            Kind::Name(name) => self.load(scope, name),
            _ => self.budget.deeper(|| self.compound(expr, scope)),
        };
        value.map_err(|fault| fault.at(expr.line))
    }

    fn all(&self, exprs: &[Expr], scope: &Rc<Scope>) -> Result<Vec<Value>> {
        exprs.iter().map(|expr| self.eval(expr, scope)).collect()
    }

    fn compound(&self, expr: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        match &expr.kind {
            Kind::Const(value) => Ok(value.clone()),
            Kind::Name(name) => self.load(scope, name),
            Kind::List(items) => self.budget.list(self.all(items, scope)?),
            Kind::Tuple(items) => self.budget.seq(SeqKind::Tuple, self.all(items, scope)?),
            Kind::Dict(entries) => {
                let pair = |(key, value): &(Expr, Expr)| {
                    Ok((self.eval(key, scope)?, self.eval(value, scope)?))
                };
                let pairs = entries.iter().map(pair).collect::<Result<Vec<_>>>()?;
                self.budget.dict_of(pairs)
            }
            Kind::Attr(of, name) => self.attribute(&self.eval(of, scope)?, name),
            Kind::Item(of, key) => {
                let of = self.eval(of, scope)?;
                self.item(&of, &self.eval(key, scope)?)
            }
            Kind::Slice(of, bounds) => {
                let of = self.eval(of, scope)?;
                let mut values = [None, None, None];
                for (slot, bound) in values.iter_mut().zip(bounds.iter()) {
                    *slot = match bound {
                        Some(expr) => match self.eval(expr, scope)? {
                            Value::None => None,
                            value => Some(value),
                        },
                        None => None,
                    };
                }
                sequences::slice(self.budget, &of, &values)
            }
            Kind::Call(function, args) => {
                let called = self.arguments(args, scope)?;
                self.call_expr(function, &called, scope)
            }
            Kind::Filter(of, filter, args) => {
                let of = of.as_deref().map(|of| self.eval(of, scope));
                let of = of.transpose()?.unwrap_or(Value::Undefined);
                (filter.run)(self, &of, &self.arguments(args, scope)?)
            }
            Kind::Test(of, test, args) => {
                let of = self.eval(of, scope)?;
                let args = self.arguments(args, scope)?;
                (test.run)(self, &of, &args.positional).map(Value::Bool)
            }
            Kind::Unknown(what) => Err(Fault::new(what.as_str())),
            Kind::Not(of) => Ok(Value::Bool(!self.eval(of, scope)?.is_true())),
            Kind::Neg(of) => operators::negative(&self.eval(of, scope)?),
            Kind::Pos(of) => operators::negative(&operators::negative(&self.eval(of, scope)?)?),
            Kind::And(a, b) => match self.eval(a, scope)? {
                value if value.is_true() => self.eval(b, scope),
                value => Ok(value),
            },
            Kind::Or(a, b) => match self.eval(a, scope)? {
                value if value.is_true() => Ok(value),
                _ => self.eval(b, scope),
            },
            Kind::Binary(op, a, b) => {
                let (a, b) = (self.eval(a, scope)?, self.eval(b, scope)?);
                operators::binary(self.budget, *op, &a, &b)
            }
            Kind::Concat(parts) => operators::concat(self.budget, &self.all(parts, scope)?),
            Kind::Compare(first, rest) => {
                let mut left = self.eval(first, scope)?;
                for (op, right) in rest {
                    let right = self.eval(right, scope)?;
                    if !operators::compare(self.budget, *op, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Kind::If(condition, then, otherwise) => {
                if self.eval(condition, scope)?.is_true() {
                    return self.eval(then, scope);
                }
                match otherwise {
                    Some(otherwise) => self.eval(otherwise, scope),
                    None => Ok(Value::Undefined),
                }
            }
        }
    }

    pub(super) fn arguments(&self, args: &Args, scope: &Rc<Scope>) -> Result<Called> {
        let mut called = Called::with(self.all(&args.positional, scope)?);
        for (name, expr) in &args.named {
            called
                .named
                .push((Rc::clone(name), self.eval(expr, scope)?));
        }
        if let Some(list) = &args.list {
            let list = self.eval(list, scope)?;
            called
                .positional
                .extend(sequences::items(self.budget, &list)?);
        }
        if let Some(map) = &args.map {
            match self.eval(map, scope)? {
                Value::Dict(dict) => {
                    self.budget.spend(dict.entries.len() as u64)?;
                    for (key, value) in &dict.entries {
                        let key = key.as_str().ok_or_else(|| Fault::new("expected names"))?;
                        self.budget.room(key.len())?;
                        self.budget.read(key.len())?;
                        called.named.push((key.into(), value.clone()));
                    }
                }
                other => return Err(Fault::new(format!("`**` of a {}", other.kind()))),
            }
        }
        Ok(called)
    }

    pub(super) fn call_expr(
        &self,
        function: &Expr,
        called: &Called,
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        let value = self.eval(function, scope)?;
        let name = match &function.kind {
            Kind::Name(name) | Kind::Attr(_, name) => name,
            _ => "it",
        };
        match value {
            Value::Undefined => Err(Fault::new(format!("`{name}` is undefined"))),
            Value::Callable(callable) => self.call(&callable, called),
            Value::Loop(state) => {
                let [over] = called.bind(["over"])?;
                let scope = state.scope.upgrade().filter(|_| state.of.recursive);
                let scope = scope.ok_or_else(|| Fault::new("the loop is not recursive"))?;
                let mut out = Out::new(self.budget)?;
                let over = super::calls::given(over)?;
                self.budget
                    .deeper(|| self.iterate(&state.of, &over, &scope, state.depth + 1, &mut out))?;
                self.budget.text(out.finish())
            }
            other => Err(Fault::new(format!("a {} cannot be called", other.kind()))),
        }
    }

    pub(super) fn call(&self, callable: &Callable, called: &Called) -> Result<Value> {
        match &callable.what {
            Code::Function(function) => (function.call)(self, called),
            Code::Method(of, method) => (method.run)(self, of, called),
            Code::Macro(body, scope) => {
                let scope = scope.upgrade();
                let scope = scope.ok_or_else(|| Fault::new("a macro outlives its block"))?;
                self.budget.deeper(|| self.expand(body, called, scope))
            }
        }
    }

    /// What a macro writes.
    fn expand(&self, body: &Macro, called: &Called, outer: Rc<Scope>) -> Result<Value> {
        let scope = self.scope(Some(outer))?;
        let mut positional = called.positional.iter().cloned();
        let mut named: Vec<_> = called.named.clone();
        for (name, default) in &body.parameters {
            self.budget.spend(1 + named.len() as u64 / 8)?;
            let by_name = named.iter().position(|(given, _)| given == name);
            let value = match (positional.next(), by_name, default) {
                (Some(_), Some(_), _) => {
                    return Err(Fault::new(format!("`{name}` is given twice")));
                }
                (Some(value), ..) => value,
                (None, Some(at), _) => named.remove(at).1,
                (None, None, Some(default)) => self.eval(default, &scope)?,
                (None, None, None) => Value::Undefined,
            };
            self.store(&scope, name, value)?;
        }
        if body.caller {
            let at = named.iter().position(|(name, _)| &**name == "caller");
            let caller = at.map_or(Value::Undefined, |at| named.remove(at).1);
            self.store(&scope, &"caller".into(), caller)?;
        }
        let rest: Vec<Value> = positional.collect();
        if body.varargs {
            let rest = self.budget.seq(SeqKind::Tuple, rest)?;
            self.store(&scope, &"varargs".into(), rest)?;
        } else if !rest.is_empty() {
            let (name, most) = (&body.name, body.parameters.len());
            return Err(Fault::new(format!(
                "`{name}` takes at most {most} arguments"
            )));
        }
        if body.kwargs {
            let pair = |(name, value): (Rc<str>, Value)| Ok((self.budget.text(&*name)?, value));
            let pairs = named.into_iter().map(pair).collect::<Result<Vec<_>>>()?;
            self.store(&scope, &"kwargs".into(), self.budget.dict_of(pairs)?)?;
        } else if let Some((name, _)) = named.first() {
            let of = &body.name;
            return Err(Fault::new(format!("`{of}` takes no argument `{name}`")));
        }
        self.captured(&body.body, &scope)
    }

    /// `of.name`: an attribute, a method, or an entry by that name.
    pub(super) fn attribute(&self, of: &Value, name: &Rc<str>) -> Result<Value> {
        let method = |method| self.budget.callable(Code::Method(of.clone(), method));
        match of {
            Value::Undefined => Err(Fault::new(format!(
                "an undefined value has no attribute `{name}`"
            ))),
            Value::Namespace(space) => {
                let entries = space.entries.borrow();
                self.budget.spend(entries.len() as u64 / 8)?;
                let found = entries.iter().find(|(known, _)| known == name);
                Ok(found.map_or(Value::Undefined, |(_, value)| value.clone()))
            }
            Value::Loop(state) => match methods::LOOP.iter().find(|m| *m.name == **name) {
                Some(found) => method(found),
                None => self.loop_attribute(state, name),
            },
            Value::Callable(callable) => match (&callable.what, &**name) {
                (Code::Macro(body, _), "name") => self.budget.text(&*body.name),
                _ => Ok(Value::Undefined),
            },
            _ => {
                let methods = methods::of(of);
                if let Some(found) = methods.iter().find(|m| *m.name == **name) {
                    return method(found);
                }
                match of {
                    Value::Dict(_) if methods::CHANGING.contains(&&**name) => Ok(Value::Undefined),
                    Value::Dict(dict) => {
                        let key = Value::Str(Rc::clone(&self.key(name)?));
                        Ok(dict
                            .get(self.budget, &key)?
                            .cloned()
                            .unwrap_or(Value::Undefined))
                    }
                    _ => Ok(Value::Undefined),
                }
            }
        }
    }

    fn key(&self, name: &str) -> Result<Rc<super::value::Text>> {
        match self.budget.text(name)? {
            Value::Str(text) => Ok(text),
            _ => Err(Fault::new("expected a text")),
        }
    }

    /// `of[key]`: an entry, or else an attribute by that name.
    pub(super) fn item(&self, of: &Value, key: &Value) -> Result<Value> {
        if let Some(value) = sequences::item(self.budget, of, key)? {
            return Ok(value);
        }
        match (of, key) {
            (Value::Undefined, _) => Err(Fault::new("an undefined value has no items")),
            (_, Value::Str(name)) => {
                self.budget.read(name.text.len())?;
                self.attribute(of, &(&*name.text).into())
            }
            _ => Ok(Value::Undefined),
        }
    }

    fn loop_attribute(&self, state: &LoopState, name: &str) -> Result<Value> {
        let (index, count) = (state.index.get(), state.items.items.len());
        let number = |n: usize| Ok(Value::Int(n as i128));
        let at = |index: Option<usize>| {
            let item = index.and_then(|index| state.items.items.get(index));
            Ok(item.cloned().unwrap_or(Value::Undefined))
        };
        match name {
            "index" => number(index + 1),
            "index0" => number(index),
            "revindex" => number(count - index),
            "revindex0" => number(count - index - 1),
            "first" => Ok(Value::Bool(index == 0)),
            "last" => Ok(Value::Bool(index + 1 == count)),
            "length" => number(count),
            "depth" => number(state.depth + 1),
            "depth0" => number(state.depth),
            "previtem" => at(index.checked_sub(1)),
            "nextitem" => at(Some(index + 1)),
            _ => Ok(Value::Undefined),
        }
    }

    /// Two-item sequences as pairs.
    pub(super) fn pairs(&self, value: &Value) -> Result<Vec<(Value, Value)>> {
        let pair = |item: Value| {
            let mut parts = sequences::items(self.budget, &item)?.into_iter();
            match (parts.next(), parts.next(), parts.next()) {
                (Some(key), Some(value), None) => Ok((key, value)),
                _ => Err(Fault::new("expected pairs")),
            }
        };
        sequences::items(self.budget, value)?
            .into_iter()
            .map(pair)
            .collect()
    }
}

impl LoopState {
    pub(super) fn index(&self) -> usize {
        self.index.get()
    }

    pub(super) fn depth_of_items(&self) -> u16 {
        self.items.depth
    }

    /// Whether `value` is another than at the last call.
    pub(super) fn changed(&self, budget: &Budget<'_>, value: Value) -> Result<bool> {
        if value.depth() > 0 || matches!(value, Value::Namespace(_)) {
            return Err(Fault::new(format!("loop.changed of a {}", value.kind())));
        }
        let mut last = self.last_changed.borrow_mut();
        let same = match &*last {
            Some(last) => operators::equal(budget, last, &value)?,
            None => false,
        };
        *last = Some(value);
        Ok(!same)
    }
}
