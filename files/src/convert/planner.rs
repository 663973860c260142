//! Plans the tensors of the file one after the other: which weights of the folder each is made of.

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};
use dram_core::gguf::names::tensor::{self, weight};
use dram_core::model::folder::{Family, Fields, Form, Need, OUTPUT, Part, Shape};
use dram_core::quant::{Format, format_by_name};

use super::modules::Modules;
use super::source::{Source, Stored};
use super::tensors::{Make, Rows};
use crate::quantize::stays_float;
use crate::write::Plan;

/// What an encoder has behind its layers.
pub(super) struct EncoderHead {
    pub(super) modules: Modules,
    /// The tokens whose logits are a reranker's answer.
    pub(super) labels: Option<[usize; 2]>,
}

/// Plans the tensors one after the other.
pub(super) struct Planner<'a> {
    source: &'a Source,
    pub(super) family: Family,
    pub(super) fields: &'a Fields,
    pub(super) shape: &'a Shape,
    format: &'static Format,
    used: HashSet<String>,
    plans: Vec<Plan>,
    makes: Vec<Make<'a>>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        source: &'a Source,
        family: Family,
        fields: &'a Fields,
        shape: &'a Shape,
        format: &'static Format,
    ) -> Self {
        Planner {
            source,
            family,
            fields,
            shape,
            format,
            used: HashSet::new(),
            plans: Vec::new(),
            makes: Vec::new(),
        }
    }

    /// Every tensor, in the order of the file.
    pub(super) fn run(mut self, encoder: &EncoderHead) -> Result<(Vec<Plan>, Vec<Make<'a>>)> {
        self.rope()?;
        for part in self.family.top {
            self.part("", "", part, self.shape)?;
        }
        match encoder.labels {
            Some(labels) => self.labels(labels)?,
            None => self.output()?,
        }
        for (number, layer) in self.shape.layers.iter().enumerate() {
            let shape = (self.family.layer_shape)(self.fields, self.shape, number)?;
            let from = format!("{}.{number}.", self.family.layer);
            let to = format!("blk.{number}.");
            for part in self.family.groups(*layer).flat_map(|group| group.parts) {
                if number == 0 && matches!(part.need, Need::AfterFirst) {
                    continue;
                }
                self.part(&from, &to, part, &shape)?;
            }
        }
        self.dense(&encoder.modules)?;
        let mut all = self.source.iter();
        if let Some((name, stored)) = all.find(|(name, _)| !self.used.contains(*name)) {
            bail!(
                "{}: tensor {name} {:?} is none of {}'s: the file would leave out part of the model",
                self.source.place(),
                stored.shape,
                self.family.classes[0]
            );
        }
        Ok((self.plans, self.makes))
    }

    /// The rows of the output matrix, or of the embeddings where there is none, that answer as a reranker.
    fn labels(&mut self, labels: [usize; 2]) -> Result<()> {
        let Shape {
            vocabulary, width, ..
        } = *self.shape;
        let shape = [vocabulary, width];
        let stored = match self.find(OUTPUT, &shape)? {
            Some(stored) if self.fields["tie_word_embeddings"] != true => stored,
            _ => self.required("embed_tokens.weight", &shape)?,
        };
        ensure!(
            labels.iter().all(|row| *row < vocabulary),
            "the tokens {labels:?} are not among the {vocabulary} rows of embeddings"
        );
        let rows = labels.map(|row| Rows {
            stored,
            rows: row..row + 1,
        });
        self.push_parts(weight(tensor::CLS_OUTPUT), vec![width, 2], rows.into())
    }

    /// What a text's vector is multiplied with.
    fn dense(&mut self, modules: &Modules) -> Result<()> {
        let mut length = self.shape.width;
        for dense in &modules.dense {
            ensure!(
                self.family.dense,
                "modules.json names the dense module {:?}, which the runtime's {} does not have",
                dense.path,
                self.family.name
            );
            ensure!(
                dense.inputs == length,
                "{}/config.json: in_features = {}, expected the {length} values of the vector",
                dense.path,
                dense.inputs
            );
            length = dense.outputs;
            let name = format!("{}/linear.weight", dense.path);
            let stored = self.required(&name, &[dense.outputs, dense.inputs])?;
            let shape = vec![dense.inputs, dense.outputs];
            let parts = vec![Rows::all(stored, dense.inputs)];
            self.push_parts(weight(dense.to), shape, parts)?;
        }
        Ok(())
    }

    fn find(&mut self, name: &str, expected: &[usize]) -> Result<Option<&'a Stored>> {
        let Some(stored) = self.source.get(name) else {
            return Ok(None);
        };
        ensure!(
            stored.shape == expected,
            "{}: tensor {name}: expected shape {expected:?} by config.json, got {:?}",
            self.source.place(),
            stored.shape
        );
        self.used.insert(name.to_owned());
        Ok(Some(stored))
    }

    fn required(&mut self, name: &str, expected: &[usize]) -> Result<&'a Stored> {
        self.find(name, expected)?
            .with_context(|| format!("{}: tensor {name} is missing", self.source.place()))
    }

    /// A weight of the family and its bias. `shape`: of its layer.
    fn part(&mut self, from: &str, to: &str, part: &Part, shape: &Shape) -> Result<()> {
        if !part.need.holds(self.fields) {
            return Ok(());
        }
        let rows = part.rows.of(shape);
        let name = format!("{from}{}", part.from);
        let target = format!("{to}{}", part.to);
        let (stored, width, dims) = match part.form {
            Form::Rows(cols) => {
                let cols = cols.of(shape);
                let parts = self.numbered(&name, rows, &[cols])?;
                return self.push_parts(format!("{target}.weight"), vec![cols, rows], parts);
            }
            Form::Piece {
                cols,
                piece,
                pieces,
            } => {
                let cols = cols.of(shape);
                let stored = self.required(&format!("{name}.weight"), &[pieces * rows, cols])?;
                let parts = vec![Rows {
                    stored,
                    rows: piece * rows..(piece + 1) * rows,
                }];
                return self.push_parts(format!("{target}.weight"), vec![cols, rows], parts);
            }
            Form::Experts {
                cols,
                whole,
                piece,
                pieces,
            } => {
                let cols = cols.of(shape);
                let whole = (&*format!("{from}{whole}"), piece, pieces);
                return self.experts(&name, &target, [rows, cols], whole);
            }
            Form::Bias => {
                let stored = self.required(&name, &[rows])?;
                let (parts, cols) = self.in_order(part, stored, rows, rows);
                return self.push_rows(format!("{target}.bias"), vec![rows], parts, cols);
            }
            Form::Buffer => {
                let parts = vec![Rows::all(self.required(&name, &[rows])?, rows)];
                return self.push_parts(format!("{target}.weight"), vec![rows], parts);
            }
            Form::Skipped => {
                self.used.insert(format!("{name}.weight"));
                return Ok(());
            }
            Form::Scalars {
                negative_exp,
                column,
            } => {
                let stored = self.required(&name, &[rows])?;
                let (parts, cols) = self.in_order(part, stored, rows, rows);
                let mut values = self.source.values(&parts, cols);
                if negative_exp {
                    let negative_exp = |x: &mut f32| *x = -f64::from(*x).exp() as f32;
                    values.iter_mut().for_each(negative_exp);
                }
                let shape = if column { vec![1, rows] } else { vec![rows] };
                return self.push(target, shape, Make::Values(values));
            }
            Form::Groups(groups) => {
                let stored = self.required(&format!("{name}.weight"), &[rows])?;
                let groups = groups.of(shape);
                ensure!(
                    groups > 0 && rows.is_multiple_of(groups),
                    "{}: tensor {name}: {rows} values do not divide into {groups} groups",
                    self.source.place()
                );
                let parts = vec![Rows::all(stored, rows / groups)];
                let shape = vec![rows / groups, groups];
                return self.push_parts(format!("{target}.weight"), shape, parts);
            }
            Form::Vector => (vec![rows], rows, vec![rows]),
            Form::Matrix(cols) => {
                let cols = cols.of(shape);
                (vec![rows, cols], cols, vec![cols, rows])
            }
            Form::Kernels(cols) => {
                let cols = cols.of(shape);
                (vec![rows, 1, cols], cols, vec![cols, rows])
            }
        };
        let is_vector = matches!(part.form, Form::Vector);
        let rotated = self.family.interleaved && matches!(part.to, tensor::ATTN_Q | tensor::ATTN_K);
        let head_dim = rotated.then_some(shape.head_dim);
        // BERT's first checkpoints call a norm's weights gamma and beta.
        let old = is_vector && self.source.get(&format!("{name}.gamma")).is_some();
        let (weight, bias) = if old {
            ("gamma", "beta")
        } else {
            ("weight", "bias")
        };
        let stored = self.required(&format!("{name}.{weight}"), &stored)?;
        let (parts, cols) = self.in_order(part, stored, rows, width);
        let gated = part.to == tensor::SSM_NORM; // a norm of another kind
        let shift = if self.family.shifted_norms && is_vector && !gated {
            1.0
        } else {
            0.0
        };
        self.push(
            format!("{target}.weight"),
            dims,
            Make::Weights {
                parts,
                cols,
                head_dim,
                shift,
            },
        )?;
        if let Some(stored) = self.find(&format!("{name}.{bias}"), &[rows])? {
            let (parts, cols) = match rotated {
                true => (vec![Rows::all(stored, 1)], 1),
                false => self.in_order(part, stored, rows, rows),
            };
            let make = Make::Weights {
                parts,
                cols,
                head_dim,
                shift: 0.0,
            };
            self.push(format!("{target}.bias"), vec![rows], make)?;
        }
        Ok(())
    }

    /// The weights whose name has a number from 0 to `count` for the `*`, each of this shape.
    fn numbered(&mut self, name: &str, count: usize, shape: &[usize]) -> Result<Vec<Rows<'a>>> {
        let cols = shape[shape.len() - 1];
        let mut one = |number: usize| {
            let name = format!("{}.weight", name.replace('*', &number.to_string()));
            Ok(Rows::all(self.required(&name, shape)?, cols))
        };
        (0..count).map(&mut one).collect()
    }

    /// The matrices `[rows, cols]` of all experts, by number or as a piece of one tensor.
    fn experts(
        &mut self,
        name: &str,
        target: &str,
        [rows, cols]: [usize; 2],
        (whole, piece, pieces): (&str, usize, usize),
    ) -> Result<()> {
        let count = self.shape.experts;
        let stored = [count, pieces * rows, cols];
        let parts = match self.find(whole, &stored)? {
            None => self.numbered(name, count, &[rows, cols])?,
            Some(stored) => {
                let first = |expert: usize| (pieces * expert + piece) * rows;
                let rows = |expert| first(expert)..first(expert) + rows;
                let part = |expert| Rows {
                    stored,
                    rows: rows(expert),
                };
                (0..count).map(part).collect()
            }
        };
        self.push_parts(format!("{target}.weight"), vec![cols, rows, count], parts)
    }

    /// A tensor whose rows are those of `parts`, as they are.
    fn push_parts(&mut self, name: String, shape: Vec<usize>, parts: Vec<Rows<'a>>) -> Result<()> {
        let cols = shape[0];
        self.push_rows(name, shape, parts, cols)
    }

    /// The same, of parts whose rows have `cols` values.
    fn push_rows(
        &mut self,
        name: String,
        shape: Vec<usize>,
        parts: Vec<Rows<'a>>,
        cols: usize,
    ) -> Result<()> {
        let make = Make::Weights {
            parts,
            cols,
            head_dim: None,
            shift: 0.0,
        };
        self.push(name, shape, make)
    }

    /// The output matrix. Where a folder ties it to the embeddings, a copy of it says nothing new.
    fn output(&mut self) -> Result<()> {
        let Shape {
            vocabulary, width, ..
        } = *self.shape;
        // LFM2's first folders call it otherwise.
        let tied = ["tie_embedding", "tie_word_embeddings"]
            .into_iter()
            .find_map(|key| self.fields[key].as_bool());
        match self.find(OUTPUT, &[vocabulary, width])? {
            Some(stored) if !tied.unwrap_or(self.family.tied) => {
                let parts = vec![Rows::all(stored, width)];
                self.push_parts(weight(tensor::OUTPUT), vec![width, vocabulary], parts)
            }
            None if tied == Some(false) && !self.family.tied => {
                bail!(
                    "{}: tensor {OUTPUT} is missing, and config.json says that it is not tied to the embeddings",
                    self.source.place()
                )
            }
            _ => Ok(()),
        }
    }

    pub(super) fn push(&mut self, name: String, shape: Vec<usize>, make: Make<'a>) -> Result<()> {
        let float = shape.len() < 2 || stays_float(&name);
        let format = if float {
            format_by_name("f32").context("no format f32")?
        } else {
            self.format
        };
        let plan = Plan {
            name,
            shape: shape.into_iter().map(|n| n as u64).collect(),
            format,
        };
        plan.bytes()?;
        self.plans.push(plan);
        self.makes.push(make);
        Ok(())
    }
}
