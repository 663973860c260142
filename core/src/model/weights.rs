//! Views of a model's tensors in the map. Nothing is copied here; what is missing or has another shape is an error that names it.

use super::config::{Config, HeadNorm, NormKind, Rope};
use crate::gguf::{self, Tensor};
use crate::kernels::Weight;
use crate::quant::{self, Format};
use crate::{Error, Result};
use std::collections::HashSet;
use std::ops::Range;

/// What a family's tensors are called. GGUF's names are one list for all families, of which each has its own part: `None` is what it never has.
/// Parts of a layer are prefixed with `blk.`, the layer's number and a dot; matrices end in `.weight` and may have a `.bias` beside it, and norms are
/// the same.
pub(crate) struct Names {
    /// Added to every token's embedding: the first row of a table of token types, which a file may lack.
    pub(crate) token_types: Option<&'static str>,
    /// Added to every token's embedding: the position's row.
    pub(crate) positions: Option<&'static str>,
    /// Norm of the embeddings' sum.
    pub(crate) embedding_norm: Option<&'static str>,
    pub(crate) output_norm: Option<&'static str>,
    /// Norm of what attention reads.
    pub(crate) attention_norm: Option<&'static str>,
    /// Norm of what attention adds.
    pub(crate) attention_post_norm: Option<&'static str>,
    /// Norm of the residual stream after attention was added.
    pub(crate) attention_sum_norm: Option<&'static str>,
    /// Norm of what the feed-forward part reads.
    pub(crate) feed_forward_norm: Option<&'static str>,
    /// Norm of what the feed-forward part adds.
    pub(crate) feed_forward_post_norm: Option<&'static str>,
    /// Norm of the residual stream after the feed-forward part was added.
    pub(crate) feed_forward_sum_norm: Option<&'static str>,
    /// The gate. Where a gated family has none, the first half of `ffn_up` is it.
    pub(crate) gate: Option<&'static str>,
    /// Parts of names of tensors that may lie in a file and change nothing.
    pub(crate) unused: &'static [&'static str],
}

impl Names {
    /// Llama's: norms before attention and the feed-forward part, and one at the end.
    pub(crate) const LLAMA: Names = Names {
        token_types: None,
        positions: None,
        embedding_norm: None,
        output_norm: Some("output_norm"),
        attention_norm: Some("attn_norm"),
        attention_post_norm: None,
        attention_sum_norm: None,
        feed_forward_norm: Some("ffn_norm"),
        feed_forward_post_norm: None,
        feed_forward_sum_norm: None,
        gate: Some("ffn_gate"),
        // Old converters wrote the inverse frequencies that everybody computes.
        unused: &["attn_rot_embd", "rope_freqs", "attn.rope.freqs"],
    };
}

/// A matrix in the map.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub(crate) format: &'static Format,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Where its bytes lie in the file: `[rows, cols]` in blocks of `format`.
    pub(crate) range: Range<usize>,
    /// What the forward pass multiplies with after it and those that it goes together with; empty where nothing is known.
    pub(crate) then: Vec<Matrix>,
}

impl Matrix {
    /// Rows `rows` of it.
    pub(super) fn rows(&self, rows: Range<usize>) -> Matrix {
        let row = self.range.len() / self.rows;
        Matrix {
            rows: rows.len(),
            range: self.range.start + rows.start * row..self.range.start + rows.end * row,
            ..self.clone()
        }
    }

    /// The matrix as the kernels take it.
    pub(crate) fn view<'a>(&self, file: &'a gguf::File) -> Weight<'a> {
        Weight {
            format: self.format,
            bytes: file.at(self.range.clone()),
            rows: self.rows,
            cols: self.cols,
        }
    }
}

/// A matrix and, in some models, a bias `[rows]`.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    pub(crate) matrix: Matrix,
    pub(crate) bias: Option<Matrix>,
}

/// A norm's weights `[length]` and, in layer norms, its bias `[length]`.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Matrix,
    pub(crate) bias: Option<Matrix>,
}

