//! `dram quantize`: a file of floating-point weights becomes one of blocks.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use dram_core::gguf::{File, Tensor, Value};
use dram_core::quant::{FORMATS, Format, format_by_name};

use super::copy::write_copy;
use super::file_type::file_type;
use super::write::Plan;
use crate::checkpoint::write_beside;
use crate::parallel::for_each;

/// Which block format each matrix gets.
///
/// A name of [`FORMATS`] gives every matrix that format, but the output matrix (or the embeddings, where these are the output matrix) Q6_K,
/// as errors there reach the logits directly. `q3_k_m`, `q4_k_s`, `q4_k_m`, `q5_k_s`, `q5_k_m` and `q2_k` are llama.cpp's mixtures: attention values
/// and the second feed-forward matrix of some layers get more bits.
#[derive(Debug, Clone)]
pub struct Mixture {
    name: String,
    base: &'static Format,
}

/// The mixtures, and what most of the file holds.
const MIXTURES: &[(&str, &str)] = &[
    ("q2_k", "q2_k"),
    ("q3_k_m", "q3_k"),
    ("q4_k_s", "q4_k"),
    ("q4_k_m", "q4_k"),
    ("q5_k_s", "q5_k"),
    ("q5_k_m", "q5_k"),
];

/// Where a matrix stands among those of its kind.
#[derive(Clone, Copy)]
struct Place {
    /// Its number, of values' matrices among those, which not every layer has.
    layer: usize,
    layers: usize,
    /// Query heads per key and value head.
    group: usize,
}

impl Place {
    /// The layers that llama.cpp gives more bits: the first and last eighth, and every third between.
    fn wants_more_bits(self) -> bool {
        let eighth = self.layers / 8;
        self.layer < eighth || self.layer >= 7 * self.layers / 8 || (self.layer - eighth) % 3 == 2
    }
}

impl Mixture {
    /// # Errors
    /// With the names there are.
    pub fn by_name(name: &str) -> Result<Self> {
        let name = name.to_lowercase();
        let base = MIXTURES
            .iter()
            .find(|(mixture, _)| *mixture == name)
            .map_or(&*name, |(_, base)| base);
        let base = format_by_name(base).with_context(|| {
            let formats = FORMATS.iter().map(|f| f.name);
            let mixtures = MIXTURES.iter().map(|(name, _)| *name);
            let names: Vec<&str> = formats
                .chain(mixtures.filter(|m| format_by_name(m).is_none()))
                .collect();
            format!(
                "no format is called {name}; expected one of {}",
                names.join(", ")
            )
        })?;
        Ok(Mixture { name, base })
    }

    /// The name of the format of the matrix with this `kind` ("attn_v").
    fn format_of(&self, kind: &str, place: Place) -> &'static str {
        let more = place.wants_more_bits();
        match (&*self.name, kind) {
            ("q2_k", "attn_v") if place.group >= 4 => "q4_k",
            ("q2_k", "attn_v" | "ffn_down" | "attn_output") => "q3_k",
            ("q3_k_m", "attn_v") => {
                if place.layer < 2 {
                    "q5_k"
                } else {
                    "q4_k"
                }
            }
            ("q3_k_m", "ffn_down") if place.layer < place.layers / 16 => "q5_k",
            ("q3_k_m", "ffn_down" | "attn_output") => "q4_k",
            ("q4_k_s", "attn_v") if place.layer < 4 => "q5_k",
            ("q4_k_s", "ffn_down") if place.layer < place.layers / 8 => "q5_k",
            ("q4_k_m" | "q5_k_m", "attn_v" | "ffn_down") if more => "q6_k",
            _ => self.base.name,
        }
    }
}

/// One line of a rule list: tensors whose name matches `pattern` (`*` stands for anything) get `format`. The first match decides.
#[derive(Debug, Clone)]
pub struct Rule {
    pub pattern: String,
    pub format: &'static Format,
}

impl Rule {
    /// `PATTERN=FORMAT`, such as `blk.0.*=q8_0`.
    ///
    /// # Errors
    /// When it is not of that form, or the format is unknown.
    pub fn parse(text: &str) -> Result<Self> {
        let (pattern, format) = text
            .split_once('=')
            .with_context(|| format!("{text}: expected PATTERN=FORMAT, such as blk.0.*=q8_0"))?;
        let format = format_by_name(format).with_context(|| {
            let names: Vec<_> = FORMATS.iter().map(|f| f.name).collect();
            format!("{text}: expected a format, one of {}", names.join(", "))
        })?;
        Ok(Rule {
            pattern: pattern.into(),
            format,
        })
    }

