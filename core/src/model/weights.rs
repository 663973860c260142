//! Views of a model's tensors in the map. Nothing is copied here; what is missing or has another shape is an error that names it.

use super::config::Config;
use crate::gguf::{self, Tensor};
use crate::kernels::Weight;
use crate::quant::{self, Format};
use crate::{Error, Result};
use std::collections::HashSet;
use std::ops::Range;

/// What a family calls its tensors. Parts of a layer are prefixed with `layer`, the layer's number and a dot; pairs are a matrix and its optional bias.
pub(crate) struct Names {
    pub(crate) embedding: &'static str,
    pub(crate) output_norm: &'static str,
    /// Absent where the embedding serves as output matrix too.
    pub(crate) output: &'static str,
    /// Divisors of the RoPE frequencies; optional.
    pub(crate) rope_factors: &'static str,
    pub(crate) layer: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) query: [&'static str; 2],
    pub(crate) key: [&'static str; 2],
    pub(crate) value: [&'static str; 2],
    pub(crate) attention_output: [&'static str; 2],
    pub(crate) feed_forward_norm: &'static str,
    pub(crate) gate: [&'static str; 2],
    pub(crate) up: [&'static str; 2],
    pub(crate) down: [&'static str; 2],
    /// Parts of names of tensors that may lie in a file and change nothing.
    pub(crate) unused: &'static [&'static str],
}

/// A matrix in the map.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub(crate) format: &'static Format,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Where its bytes lie in the file: `[rows, cols]` in blocks of `format`.
    pub(crate) range: Range<usize>,
}

impl Matrix {
    /// The matrix as the kernels take it.
    pub(crate) fn view<'a>(&self, file: &'a gguf::File) -> Weight<'a> {
        Weight {
            format: self.format,
            bytes: &file.bytes()[self.range.clone()],
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

/// One decoder layer.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Matrix,    // [1, embedding]
    pub(crate) query: Linear,             // [heads · key_length, embedding]
    pub(crate) key: Linear,               // [kv_heads · key_length, embedding]
    pub(crate) value: Linear,             // [kv_heads · value_length, embedding]
    pub(crate) attention_output: Linear,  // [embedding, heads · value_length]
    pub(crate) feed_forward_norm: Matrix, // [1, embedding]
    pub(crate) gate: Linear,              // [feed_forward, embedding]
    pub(crate) up: Linear,                // [feed_forward, embedding]
    pub(crate) down: Linear,              // [embedding, feed_forward]
}

/// Every tensor the forward pass reads.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    pub(crate) embedding: Matrix,   // [vocabulary, embedding]
    pub(crate) layers: Vec<Layer>,  // [layers]
    pub(crate) output_norm: Matrix, // [1, embedding]
    pub(crate) output: Matrix,      // [vocabulary, embedding]
    /// Turns per position of each pair, with scale and factors applied: `[rope dimensions / 2]`
    pub(crate) frequencies: Vec<f32>,
}

/// Looks up tensors and remembers which were asked for.
struct Finder<'a> {
    file: &'a gguf::File,
    used: HashSet<&'a str>,
}

impl<'a> Finder<'a> {
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
        })
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Matrix> {
        let tensor = self.get(name).map_or_else(|| self.file.tensor(name), Ok)?;
        self.shaped(tensor, &[length])
    }

    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let tensor = self.get(name).map_or_else(|| self.file.tensor(name), Ok)?;
        self.shaped(tensor, &[cols, rows])
    }

    fn linear(
        &mut self,
        prefix: &str,
        [matrix, bias]: [&str; 2],
        rows: usize,
        cols: usize,
    ) -> Result<Linear> {
        let bias = format!("{prefix}{bias}");
        Ok(Linear {
            matrix: self.matrix(&format!("{prefix}{matrix}"), rows, cols)?,
            bias: self
                .get(&bias)
                .map(|tensor| self.shaped(tensor, &[rows]))
                .transpose()?,
        })
    }
}

impl Weights {
    /// Finds every tensor of `config` under the family's `names`.
    pub(crate) fn find(file: &gguf::File, config: &Config, names: &Names) -> Result<Weights> {
        let mut find = Finder {
            file,
            used: HashSet::new(),
        };
        let (d, ff) = (config.embedding_length, config.feed_forward_length);
        let embedding = find.matrix(names.embedding, config.vocabulary, d)?;
        let output_norm = find.vector(names.output_norm, d)?;
        let output = match find.get(names.output) {
            Some(tensor) => find.shaped(tensor, &[d, config.vocabulary])?,
            None => embedding.clone(),
        };
        let frequencies = frequencies(&mut find, config, names)?;

        let mut layers = Vec::new();
        for number in 0..config.layers {
            let at = format!("{}{number}.", names.layer);
            layers.push(Layer {
                attention_norm: find.vector(&format!("{at}{}", names.attention_norm), d)?,
                query: find.linear(&at, names.query, config.query_length(), d)?,
                key: find.linear(&at, names.key, config.keys_length(), d)?,
                value: find.linear(&at, names.value, config.values_length(), d)?,
                attention_output: find.linear(
                    &at,
                    names.attention_output,
                    d,
                    config.mixed_length(),
                )?,
                feed_forward_norm: find.vector(&format!("{at}{}", names.feed_forward_norm), d)?,
                gate: find.linear(&at, names.gate, ff, d)?,
                up: find.linear(&at, names.up, ff, d)?,
                down: find.linear(&at, names.down, d, ff)?,
            });
        }

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
                layers,
                output_norm,
                output,
                frequencies,
            }),
        }
    }
}

fn frequencies(find: &mut Finder<'_>, config: &Config, names: &Names) -> Result<Vec<f32>> {
    let rope = &config.rope;
    let pairs = rope.dimensions / 2;
    let plain = (0..pairs).map(|i| {
        f64::from(rope.base).powf(-2.0 * i as f64 / rope.dimensions as f64) * f64::from(rope.scale)
    });
    let Some(factors) = find.get(names.rope_factors) else {
        return Ok(plain.map(|turn| turn as f32).collect());
    };
    find.shaped(factors, &[pairs])?;
    let factors = factors.dequantize();
    if let Some(bad) = factors
        .iter()
        .find(|factor| !(factor.is_finite() && **factor > 0.0))
    {
        return Err(Error::Corrupt {
            file: find.file.name().into(),
            what: format!("tensor `{}`", names.rope_factors),
            expected: "finite factors greater than 0".into(),
            got: bad.to_string(),
        });
    }
    Ok(plain
        .zip(factors)
        .map(|(turn, factor)| (turn / f64::from(factor)) as f32)
        .collect())
}