/// One layer. Norms are `[embedding]`; which there are is the family's.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Option<Norm>,
    pub(crate) query: Linear, // [heads · key_length, embedding]
    pub(crate) key: Linear,   // [kv_heads · key_length, embedding]
    pub(crate) value: Linear, // [kv_heads · value_length, embedding]
    pub(crate) head_norms: Option<[Norm; 2]>, // of queries and keys: see `HeadNorm`
    pub(crate) attention_output: Linear, // [embedding, heads · value_length]
    pub(crate) attention_post_norm: Option<Norm>,
    pub(crate) attention_sum_norm: Option<Norm>,
    pub(crate) feed_forward_norm: Option<Norm>,
    pub(crate) gate: Option<Linear>, // [feed_forward, embedding]
    pub(crate) up: Linear,           // [feed_forward, embedding]
    pub(crate) down: Linear,         // [embedding, feed_forward]
    pub(crate) feed_forward_post_norm: Option<Norm>,
    pub(crate) feed_forward_sum_norm: Option<Norm>,
}

/// Every tensor the forward pass reads.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    pub(crate) embedding: Matrix,           // [vocabulary, embedding]
    pub(crate) token_types: Option<Matrix>, // [types, embedding]
    pub(crate) positions: Option<Matrix>,   // [context, embedding]
    pub(crate) embedding_norm: Option<Norm>,
    pub(crate) layers: Vec<Layer>, // [layers]
    pub(crate) output_norm: Option<Norm>,
    pub(crate) output: Matrix, // [vocabulary, embedding]
    /// Turns per position of each pair, for each of the config's rotary embeddings
    pub(crate) turns: Vec<Turns>,
}

/// Turns per position of each pair, with scaling and factors applied.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    short: Vec<f32>,        // [rope dimensions / 2]
    long: Option<Vec<f32>>, // [rope dimensions / 2]: in contexts longer than the original one
}

impl Turns {
    /// `[rope dimensions / 2]`, for a session of `context` positions.
    pub(crate) fn of(&self, rope: &Rope, context: usize) -> &[f32] {
        match &self.long {
            Some(long) if context > rope.original_context => long,
            _ => &self.short,
        }
    }
}

/// Looks up tensors and remembers which were asked for.
pub(super) struct Finder<'a> {
    file: &'a gguf::File,
    used: HashSet<&'a str>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(file: &'a gguf::File) -> Self {
        Finder {
            file,
            used: HashSet::new(),
        }
    }

    /// A tensor that nobody asked for.
    pub(super) fn unused(&self) -> Option<Tensor<'a>> {
        let mut tensors = self.file.tensors();
        tensors.find(|tensor| !self.used.contains(tensor.name()))
    }

    fn get(&mut self, name: &str) -> Option<Tensor<'a>> {
        let tensor = self.file.get_tensor(name)?;
        self.used.insert(tensor.name());
        Some(tensor)
    }

    fn shaped(&self, tensor: Tensor<'a>, expected: &[usize]) -> Result<Matrix> {
        // GGML drops and adds trailing dimensions of 1 freely.
        let trimmed = |shape: &[usize]| {
            shape[..shape
                .iter()
                .rposition(|&n| n != 1)
                .map_or(1, |last| last + 1)]
                .to_vec()
        };
        if !tensor.format().is_read() {
            return Err(Error::UnsupportedFormat {
                file: self.file.name().into(),
                tensor: tensor.name().into(),
                expected: quant::names(),
                got: tensor.format().name.into(),
            });
        }
        if trimmed(tensor.shape()) != trimmed(expected) {
            return Err(Error::BadShape {
                file: self.file.name().into(),
                tensor: tensor.name().into(),
                expected: expected.to_vec(),
                got: tensor.shape().to_vec(),
            });
        }
        Ok(Matrix {
            format: tensor.format(),
            rows: tensor.rows(),
            cols: tensor.cols(),
            range: tensor.range(),
            then: Vec::new(),
        })
    }

    pub(super) fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let tensor = self.get(name).map_or_else(|| self.file.tensor(name), Ok)?;
        self.shaped(tensor, &[cols, rows])
    }

    /// The matrix `name.weight` and its optional bias.
    fn linear(&mut self, name: &str, rows: usize, cols: usize) -> Result<Linear> {
        Ok(Linear {
            matrix: self.matrix(&format!("{name}.weight"), rows, cols)?,
            bias: self.bias(name, rows)?,
        })
    }

    fn bias(&mut self, name: &str, rows: usize) -> Result<Option<Matrix>> {
        self.get(&format!("{name}.bias"))
            .map(|tensor| self.shaped(tensor, &[rows]))
            .transpose()
    }

    /// Three matrices that lie in one tensor, row after row, or else each in its own.
    fn joined(
        &mut self,
        whole: &str,
        parts: [(&str, usize); 3],
        cols: usize,
    ) -> Result<[Linear; 3]> {
        if self.file.get_tensor(&format!("{whole}.weight")).is_none() {
            let [a, b, c] = parts.map(|(name, rows)| self.linear(name, rows, cols));
            return Ok([a?, b?, c?]);
        }
        let rows = parts.iter().map(|part| part.1).sum();
        let matrix = self.matrix(&format!("{whole}.weight"), rows, cols)?;
        let mut start = 0;
        Ok(parts.map(|(_, rows)| {
            start += rows;
            Linear {
                matrix: matrix.rows(start - rows..start),
                bias: None,
            }
        }))
    }

    /// The norm `name`, with a bias where norms have one.
    fn norm(&mut self, name: &str, shape: &[usize], bias: bool) -> Result<Norm> {
        let mut vector = |part: &str| {
            let name = format!("{name}.{part}");
            let tensor = self
                .get(&name)
                .map_or_else(|| self.file.tensor(&name), Ok)?;
            self.shaped(tensor, shape)
        };
        Ok(Norm {
            weight: vector("weight")?,
            bias: if bias { Some(vector("bias")?) } else { None },
        })
    }
}