    fn matches(&self, name: &str) -> bool {
        let mut parts = self.pattern.split('*');
        let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
            return false;
        };
        let mut last = None;
        for part in parts {
            if let Some(before) = last.replace(part) {
                match rest.split_once(before) {
                    Some((_, after)) => rest = after,
                    None => return false,
                }
            }
        }
        last.map_or(rest.is_empty(), |end| rest.ends_with(end))
    }
}

/// An importance matrix: for each tensor, how much the squared error of each column weighs.
pub struct Importance(HashMap<String, Vec<f32>>);

impl Importance {
    /// Reads what `dram imatrix` and llama.cpp's `llama-imatrix` write as GGUF: for a tensor NAME, `NAME.in_sum2` (sums of squared activations, `[cols]`, for
    /// each expert of a tensor of experts) and `NAME.counts`. An expert that no token took weighs all columns the same.
    ///
    /// # Errors
    /// When the file is no such matrix.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let mut all = HashMap::new();
        for sums in file.tensors() {
            let Some(name) = sums.name().strip_suffix(".in_sum2") else {
                continue;
            };
            let counts = file.tensor(&format!("{name}.counts"))?.dequantize();
            ensure!(
                counts.len() == sums.rows(),
                "{}: {}: sums of {} matrices, and counts of {}",
                path.display(),
                sums.name(),
                sums.rows(),
                counts.len()
            );
            let mut weights = sums.dequantize();
            for (weights, count) in weights.chunks_exact_mut(sums.cols()).zip(&counts) {
                if *count == 0.0 {
                    weights.fill(1.0);
                }
                weights.iter_mut().for_each(|w| *w /= count.max(1.0));
            }
            ensure!(
                weights.iter().all(|w| w.is_finite() && *w >= 0.0),
                "{}: {}: expected finite sums of squares",
                path.display(),
                sums.name()
            );
            all.insert(name.to_string(), weights);
        }
        ensure!(
            !all.is_empty(),
            "{}: no tensor ends in .in_sum2; expected an importance matrix in GGUF, as llama-imatrix writes it",
            path.display()
        );
        Ok(Importance(all))
    }
}

/// A conversion to be made.
pub struct Requantize<'a> {
    pub mixture: &'a Mixture,
    /// Exceptions by name.
    pub rules: &'a [Rule],
    pub importance: Option<&'a Importance>,
    pub threads: usize,
}

/// A finished tensor, for progress and reports.
#[derive(Debug, Clone, Copy)]
pub struct Done<'a> {
    pub name: &'a str,
    pub from: &'static Format,
    pub to: &'static Format,
    pub bytes: usize,
    /// Root mean square of the rounding errors over that of the values.
    pub error: f64,
}

