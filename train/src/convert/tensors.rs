//! The tensors of the file: which weights of the folder each is made of, in which order of rows and in which format.

use std::collections::HashSet;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use dram_core::quant::{Format, format_by_name};

use super::config::{Fields, Shape};
use super::families::Family;
use super::keys::rope_type;
use super::naming::Size;
use super::parts::{Form, Part};
use super::source::{Source, Stored};
use crate::export::{Payload, Plan, source_row};
use crate::student::same_for_all_lengths;

/// Values converted at a time.
const CHUNK: usize = 1 << 18;

/// Every tensor of the file.
pub(super) struct Tensors<'a> {
    source: &'a Source,
    pub(super) plans: Vec<Plan>,
    makes: Vec<Make<'a>>,
}

/// What a tensor is made of.
enum Make<'a> {
    /// These values, such as factors of RoPE.
    Values(Vec<f32>),
    Weights {
        /// One below the other.
        parts: Vec<Rows<'a>>,
        cols: usize,
        /// Rows of a head are interleaved: see [`source_row`].
        head_dim: Option<usize>,
        /// Added to every value.
        shift: f32,
    },
}

/// Rows of a weight.
struct Rows<'a> {
    stored: &'a Stored,
    rows: Range<usize>,
}

impl<'a> Rows<'a> {
    /// All rows of `cols` values.
    fn all(stored: &'a Stored, cols: usize) -> Rows<'a> {
        let rows = 0..stored.shape.iter().product::<usize>() / cols;
        Rows { stored, rows }
    }
}

/// Plans the tensors one after the other.
struct Planner<'a> {
    source: &'a Source,
    family: &'a Family,
    fields: &'a Fields,
    shape: &'a Shape,
    format: &'static Format,
    used: HashSet<String>,
    plans: Vec<Plan>,
    makes: Vec<Make<'a>>,
}

impl<'a> Tensors<'a> {
    /// `format`: of matrices; vectors, norms and tables of positions are f32.
    ///
    /// # Errors
    /// Names a tensor that is missing, has another shape than `config.json` says, or is left over.
    pub(super) fn plan(
        source: &'a Source,
        family: &'a Family,
        fields: &'a Fields,
        shape: &'a Shape,
        format: &'static Format,
    ) -> Result<Self> {
        let mut planner = Planner {
            source,
            family,
            fields,
            shape,
            format,
            used: HashSet::new(),
            plans: Vec::new(),
            makes: Vec::new(),
        };
        planner.rope()?;
        for part in family.top {
            planner.part("", "", part)?;
        }
        planner.output()?;
        for (number, layer) in shape.layers.iter().enumerate() {
            let (from, to) = (
                format!("{}.{number}.", family.layer),
                format!("blk.{number}."),
            );
            let groups = family.parts.iter();
            let groups = groups.filter(|group| group.kind.is_none_or(|kind| layer.contains(&kind)));
            for part in groups.flat_map(|group| group.parts) {
                planner.part(&from, &to, part)?;
            }
        }
        let left = source
            .iter()
            .find(|(name, _)| !planner.used.contains(*name));
        if let Some((name, stored)) = left {
            bail!(
                "{}: tensor {name} {:?} is none of {}'s: the file would leave out part of the model",
                source.place(),
                stored.shape,
                family.classes[0]
            );
        }
        Ok(Tensors {
            source,
            plans: planner.plans,
            makes: planner.makes,
        })
    }

    /// Values in all tensors.
    pub(super) fn parameters(&self) -> usize {
        self.plans
            .iter()
            .map(|plan| plan.shape.iter().product::<u64>() as usize)
            .sum()
    }

    /// How large the model is.
    pub(super) fn size(&self) -> Size {
        let experts = |plan: &&Plan| plan.name.contains("_exps.");
        let rest = |plan: &Plan| plan.shape.iter().take(2).product::<u64>() as usize;
        let count = self.plans.iter().find(experts).map(|plan| plan.shape[2]);
        Size {
            parameters: self.parameters(),
            experts: count.map(|count| (count as usize, self.plans.iter().map(rest).sum())),
        }
    }