impl Weights {
    /// Every matrix that vectors are multiplied with.
    pub(super) fn multiplied(&self) -> impl Iterator<Item = &Matrix> {
        let layers = self.layers.iter().flat_map(|layer| {
            let Layer {
                query, key, value, ..
            } = layer;
            let (output, up, down) = (&layer.attention_output, &layer.up, &layer.down);
            let always = [query, key, value, output, up, down].into_iter();
            always.chain(&layer.gate).map(|linear| &linear.matrix)
        });
        layers.chain([&self.output])
    }

    /// Finds every tensor of `config` under the family's `names`.
    pub(crate) fn find(file: &gguf::File, config: &Config, names: &Names) -> Result<Weights> {
        let mut find = Finder::new(file);
        let d = config.embedding_length;
        let biased = config.norm == NormKind::Layer;
        let embedding = find.matrix("token_embd.weight", config.vocabulary, d)?;
        let token_types = names.token_types.and_then(|name| find.get(name));
        let token_types = token_types
            .map(|tensor| find.shaped(tensor, &[d, tensor.rows()]))
            .transpose()?;
        let positions = names
            .positions
            .map(|name| find.matrix(name, config.context_length, d))
            .transpose()?;
        let mut norm =
            |name: Option<&str>| name.map(|name| find.norm(name, &[d], biased)).transpose();
        let (embedding_norm, output_norm) = (norm(names.embedding_norm)?, norm(names.output_norm)?);
        let output = match find.get("output.weight") {
            Some(tensor) => find.shaped(tensor, &[d, config.vocabulary])?,
            None => embedding.clone(),
        };
        let turns = turns(&mut find, config)?;
        let layers = (0..config.layers)
            .map(|number| layer(&mut find, config, names, number))
            .collect::<Result<_>>()?;

        // A tensor that nobody reads would change the answers of a runtime that does read it.
        let stranger = file.tensors().find(|tensor| {
            !find.used.contains(tensor.name())
                && !names.unused.iter().any(|part| tensor.name().contains(part))
        });
        match stranger {
            Some(tensor) => Err(Error::UnexpectedTensor {
                file: file.name().into(),
                tensor: tensor.name().into(),
            }),
            None => Ok(Weights {
                embedding,
                token_types,
                positions,
                embedding_norm,
                layers,
                output_norm,
                output,
                turns,
            }
            .in_order()),
        }
    }
}

impl Weights {
    /// Says of each group of matrices which one comes next; after the last, the next token's first.
    fn in_order(mut self) -> Weights {
        let mut next = vec![self.output.clone()];
        for layer in self.layers.iter_mut().rev() {
            for group in layer.groups().into_iter().rev() {
                let own = group.iter().map(|matrix| (*matrix).clone()).collect();
                if let Some(last) = group.into_iter().next_back() {
                    last.then = std::mem::replace(&mut next, own);
                }
            }
        }
        self.output.then = next;
        self
    }
}

impl Layer {
    /// Its matrices in the order of the forward pass; a group is multiplied with one input.
    fn groups(&mut self) -> [Vec<&mut Matrix>; 4] {
        let gate = self.gate.iter_mut();
        [
            vec![&mut self.query, &mut self.key, &mut self.value],
            vec![&mut self.attention_output],
            gate.chain([&mut self.up]).collect(),
            vec![&mut self.down],
        ]
        .map(|group| group.into_iter().map(|linear| &mut linear.matrix).collect())
    }
}

