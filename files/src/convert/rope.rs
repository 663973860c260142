//! Factors that the frequencies of rotation are divided by: tensors that the folder has as fields of `config.json`.

use anyhow::{Context, Result, ensure};
use dram_core::gguf::names::tensor::{self, weight};
use dram_core::model::folder::{Fields, rope_type, same_for_all_lengths};

use super::planner::Planner;
use super::tensors::Make;

impl Planner<'_> {
    /// Factors that the frequencies of rotation are divided by.
    pub(super) fn rope(&mut self) -> Result<()> {
        let rope = self.fields.rope().full;
        // Of layers that see everything; the last one does.
        let last = self.shape.layers.len() - 1;
        let half = (self.family.layer_shape)(self.fields, self.shape, last)?.head_dim / 2;
        let list = |key: &str| -> Result<Vec<f32>> {
            let values: Option<Vec<f32>> = rope[key]
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
            "llama3" => put(&weight(tensor::ROPE_FREQS), llama3(&rope, 2 * half)?),
            "proportional" => put(&weight(tensor::ROPE_FREQS), proportional(&rope, half)?),
            "factors" => put(&weight(tensor::ROPE_FREQS), list("factors")?),
            "longrope" if same_for_all_lengths(rope.json()) => {
                put(&weight(tensor::ROPE_FREQS), list("short_factor")?)
            }
            "longrope" | "su" => {
                put(&weight(tensor::ROPE_FACTORS_LONG), list("long_factor")?)?;
                put(&weight(tensor::ROPE_FACTORS_SHORT), list("short_factor")?)
            }
            _ => Ok(()),
        }
    }
}

/// Gemma 4's factors: of the pairs of a head some are rotated, as those of a head that is rotated whole, and the others stand still.
fn proportional(rope: &Fields, half: usize) -> Result<Vec<f32>> {
    let share = rope.opt_float("partial_rotary_factor")?.unwrap_or(1.0);
    ensure!(
        (0.0..=1.0).contains(&share),
        "config.json: RoPE: partial_rotary_factor = {share}; expected 0 to 1"
    );
    let rotated = (share * half as f64) as usize;
    Ok((0..half)
        .map(|i| if i < rotated { 1.0 } else { 1e30 })
        .collect())
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