impl Requantize<'_> {
    /// Writes `target` from the open `source`. Vectors, norms and position tables stay as they are; everything else of two dimensions is
    /// rounded. A matrix too narrow for 256-value blocks gets the next format with blocks of 32, as llama.cpp chooses it.
    ///
    /// # Errors
    /// When a tensor to be rounded is not in floating point, an importance matrix does not fit, a rule matches nothing, or the disk refuses.
    pub fn run(&self, source: &File, target: &Path, each: &mut dyn FnMut(Done<'_>)) -> Result<()> {
        let tensors: Vec<Tensor<'_>> = source.tensors().collect();
        for rule in self.rules {
            ensure!(
                tensors.iter().any(|t| rule.matches(t.name())),
                "no tensor is called {}; `dram inspect` lists them",
                rule.pattern
            );
        }
        let plans = self.plan(source, &tensors)?;
        let file_type = file_type(&self.mixture.name).context("a mixture without a file type")?;
        let changed = [
            ("general.file_type", Value::U32(file_type)),
            ("general.quantization_version", Value::U32(2)),
        ];
        write_beside(target, |beside| {
            write_copy(beside, source, &changed, &plans, &mut |index| {
                let (tensor, plan) = (tensors[index], &plans[index]);
                let (bytes, error) = self.convert(tensor, plan.format)?;
                each(Done {
                    name: tensor.name(),
                    from: tensor.format(),
                    to: plan.format,
                    bytes: bytes.len(),
                    error,
                });
                Ok(bytes)
            })
        })
    }

    fn plan(&self, source: &File, tensors: &[Tensor<'_>]) -> Result<Vec<Plan>> {
        let metadata = source.metadata();
        let architecture = metadata.str("general.architecture")?;
        let number = |key: &str| -> Result<Option<usize>> {
            Ok(metadata
                .opt_u32(&format!("{architecture}.{key}"))?
                .map(|n| n as usize))
        };
        let layers = number("block_count")?.unwrap_or(0);
        let heads = number("attention.head_count")?.unwrap_or(1);
        // One number, or one for each layer, of which llama.cpp takes the first; 0 is a layer without attention.
        let kv_heads = match metadata.get(&format!("{architecture}.attention.head_count_kv")) {
            Some(Value::Array(layers)) => layers.iter().next(),
            value => value,
        };
        let kv_heads = kv_heads
            .and_then(|n| usize::try_from(n.as_integer()?).ok())
            .unwrap_or(heads);
        let group = heads.checked_div(kv_heads).unwrap_or(0);
        let of_values = |tensor: &&Tensor<'_>| tensor.name().ends_with(".attn_v.weight");
        let mut values: Vec<_> = tensors.iter().filter(of_values).collect();
        values.sort_by_key(|tensor| layer_of(tensor.name()));
        let tied = !tensors.iter().any(|t| t.name() == "output.weight");
        tensors
            .iter()
            .map(|tensor| {
                let own = values.iter().position(|v| v.name() == tensor.name());
                let place = layer_of(tensor.name()).map(|layer| Place {
                    layer: own.unwrap_or(layer),
                    layers: own.map_or(layers, |_| values.len()),
                    group,
                });
                let format = self.choose(*tensor, place, tied)?;
                Ok(Plan {
                    name: tensor.name().into(),
                    shape: tensor.shape().iter().map(|&n| n as u64).collect(),
                    format,
                })
            })
            .collect()
    }

    fn choose(
        &self,
        tensor: Tensor<'_>,
        place: Option<Place>,
        tied: bool,
    ) -> Result<&'static Format> {
        let name = tensor.name();
        if let Some(rule) = self.rules.iter().find(|rule| rule.matches(name)) {
            ensure!(
                tensor.cols().is_multiple_of(rule.format.block),
                "{name}: rows of {} values do not divide into {} blocks of {}",
                tensor.cols(),
                rule.format.name,
                rule.format.block
            );
            return Ok(rule.format);
        }
        let kept = tensor.shape().len() < 2
            || !name.ends_with(".weight")
            || [
                "_norm",
                "position_embd",
                "token_types",
                "ffn_gate_inp",
                "shortconv.conv",
                "rope_",
            ]
            .iter()
            .any(|part| name.contains(part));
        if kept {
            return Ok(tensor.format());
        }
        let head = name == "output.weight" || tied && name == "token_embd.weight";
        let base = self.mixture.base;
        let wanted = match place {
            _ if !base.takes_int8() => base.name,
            _ if head && base.name != "q8_0" => "q6_k",
            _ if name == "token_embd.weight" && base.name.starts_with("tq") => "q4_k",
            Some(place) => {
                let kind = name.split('.').nth(2).unwrap_or_default();
                let kind = kind.strip_suffix("_exps").unwrap_or(kind);
                self.mixture.format_of(kind, place)
            }
            None => base.name,
        };
        let wanted = if format(wanted)?.block <= 32 || tensor.cols().is_multiple_of(256) {
            wanted
        } else {
            match wanted {
                "q2_k" | "q3_k" | "tq1_0" | "tq2_0" => "q4_0",
                "iq4_xs" => "iq4_nl",
                "q4_k" => "q5_0",
                "q5_k" => "q5_1",
                _ => "q8_0",
            }
        };
        let wanted = format(wanted)?;
        if tensor.cols().is_multiple_of(wanted.block) {
            Ok(wanted)
        } else {
            format("f16")
        }
    }

    /// The blocks of one tensor, and the relative error.
    fn convert(&self, tensor: Tensor<'_>, to: &'static Format) -> Result<(Vec<u8>, f64)> {
        let from = tensor.format();
        if from.ggml_id == to.ggml_id {
            return Ok((tensor.bytes().to_vec(), 0.0));
        }
        if from.takes_int8() {
            bail!(
                "it is {} already: a second rounding adds to the first; start from a file in f32, f16 or bf16",
                from.name
            );
        }
        let cols = tensor.cols();
        let matrices = tensor.shape().get(2).copied().unwrap_or(1); // experts
        let importance = self.importance.and_then(|all| all.0.get(tensor.name()));
        if let Some(importance) = importance {
            ensure!(
                importance.len() == cols * matrices,
                "the importance matrix has {} columns for it, the model {}",
                importance.len(),
                cols * matrices
            );
        }
        let too_large = "its size overflows";
        let (from_row, to_row) = (
            from.bytes(cols).context(too_large)?,
            to.bytes(cols).context(too_large)?,
        );
        // Some hundred thousand values of one matrix at a time.
        let rows = tensor.rows() / matrices;
        let most = (1usize << 18).div_ceil(cols.max(1));
        let mut blocks = vec![0; tensor.rows() * to_row];
        let whole = tensor
            .bytes()
            .chunks(rows * from_row)
            .zip(blocks.chunks_mut(rows * to_row));
        let pieces: Vec<_> = whole
            .enumerate()
            .flat_map(|(matrix, (source, target))| {
                let importance = importance.map(|all| &all[matrix * cols..][..cols]);
                let parts = source
                    .chunks(most * from_row)
                    .zip(target.chunks_mut(most * to_row));
                parts.map(move |(source, target)| (source, target, importance))
            })
            .collect();
        let sums = Mutex::new((0.0f64, 0.0f64));
        for_each(self.threads, pieces, |(source, target, importance)| {
            let count = source.len() / from_row * cols;
            let (mut values, mut back) = (vec![0.0; count], vec![0.0; count]);
            from.dequantize(source, &mut values);
            match importance {
                Some(importance) => to.quantize_with_importance(&values, importance, target),
                None => to.quantize(&values, target),
            }
            to.dequantize(target, &mut back);
            let square = |x: f32| f64::from(x) * f64::from(x);
            let error: f64 = values.iter().zip(&back).map(|(a, b)| square(a - b)).sum();
            let size: f64 = values.iter().map(|x| square(*x)).sum();
            let mut sums = sums.lock().unwrap_or_else(|e| e.into_inner());
            *sums = (sums.0 + error, sums.1 + size);
        });
        let (error, size) = sums.into_inner().unwrap_or_else(|e| e.into_inner());
        ensure!(size.is_finite(), "it holds a value that is not finite");
        Ok((blocks, (error / size.max(f64::MIN_POSITIVE)).sqrt()))
    }
}