fn layer(find: &mut Finder<'_>, config: &Config, names: &Names, number: usize) -> Result<Layer> {
    let (d, ff) = (config.embedding_length, config.feed_forward_length);
    let (queries, keys) = (config.query_length(), config.keys_length());
    let at = |name: &str| format!("blk.{number}.{name}");
    let mut norm = |name: Option<&str>| {
        let biased = config.norm == NormKind::Layer;
        name.map(|name| find.norm(&at(name), &[d], biased))
            .transpose()
    };
    let attention_norm = norm(names.attention_norm)?;
    let attention_post_norm = norm(names.attention_post_norm)?;
    let attention_sum_norm = norm(names.attention_sum_norm)?;
    let feed_forward_norm = norm(names.feed_forward_norm.filter(|_| !config.parallel))?;
    let feed_forward_post_norm = norm(names.feed_forward_post_norm)?;
    let feed_forward_sum_norm = norm(names.feed_forward_sum_norm)?;

    let [query, key, value] = find.joined(
        &at("attn_qkv"),
        [
            (&*at("attn_q"), queries),
            (&*at("attn_k"), keys),
            (&*at("attn_v"), config.values_length()),
        ],
        d,
    )?;
    let head_norms = match config.head_norm {
        None => None,
        Some(kind) => {
            let shape = |heads: usize| match kind {
                HeadNorm::Shared => vec![config.key_length],
                HeadNorm::Own => vec![config.key_length, heads],
                HeadNorm::Whole => vec![config.key_length * heads],
            };
            Some([
                find.norm(&at("attn_q_norm"), &shape(config.heads), false)?,
                find.norm(&at("attn_k_norm"), &shape(config.kv_heads), false)?,
            ])
        }
    };
    let (gate, up) = match names.gate {
        Some(gate) => (
            Some(find.linear(&at(gate), ff, d)?),
            find.linear(&at("ffn_up"), ff, d)?,
        ),
        None if config.activation.gated() => {
            let whole = find.matrix(&at("ffn_up.weight"), 2 * ff, d)?;
            let [gate, up] = [0, ff].map(|start| Linear {
                matrix: whole.rows(start..start + ff),
                bias: None,
            });
            (Some(gate), up)
        }
        None => (None, find.linear(&at("ffn_up"), ff, d)?),
    };
    Ok(Layer {
        attention_norm,
        query,
        key,
        value,
        head_norms,
        attention_output: find.linear(&at("attn_output"), d, config.mixed_length())?,
        attention_post_norm,
        attention_sum_norm,
        feed_forward_norm,
        gate,
        up,
        down: find.linear(&at("ffn_down"), d, ff)?,
        feed_forward_post_norm,
        feed_forward_sum_norm,
    })
}

/// The turns of every rotary embedding. Factors lie in the file for all contexts, or for short and long ones; local layers take none.
fn turns(find: &mut Finder<'_>, config: &Config) -> Result<Vec<Turns>> {
    let pairs = config.rope.dimensions / 2;
    if pairs == 0 {
        return Ok(Vec::new());
    }
    let mut factors = |name: &str| -> Result<Option<Vec<f32>>> {
        let Some(tensor) = find.get(name) else {
            return Ok(None);
        };
        find.shaped(tensor, &[pairs])?;
        let factors = tensor.dequantize();
        match factors.iter().find(|f| !(f.is_finite() && **f > 0.0)) {
            None => Ok(Some(factors)),
            Some(bad) => Err(Error::Corrupt {
                file: find.file.name().into(),
                what: format!("tensor `{name}`"),
                expected: "finite factors greater than 0".into(),
                got: bad.to_string(),
            }),
        }
    };
    let every = factors("rope_freqs.weight")?;
    let short = factors("rope_factors_short.weight")?.or(every);
    let long = factors("rope_factors_long.weight")?;
    let mut turns = vec![Turns {
        short: config.rope.frequencies(short.as_deref()),
        long: long.map(|long| config.rope.frequencies(Some(&long))),
    }];
    turns.extend(config.local_rope.iter().map(|rope| Turns {
        short: rope.frequencies(None),
        long: None,
    }));
    Ok(turns)
}
