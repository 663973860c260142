//! Random LoRA adapters for any model, in the layout of llama.cpp's convert_lora_to_gguf.py, and the model that each stands for.

use crate::gguf::{Gguf, Tensor, Value};
use crate::toy::{quantised, weights};
use dram_core::gguf::File;
use dram_core::quant::{Format, format_by_name};

pub const EMBEDDING: &str = "token_embd.weight";
const OUTPUT: &str = "output.weight";

/// What an adapter changes, and how.
#[derive(Debug, Clone)]
pub struct Lora {
    pub seed: u64,
    pub rank: usize,
    pub alpha: f32,
    /// The format of both halves, by core's name. Rows that are no whole blocks of it are F16, as the converter writes them.
    pub format: &'static str,
    /// Whether the embedding is changed too.
    pub embedding: bool,
}

impl Default for Lora {
    fn default() -> Lora {
        Lora {
            seed: 1,
            rank: 5,
            alpha: 8.0,
            format: "f32",
            embedding: true,
        }
    }
}

/// Layers of `base` that make the next token.
fn layers(base: &File) -> u32 {
    let metadata = base.metadata();
    let architecture = metadata.str("general.architecture").unwrap();
    let number = |key| metadata.opt_u32(&format!("{architecture}.{key}")).unwrap();
    number("block_count").unwrap() - number("nextn_predict_layers").unwrap_or(0)
}

/// Matrices of `base` that a vector is multiplied with, or that are looked up.
fn adapted(base: &File, embedding: bool) -> impl Iterator<Item = dram_core::gguf::Tensor<'_>> {
    let layers = layers(base);
    base.tensors().filter(move |tensor| {
        let name = tensor.name();
        let matrix = tensor.shape().len() == 2 && name.ends_with(".weight");
        let other = ["norm", "shortconv.conv.", "ssm_conv1d."];
        let other = other.iter().any(|part| name.contains(part));
        let block = name.strip_prefix("blk.").and_then(|n| n.split('.').next());
        let in_layer = block.is_some_and(|number| number.parse::<u32>().unwrap() < layers);
        let inside = in_layer && !other || name == OUTPUT;
        matrix && (inside || embedding && name == EMBEDDING)
    })
}

impl Lora {
    /// An adapter of every matrix of `base`.
    pub fn gguf(&self, base: &File) -> Gguf {
        let mut file = Gguf::default();
        let architecture = base.metadata().str("general.architecture").unwrap();
        file.set("general.type", Value::Str("adapter".into()));
        file.set("general.architecture", Value::Str(architecture.into()));
        file.set("adapter.type", Value::Str("lora".into()));
        file.set("adapter.lora.alpha", Value::F32(self.alpha));
        for tensor in adapted(base, self.embedding) {
            let (name, rows, cols) = (tensor.name(), tensor.rows(), tensor.cols());
            let shapes = if name == EMBEDDING {
                [(rows, self.rank), (cols, self.rank)]
            } else {
                [(self.rank, cols), (rows, self.rank)]
            };
            for (half, (rows, cols)) in ["lora_a", "lora_b"].iter().zip(shapes) {
                file.tensors
                    .push(self.half(&format!("{name}.{half}"), rows, cols));
            }
        }
        file
    }

    fn half(&self, name: &str, rows: usize, cols: usize) -> Tensor {
        let wanted = format_by_name(self.format).unwrap();
        let format: &Format = if cols.is_multiple_of(wanted.block) {
            wanted
        } else {
            format_by_name("f16").unwrap()
        };
        let values = weights(name, rows * cols, 0.6 / (cols as f32).sqrt(), self.seed); // [rows, cols]
        Tensor {
            name: name.into(),
            dims: vec![cols as u64, rows as u64],
            ggml_type: format.ggml_id,
            offset: None,
            bytes: values
                .chunks(cols)
                .flat_map(|row| quantised(format, row))
                .collect(),
        }
    }
}

/// `base` with its matrices in F32 and those of `adapters` (with their scales) added to them. A tied head stays what it was: adapters change the
/// embedding where it is looked up.
pub fn merged(base: &File, adapters: &[(&File, f32)]) -> Gguf {
    let mut whole = Gguf::copy(base);
    let tied = base.get_tensor(OUTPUT).is_none();
    if tied {
        let mut head = whole.tensor(EMBEDDING).clone();
        head.name = OUTPUT.into();
        whole.tensors.push(head);
    }
    for tensor in adapted(base, true) {
        let (name, rows, cols) = (tensor.name(), tensor.rows(), tensor.cols());
        let mut sum: Vec<f64> = tensor.dequantize().into_iter().map(f64::from).collect(); // [rows, cols]
        for (file, scale) in adapters {
            let half = |half: &str| file.get_tensor(&format!("{name}.{half}"));
            let (Some(a), Some(b)) = (half("lora_a"), half("lora_b")) else {
                continue;
            };
            let rank = b.cols();
            let alpha = file.metadata().f32("adapter.lora.alpha").unwrap();
            let factor = f64::from(scale * alpha / rank as f32);
            let (a, b) = (a.dequantize(), b.dequantize());
            for row in 0..rows {
                for col in 0..cols {
                    let products = (0..rank).map(|k| {
                        let (a, b) = if name == EMBEDDING {
                            (a[row * rank + k], b[col * rank + k])
                        } else {
                            (a[k * cols + col], b[row * rank + k])
                        };
                        f64::from(a) * f64::from(b)
                    });
                    sum[row * cols + col] += factor * products.sum::<f64>();
                }
            }
        }
        let target = whole.tensor(name);
        target.ggml_type = 0;
        target.bytes = sum.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect();
    }
    whole
}
