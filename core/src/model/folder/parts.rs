//! What a family's rows are made of: weights, by the names that folders and GGUF have for them, and in which layers they are.

use super::fields::{Fields, Shape};

/// Weights of every layer, or of the layers of one kind.
pub struct Group {
    /// `None`: of every layer.
    pub kind: Option<Kind>,
    pub parts: &'static [Part],
}

/// What layers differ in: how they mix positions, and what they do to each position by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Attention,
    /// With keys that are the values too.
    TiedAttention,
    /// Over the KV cache of a layer before it.
    SharedAttention,
    ShortConv,
    DeltaNet,
    StateSpace,
    Dense,
    Experts,
}

/// How a layer mixes positions, and what it does to each by itself.
pub type Layer = [Kind; 2];

/// A weight and, where the folder has it, its bias of `rows` values.
pub struct Part {
    /// The folder's name for it; `*` is the number of one of several.
    pub from: &'static str,
    pub to: &'static str,
    pub rows: Dim,
    pub form: Form,
    pub need: Need,
    pub heads: Heads,
}

/// In which order the value heads of a delta net lie in a weight. Folders have those together that share a key head; GGUF has one of each key head after
/// the other, so that value head h reads key head h modulo their number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Heads {
    /// It has none.
    None,
    /// The last rows are theirs.
    Rows,
    /// The columns are theirs.
    Cols,
}

/// How a weight lies in the folder.
#[derive(Clone, Copy)]
pub enum Form {
    /// `[rows]`
    Vector,
    /// `[rows, cols]`
    Matrix(Dim),
    /// Piece `piece` of a matrix `[pieces · rows, cols]`.
    Piece {
        cols: Dim,
        piece: usize,
        pieces: usize,
    },
    /// Numbered vectors `[cols]`, which are the rows of the file's matrix.
    Rows(Dim),
    /// A depthwise convolution's kernels `[rows, 1, cols]`, a matrix in the file.
    Kernels(Dim),
    /// `[rows]`, a bias without a weight, under `from` itself.
    Bias,
    /// `[rows]` under `from` itself.
    Buffer,
    /// It is left out: nothing reads it.
    Skipped,
    /// `[rows]` under `from` itself, which the file has under `to` itself.
    Scalars {
        /// The file has −exp of them.
        negative_exp: bool,
        /// The file has them as a matrix of one column.
        column: bool,
    },
    /// `[rows]`, in the file a matrix of so many rows.
    Groups(Dim),
    /// Numbered matrices `[rows, cols]`, which are one tensor `[experts, rows, cols]` in the file.
    Experts {
        cols: Dim,
        /// Newer folders' tensor of all experts: `[experts, pieces · rows, cols]`, of which this is a piece.
        whole: &'static str,
        piece: usize,
        pieces: usize,
    },
}

#[derive(Clone, Copy)]
pub enum Dim {
    Vocabulary,
    Width,
    /// All heads of queries.
    Queries,
    /// All heads of keys or values.
    Keys,
    /// Queries, keys and values.
    Joined,
    FeedForward,
    /// Gate and up.
    Gated,
    Head,
    Heads,
    KvHeads,
    Context,
    TokenTypes,
    Experts,
    /// Inner length of one expert.
    Expert,
    /// Inner length of the expert that all tokens take.
    SharedExpert,
    /// One layer's own input of a token.
    LayerInput,
    /// All layers' inputs of a token.
    LayerInputs,
    /// A short convolution's two gates and input.
    ConvInput,
    /// Positions that a convolution sees.
    Kernel,
    /// All heads of queries, each with its gate.
    GatedQueries,
    /// A delta net's queries, keys and values.
    DeltaConv,
    /// All value heads of a delta net.
    DeltaValues,
    /// A delta net's value heads, counted.
    DeltaHeads,
    /// One value head of a delta net.
    DeltaHead,
    /// A state space's gate, what its convolution reads, and steps.
    StateInput,
    /// What a state space's convolution reads: values, keys and queries.
    StateConv,
    /// All heads of a state space.
    StateValues,
    /// A state space's heads, counted.
    StateHeads,
    /// Groups of a state space's heads, counted.
    StateGroups,
    /// What a classifier tells apart.
    Labels,
    One,
}