pub(super) fn format(name: &str) -> Result<&'static Format> {
    format_by_name(name).with_context(|| format!("no format {name}"))
}

/// `blk.3.attn_v.weight` → 3
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_match_whole_names() {
        let matches = |pattern: &str, name| {
            Rule {
                pattern: pattern.into(),
                format: &FORMATS[0],
            }
            .matches(name)
        };
        assert!(matches("blk.*.attn_v.weight", "blk.12.attn_v.weight"));
        assert!(matches("*ffn*", "blk.0.ffn_up.weight"));
        assert!(matches("output.weight", "output.weight"));
        assert!(!matches("output.weight", "attn_output.weight"));
        assert!(!matches("blk.1.*", "blk.12.attn_v.weight"));
        assert!(!matches("*.bias", "blk.0.attn_q.weight"));
        assert!(!matches("a*a", "a"));
    }

    #[test]
    fn q4_k_m_gives_the_layers_of_llama_cpp_more_bits() {
        // llama_model_quantize of llama-cpp-python 0.3.36 on a model of 6 layers: Q6_K values in these.
        let mixture = Mixture::by_name("Q4_K_M").unwrap();
        let more: Vec<usize> = (0..6)
            .filter(|&layer| {
                mixture.format_of(
                    "attn_v",
                    Place {
                        layer,
                        layers: 6,
                        group: 4,
                    },
                ) == "q6_k"
            })
            .collect();
        assert_eq!(more, [2, 5]);
        assert!(
            Mixture::by_name("q9")
                .unwrap_err()
                .to_string()
                .contains("q4_k_m")
        );
    }
}
