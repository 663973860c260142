//! Looks tensors up by name and checks their shapes.

use super::{Classifier, Linear, Matrix, Norm};
use crate::gguf::names::tensor::{self, weight};
use crate::gguf::{self, Tensor};
use crate::{Error, Result, quant};
use std::collections::HashSet;

/// Looks up tensors and remembers which were asked for.
pub(crate) struct Finder<'a> {
    pub(super) file: &'a gguf::File,
    pub(super) used: HashSet<&'a str>,
}

impl<'a> Finder<'a> {
    pub(crate) fn new(file: &'a gguf::File) -> Self {
        Finder {
            file,
            used: HashSet::new(),
        }
    }

    /// A tensor that nobody asked for.
    pub(crate) fn unused(&self) -> Option<Tensor<'a>> {
        let mut tensors = self.file.tensors();
        tensors.find(|tensor| !self.used.contains(tensor.name()))
    }

    pub(super) fn get(&mut self, name: &str) -> Option<Tensor<'a>> {
        let tensor = self.file.get_tensor(name)?;
        self.used.insert(tensor.name());
        Some(tensor)
    }

    pub(super) fn shaped(&self, tensor: Tensor<'a>, expected: &[usize]) -> Result<Matrix> {
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
            prefetch: Vec::new(),
        })
    }

    pub(crate) fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let tensor = self.get(name).map_or_else(|| self.file.tensor(name), Ok)?;
        self.shaped(tensor, &[cols, rows])
    }

    /// The vector `name` `[length]`.
    pub(super) fn vector(&mut self, name: &str, length: usize) -> Result<Matrix> {
        let tensor = self.get(name).map_or_else(|| self.file.tensor(name), Ok)?;
        self.shaped(tensor, &[length])
    }

    /// The one number that `name` holds, if the file has it.
    pub(super) fn factor(&mut self, name: &str) -> Result<Option<f32>> {
        let Some(tensor) = self.get(name) else {
            return Ok(None);
        };
        self.shaped(tensor, &[1])?;
        match tensor.dequantize()[..] {
            [factor] if factor.is_finite() => Ok(Some(factor)),
            _ => Err(Error::Corrupt {
                file: self.file.name().into(),
                what: format!("tensor `{name}`"),
                expected: "a finite number".into(),
                got: "none".into(),
            }),
        }
    }

    /// The matrix `name.weight` and its optional bias.
    pub(super) fn linear(&mut self, name: &str, rows: usize, cols: usize) -> Result<Linear> {
        Ok(Linear {
            matrix: self.matrix(&format!("{name}.weight"), rows, cols)?,
            bias: self.bias(name, rows)?,
        })
    }

    pub(super) fn bias(&mut self, name: &str, rows: usize) -> Result<Option<Matrix>> {
        self.get(&format!("{name}.bias"))
            .map(|tensor| self.shaped(tensor, &[rows]))
            .transpose()
    }

    /// Those of these matrices that are there; each multiplies what the one before gives, the first one `cols` values.
    pub(super) fn chain(&mut self, names: &[&str], mut cols: usize) -> Result<Vec<Linear>> {
        let mut all = Vec::new();
        for name in names {
            if let Some(tensor) = self.file.get_tensor(&format!("{name}.weight")) {
                all.push(self.linear(name, tensor.rows(), cols)?);
                cols = tensor.rows();
            }
        }
        Ok(all)
    }

    /// What a reranker makes a score of a vector `[d]` with.
    pub(super) fn classifier(&mut self, d: usize) -> Result<Classifier> {
        let labels = self.file.get_tensor(&weight(tensor::CLS_OUTPUT));
        let dense = match self.get(&weight(tensor::CLS)) {
            Some(_) => Some(self.linear(tensor::CLS, d, d)?),
            None => None,
        };
        Ok(Classifier {
            dense,
            output: self.linear(tensor::CLS_OUTPUT, labels.map_or(1, |t| t.rows()), d)?,
        })
    }

    /// Three matrices that lie in one tensor, row after row, or else each in its own.
    pub(super) fn joined(
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
            Linear::new(matrix.rows(start - rows..start))
        }))
    }

    /// The `count` matrices `[rows, cols]` that lie in the tensor `name`, one after another.
    pub(super) fn stack(
        &mut self,
        name: &str,
        count: usize,
        rows: usize,
        cols: usize,
    ) -> Result<impl Iterator<Item = Matrix> + use<>> {
        let tensor = self.get(name).map_or_else(|| self.file.tensor(name), Ok)?;
        let whole = self.shaped(tensor, &[cols, rows, count])?;
        Ok((0..count).map(move |number| whole.rows(number * rows..(number + 1) * rows)))
    }

    /// The norm `name`, with a bias where norms have one.
    pub(super) fn norm(&mut self, name: &str, shape: &[usize], bias: bool) -> Result<Norm> {
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