/// When a weight must be there; otherwise it must not.
#[derive(Clone, Copy)]
pub enum Need {
    Always,
    /// When this field is a number above 0.
    IfAny(&'static str),
    /// When it is not.
    IfNone(&'static str),
    /// When this field has this value (absent: false).
    If(&'static str, bool),
    /// When this field is not false.
    Unless(&'static str),
    /// When the folder's class classifies texts.
    Classifies,
    /// In layers after the first.
    AfterFirst,
}

impl Need {
    /// Whether it is there by these fields.
    #[must_use]
    pub fn holds(self, fields: &Fields) -> bool {
        match self {
            Need::Always | Need::AfterFirst => true,
            Need::IfAny(field) => fields.any(field),
            Need::IfNone(field) => !fields.any(field),
            Need::If(field, value) => fields.flag(field) == value,
            Need::Unless(field) => fields[field] != false,
            Need::Classifies => fields.classifies(),
        }
    }
}

impl Dim {
    /// How long it is.
    #[must_use]
    pub fn of(self, shape: &Shape) -> usize {
        let (queries, keys) = (
            shape.heads * shape.head_dim,
            shape.kv_heads * shape.head_dim,
        );
        let delta_values = shape.delta_value_heads * shape.delta_head;
        let state_conv = shape.state_values + 2 * shape.state_groups * shape.state_length;
        match self {
            Dim::Vocabulary => shape.vocabulary,
            Dim::Width => shape.width,
            Dim::Queries => queries,
            Dim::Keys => keys,
            Dim::Joined => queries + 2 * keys,
            Dim::FeedForward => shape.feed_forward,
            Dim::Gated => 2 * shape.feed_forward,
            Dim::Head => shape.head_dim,
            Dim::Heads => shape.heads,
            Dim::KvHeads => shape.kv_heads,
            Dim::Context => shape.context,
            Dim::TokenTypes => shape.token_types,
            Dim::Experts => shape.experts,
            Dim::Expert => shape.expert_length,
            Dim::SharedExpert => shape.shared_length,
            Dim::LayerInput => shape.layer_input,
            Dim::LayerInputs => shape.layers.len() * shape.layer_input,
            Dim::ConvInput => 3 * shape.width,
            Dim::Kernel => shape.kernel,
            Dim::GatedQueries => 2 * queries,
            Dim::DeltaConv => 2 * shape.delta_key_heads * shape.delta_head + delta_values,
            Dim::DeltaValues => delta_values,
            Dim::DeltaHeads => shape.delta_value_heads,
            Dim::DeltaHead => shape.delta_head,
            Dim::StateInput => shape.state_values + state_conv + shape.state_heads,
            Dim::StateConv => state_conv,
            Dim::StateValues => shape.state_values,
            Dim::StateHeads => shape.state_heads,
            Dim::StateGroups => shape.state_groups,
            Dim::Labels => shape.labels,
            Dim::One => 1,
        }
    }
}

pub(crate) const fn every(parts: &'static [Part]) -> Group {
    Group { kind: None, parts }
}

pub(crate) const fn only(kind: Kind, parts: &'static [Part]) -> Group {
    Group {
        kind: Some(kind),
        parts,
    }
}

const fn part(from: &'static str, to: &'static str, rows: Dim, form: Form) -> Part {
    Part {
        from,
        to,
        rows,
        form,
        need: Need::Always,
        heads: Heads::None,
    }
}

pub(crate) const fn matrix(from: &'static str, to: &'static str, rows: Dim, cols: Dim) -> Part {
    part(from, to, rows, Form::Matrix(cols))
}

pub(crate) const fn vector(from: &'static str, to: &'static str, rows: Dim) -> Part {
    part(from, to, rows, Form::Vector)
}

pub(crate) const fn rows(from: &'static str, to: &'static str, rows: Dim, cols: Dim) -> Part {
    part(from, to, rows, Form::Rows(cols))
}

pub(crate) const fn kernels(from: &'static str, to: &'static str, rows: Dim, cols: Dim) -> Part {
    part(from, to, rows, Form::Kernels(cols))
}

/// Piece `piece` of a matrix of `pieces`.
pub(crate) const fn piece(
    from: &'static str,
    to: &'static str,
    [rows, cols]: [Dim; 2],
    [piece, pieces]: [usize; 2],
) -> Part {
    let form = Form::Piece {
        cols,
        piece,
        pieces,
    };
    part(from, to, rows, form)
}

pub(crate) const fn bias(from: &'static str, to: &'static str, rows: Dim) -> Part {
    part(from, to, rows, Form::Bias)
}

pub(crate) const fn buffer(from: &'static str, to: &'static str, rows: Dim) -> Part {
    part(from, to, rows, Form::Buffer)
}

pub(crate) const fn skipped(from: &'static str) -> Part {
    part(from, "", Dim::One, Form::Skipped)
}

/// `whole`: the tensor of all experts, and which of how many pieces this is.
pub(crate) const fn experts(
    from: &'static str,
    to: &'static str,
    [rows, cols]: [Dim; 2],
    (whole, piece, pieces): (&'static str, usize, usize),
) -> Part {
    let form = Form::Experts {
        cols,
        whole,
        piece,
        pieces,
    };
    part(from, to, rows, form)
}

pub(crate) const fn scalars(from: &'static str, to: &'static str, rows: Dim) -> Part {
    let form = Form::Scalars {
        negative_exp: false,
        column: false,
    };
    part(from, to, rows, form)
}

pub(crate) const fn negative_exp(from: &'static str, to: &'static str, rows: Dim) -> Part {
    let form = Form::Scalars {
        negative_exp: true,
        column: false,
    };
    part(from, to, rows, form)
}

/// A vector that the file has as a matrix of `groups` rows.
pub(crate) const fn grouped(from: &'static str, to: &'static str, rows: Dim, groups: Dim) -> Part {
    part(from, to, rows, Form::Groups(groups))
}

impl Part {
    pub(crate) const fn heads(self, heads: Heads) -> Part {
        Part { heads, ..self }
    }

    /// Of scalars: the file has them as a matrix of one column.
    pub(crate) const fn column(self) -> Part {
        let Form::Scalars { negative_exp, .. } = self.form else {
            panic!("scalars");
        };
        let form = Form::Scalars {
            negative_exp,
            column: true,
        };
        Part { form, ..self }
    }

    pub(crate) const fn when(self, field: &'static str, value: bool) -> Part {
        Part {
            need: Need::If(field, value),
            ..self
        }
    }

    pub(crate) const fn when_any(self, field: &'static str) -> Part {
        Part {
            need: Need::IfAny(field),
            ..self
        }
    }

    pub(crate) const fn when_none(self, field: &'static str) -> Part {
        Part {
            need: Need::IfNone(field),
            ..self
        }
    }

    pub(crate) const fn when_classifying(self) -> Part {
        Part {
            need: Need::Classifies,
            ..self
        }
    }

    pub(crate) const fn after_first(self) -> Part {
        Part {
            need: Need::AfterFirst,
            ..self
        }
    }

    pub(crate) const fn unless(self, field: &'static str) -> Part {
        Part {
            need: Need::Unless(field),
            ..self
        }
    }
}
