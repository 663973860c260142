//! A template as a tree. Every expression knows how deep it is, so that no chain of operators is deeper than the stack of those who walk it.

use super::value::Value;
use std::rc::Rc;

pub(super) struct Expr {
    pub(super) kind: Kind,
    pub(super) line: u32,
    pub(super) depth: u16,
}

pub(super) enum Kind {
    Const(Value),
    Name(Rc<str>),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attr(Box<Expr>, Rc<str>),
    Item(Box<Expr>, Box<Expr>),
    /// A value, and from, to and step.
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    Call(Box<Expr>, Args),
    /// Without a value in a block that filters its text.
    Filter(Option<Box<Expr>>, &'static super::filters::Filter, Args),
    Test(Box<Expr>, &'static super::tests::Test, Args),
    /// A filter or test that does not exist; an error once it is reached.
    Unknown(String),
    Not(Box<Expr>),
    Neg(Box<Expr>),
    Pos(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    Concat(Vec<Expr>),
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    /// Condition, then, else.
    If(Box<Expr>, Box<Expr>, Option<Box<Expr>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

#[derive(Default)]
pub(super) struct Args {
    pub(super) positional: Vec<Expr>,
    pub(super) named: Vec<(Rc<str>, Expr)>,
    /// `*args` and `**kwargs`.
    pub(super) list: Option<Box<Expr>>,
    pub(super) map: Option<Box<Expr>>,
}

pub(super) type Block = Vec<Stmt>;

/// What an assignment or a loop names.
pub(super) enum Target {
    Name(Rc<str>),
    Tuple(Vec<Target>),
    /// An attribute of a namespace.
    Attr(Rc<str>, Rc<str>),
}

pub(super) struct Stmt {
    pub(super) kind: StmtKind,
    pub(super) line: u32,
}

pub(super) enum StmtKind {
    Text(Rc<str>),
    Print(Expr),
    /// The branches `if` and `elif`, and `else`.
    If(Vec<(Expr, Block)>, Block),
    For(Rc<For>),
    Set(Target, Expr),
    /// What the block writes, through filters.
    SetBlock(Target, Option<Expr>, Block),
    Macro(Rc<Macro>),
    /// A call with what the block writes as its `caller`.
    Call(Expr, Rc<Macro>),
    Filter(Expr, Block),
    With(Vec<(Target, Expr)>, Block),
    /// A block that is just taken.
    Plain(Block),
    Break,
    Continue,
    /// What no template can do here; an error once it is reached.
    Refused(&'static str),
}

pub(super) struct For {
    pub(super) target: Target,
    pub(super) over: Expr,
    pub(super) condition: Option<Expr>,
    pub(super) recursive: bool,
    pub(super) body: Block,
    pub(super) otherwise: Block,
}

pub(super) struct Macro {
    pub(super) name: Rc<str>,
    /// Names with their defaults.
    pub(super) parameters: Vec<(Rc<str>, Option<Expr>)>,
    pub(super) body: Block,
    /// Which of `varargs`, `kwargs` and `caller` the body names.
    pub(super) varargs: bool,
    pub(super) kwargs: bool,
    pub(super) caller: bool,
}