    /// Puts the bytes of tensor `index`.
    ///
    /// # Errors
    /// When a value is not finite, or too large for the format.
    pub(super) fn payload(&self, index: usize, out: &mut Payload<'_>) -> Result<()> {
        let to = self.plans[index].format;
        let (parts, cols, head_dim, shift) = match &self.makes[index] {
            Make::Values(values) => {
                let mut bytes = vec![0; 4 * values.len()];
                to.quantize(values, &mut bytes);
                return out.put(&bytes);
            }
            Make::Weights {
                parts,
                cols,
                head_dim,
                shift,
            } => (parts, *cols, *head_dim, *shift),
        };
        for Rows { stored, rows } in parts {
            let row_bytes = stored.format.bytes(cols).context("its size overflows")?;
            let bytes = self.source.bytes(stored);
            let bytes = &bytes[rows.start * row_bytes..rows.end * row_bytes];
            let rows = rows.len();
            let step = CHUNK.div_ceil(cols);
            let (mut picked, mut values, mut written) = (Vec::new(), Vec::new(), Vec::new());
            for start in (0..rows).step_by(step) {
                let end = (start + step).min(rows);
                let chunk = match head_dim {
                    None => &bytes[start * row_bytes..end * row_bytes],
                    Some(head_dim) => {
                        picked.clear();
                        for row in start..end {
                            let from = source_row(row, head_dim) * row_bytes;
                            picked.extend_from_slice(&bytes[from..from + row_bytes]);
                        }
                        &picked
                    }
                };
                values.resize((end - start) * cols, 0.0);
                stored.format.dequantize(chunk, &mut values);
                let largest = values.iter().fold(0f32, |most, x| {
                    if x.is_finite() {
                        most.max(x.abs())
                    } else {
                        f32::INFINITY
                    }
                });
                ensure!(largest.is_finite(), "it holds a value that is not finite");
                ensure!(
                    to.name != "f16" || largest < 65_520.0,
                    "it holds {largest}, which f16 cannot; choose --type bf16 or f32"
                );
                if to.ggml_id == stored.format.ggml_id && shift == 0.0 {
                    out.put(chunk)?;
                    continue;
                }
                // Adding 0 would lose the sign of -0.
                if shift != 0.0 {
                    values.iter_mut().for_each(|x| *x += shift);
                }
                written.resize(to.bytes(values.len()).context("its size overflows")?, 0);
                to.quantize(&values, &mut written);
                out.put(&written)?;
            }
        }
        Ok(())
    }
}

impl<'a> Planner<'a> {
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

    /// A weight of the family and its bias.
    fn part(&mut self, from: &str, to: &str, part: &Part) -> Result<()> {
        if !part.need.holds(self.fields) {
            return Ok(());
        }
        let rows = part.rows.of(self.shape);
        let name = format!("{from}{}", part.from);
        let target = format!("{to}{}", part.to);
        let (stored, width, shape) = match part.form {
            Form::Rows(cols) => {
                let cols = cols.of(self.shape);
                let parts = self.numbered(&name, rows, &[cols])?;
                return self.push_parts(format!("{target}.weight"), vec![cols, rows], parts);
            }
            Form::Experts {
                cols,
                whole,
                piece,
                pieces,
            } => {
                let cols = cols.of(self.shape);
                let whole = (&*format!("{from}{whole}"), piece, pieces);
                return self.experts(&name, &target, [rows, cols], whole);
            }
            Form::Bias => {
                let parts = vec![Rows::all(self.required(&name, &[rows])?, rows)];
                return self.push_parts(format!("{target}.bias"), vec![rows], parts);
            }
            Form::Vector => (vec![rows], rows, vec![rows]),
            Form::Matrix(cols) => {
                let cols = cols.of(self.shape);
                (vec![rows, cols], cols, vec![cols, rows])
            }
            Form::Kernels(cols) => {
                let cols = cols.of(self.shape);
                (vec![rows, 1, cols], cols, vec![cols, rows])
            }
        };
        let is_vector = matches!(part.form, Form::Vector);
        let rotated = self.family.interleaved && matches!(part.to, "attn_q" | "attn_k");
        let head_dim = rotated.then_some(self.shape.head_dim);
        // BERT's first checkpoints call a norm's weights gamma and beta.
        let old = is_vector && self.source.get(&format!("{name}.gamma")).is_some();
        let (weight, bias) = if old {
            ("gamma", "beta")
        } else {
            ("weight", "bias")
        };
        let stored = self.required(&format!("{name}.{weight}"), &stored)?;
        let shift = if self.family.shifted_norms && is_vector {
            1.0
        } else {
            0.0
        };
        self.push(
            format!("{target}.weight"),
            shape,
            Make::Weights {
                parts: vec![Rows::all(stored, width)],
                cols: width,
                head_dim,
                shift,
            },
        )?;
        if let Some(stored) = self.find(&format!("{name}.{bias}"), &[rows])? {
            let cols = if rotated { 1 } else { rows };
            let make = Make::Weights {
                parts: vec![Rows::all(stored, cols)],
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
        let make = Make::Weights {
            parts,
            cols: shape[0],
            head_dim: None,
            shift: 0.0,
        };
        self.push(name, shape, make)
    }

    /// The output matrix. Where a folder ties it to the embeddings, a copy of it says nothing new.
    fn output(&mut self) -> Result<()> {
        const NAME: &str = "lm_head.weight";
        let Shape {
            vocabulary, width, ..
        } = *self.shape;
        // LFM2's first folders call it otherwise.
        let tied = ["tie_embedding", "tie_word_embeddings"]
            .into_iter()
            .find_map(|key| self.fields.0[key].as_bool());
        match self.find(NAME, &[vocabulary, width])? {
            Some(stored) if !tied.unwrap_or(self.family.tied) => {
                let parts = vec![Rows::all(stored, width)];
                self.push_parts("output.weight".into(), vec![width, vocabulary], parts)
            }
            None if tied == Some(false) && !self.family.tied => {
                bail!(
                    "{}: tensor {NAME} is missing, and config.json says that it is not tied to the embeddings",
                    self.source.place()
                )
            }
            _ => Ok(()),
        }
    }

    /// Factors that the frequencies of rotation are divided by.
    fn rope(&mut self) -> Result<()> {
        let rope = self.fields.rope().full;
        let half = self.shape.head_dim / 2;
        let list = |key: &str| -> Result<Vec<f32>> {
            let values: Option<Vec<f32>> = rope.0[key]
                .as_array()
                .and_then(|all| all.iter().map(|x| x.as_f64().map(|x| x as f32)).collect());
            values.with_context(|| {
                format!("config.json: RoPE scaling: expected a list of numbers {key}")
            })
        };
        let mut put = |name: &str, values: Vec<f32>| {
            ensure!(
                !values.is_empty() && values.len() <= half,
                "config.json: {} factors of RoPE for heads of {}",
                values.len(),
                2 * half
            );
            self.push(name.into(), vec![values.len()], Make::Values(values))
        };
        match rope_type(&rope) {
            "llama3" => put("rope_freqs.weight", llama3(&rope, 2 * half)?),
            "factors" => put("rope_freqs.weight", list("factors")?),
            "longrope" if same_for_all_lengths(&rope.0) => {
                put("rope_freqs.weight", list("short_factor")?)
            }
            "longrope" | "su" => {
                put("rope_factors_long.weight", list("long_factor")?)?;
                put("rope_factors_short.weight", list("short_factor")?)
            }
            _ => Ok(()),
        }
    }

    fn push(&mut self, name: String, shape: Vec<usize>, make: Make<'a>) -> Result<()> {
        let float = shape.len() < 2
            || [
                "_norm.",
                "position_embd.",
                "token_types.",
                "ffn_gate_inp.",
                "shortconv.conv.",
            ]
            .iter()
            .any(|part| name.contains(part));
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

/// Llama 3.1's factors: waves shorter than the original context over `high_freq_factor` stay, longer than it over `low_freq_factor` are stretched by
/// `factor`, and between them is a ramp. In f32, as transformers and llama.cpp compute.
fn llama3(rope: &Fields, head_dim: usize) -> Result<Vec<f32>> {
    let value =
        |key: &str, default: f64| Ok::<_, anyhow::Error>(rope.opt_float(key)?.unwrap_or(default));
    let base = value("rope_theta", 10_000.0)? as f32;
    let factor = value("factor", 8.0)?;
    let (low, high) = (
        value("low_freq_factor", 1.0)?,
        value("high_freq_factor", 4.0)?,
    );
    let original = value("original_max_position_embeddings", 8192.0)?;
    let wave = |i: usize| {
        let frequency = 1.0 / base.powf(i as f32 / head_dim as f32);
        (2.0 * std::f64::consts::PI) as f32 / frequency
    };
    let of = |i: usize| {
        let wave = wave(i);
        if wave < (original / high) as f32 {
            return 1.0;
        } else if wave > (original / low) as f32 {
            return factor as f32;
        }
        let smooth = (original as f32 / wave - low as f32) / (high - low) as f32;
        1.0 / ((1.0 - smooth) / factor as f32 + smooth)
    };
    Ok((0..head_dim).step_by(2).map(of).collect())
}
