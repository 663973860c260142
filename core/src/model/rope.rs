//! Rotary position embedding: what the metadata says, and the turns per position that follow from it.

use super::keys::Keys;
use crate::Result;
use crate::gguf::names::key;
use crate::kernels::RopeLayout;
use std::f64::consts::PI;

/// Rotary position embedding (RoFormer, arXiv:2104.09864): pair `i` of a head turns by `position · scale · base^(-2i / dimensions)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// How many leading values of a head are rotated; even.
    pub dimensions: usize,
    /// The base of the frequencies.
    pub base: f32,
    /// Multiplies every frequency: 1, or 1 / factor for linear scaling (arXiv:2306.15595).
    pub scale: f32,
    /// Where only the slow frequencies are scaled.
    pub yarn: Option<Yarn>,
    /// Multiplies rotated queries and keys.
    pub attention_factor: f32,
    /// Positions before the context was extended: a longer session takes the factors for long texts, where the file has them.
    pub original_context: usize,
    /// Which values make a pair.
    pub layout: RopeLayout,
}

/// YaRN (arXiv:2309.00071): a pair that turns more often than `fast` times over the original context keeps its frequency, one that turns less
/// often than `slow` times is scaled, and between them is a ramp.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// Turns above which nothing is scaled; `beta_fast`.
    pub fast: f32,
    /// Turns below which all is scaled; `beta_slow`.
    pub slow: f32,
}

impl Rope {
    /// No rotation.
    pub(crate) fn none() -> Rope {
        Rope {
            dimensions: 0,
            base: 1.0,
            scale: 1.0,
            yarn: None,
            attention_factor: 1.0,
            original_context: 0,
            layout: RopeLayout::Halves,
        }
    }

    /// Reads `rope.*`. A head has `key_length` values, all of them rotated where the file does not say otherwise.
    pub(crate) fn read(keys: &Keys<'_>, key_length: usize, context: usize) -> Result<Rope> {
        let dimensions = keys
            .opt_length(key::ROPE_DIMENSION_COUNT)?
            .unwrap_or(key_length);
        if !dimensions.is_multiple_of(2) || dimensions > key_length {
            let key = keys.name(key::ROPE_DIMENSION_COUNT);
            let expected = format!("an even number up to the head's length {key_length}");
            return Err(keys.bad(&key, expected, dimensions));
        }
        let plain = Rope {
            dimensions,
            base: keys.positive(key::ROPE_FREQ_BASE, Some(10_000.0))?,
            attention_factor: keys.nonzero(key::ROPE_ATTENTION_FACTOR)?.unwrap_or(1.0),
            original_context: keys
                .opt_length(key::ROPE_ORIGINAL_CONTEXT)?
                .unwrap_or(context),
            layout: keys.family.layout,
            ..Rope::none()
        };
        plain.scaled(keys)
    }

    /// The same without any scaling, with the base for layers that see a window.
    pub(crate) fn local(&self, keys: &Keys<'_>, default_base: f32) -> Result<Rope> {
        Ok(Rope {
            base: keys.positive(key::ROPE_FREQ_BASE_LOCAL, Some(default_base))?,
            scale: 1.0,
            yarn: None,
            attention_factor: 1.0,
            ..self.clone()
        })
    }

    /// Reads `rope.scaling.*`. Llama 3's scaling needs no key: it lies in the file as factors, one for each frequency.
    fn scaled(mut self, keys: &Keys<'_>) -> Result<Rope> {
        let kind = keys.name(key::ROPE_SCALING_TYPE);
        let kind = match keys.file.metadata().opt_str(&kind)?.unwrap_or("linear") {
            "none" => return Ok(self),
            known @ ("linear" | "llama3" | "longrope" | "yarn") => known,
            other => {
                let expected =
                    "none, linear, yarn or longrope: other kinds of RoPE scaling are not supported";
                return Err(keys.bad(&kind, expected.into(), other));
            }
        };
        // Older files have scale_linear.
        let factor = match keys.nonzero(key::ROPE_SCALING_FACTOR)? {
            Some(factor) => factor,
            None => keys.nonzero("rope.scale_linear")?.unwrap_or(1.0),
        };
        self.scale = 1.0 / factor;
        if kind != "yarn" {
            return Ok(self);
        }
        let extrapolation = keys.positive(key::YARN_EXT_FACTOR, Some(1.0))?;
        if extrapolation != 1.0 {
            let key = keys.name(key::YARN_EXT_FACTOR);
            return Err(keys.bad(&key, "1 or absent".into(), extrapolation));
        }
        self.yarn = Some(Yarn {
            fast: keys.positive(key::YARN_BETA_FAST, Some(32.0))?,
            slow: keys.positive(key::YARN_BETA_SLOW, Some(1.0))?,
        });
        // Section 3.4 of the paper: 0.1 · ln(factor) + 1, for queries and for keys.
        let temper = |multiplier: f32| 0.1 * multiplier * factor.max(1.0).ln() + 1.0;
        let all = keys.nonzero("rope.scaling.yarn_log_multiplier")?;
        self.attention_factor *= match keys.nonzero(key::YARN_ATTN_FACTOR)? {
            Some(whole) => whole,
            None => temper(1.0) / all.map_or(1.0, temper),
        };
        Ok(self)
    }

    /// Turns per position of each pair, `[dimensions / 2]`, divided by `factors` where the file has some.
    pub(crate) fn frequencies(&self, factors: Option<&[f32]>) -> Vec<f32> {
        let (base, scale) = (f64::from(self.base), f64::from(self.scale));
        let ramp = self.yarn.map(|yarn| self.ramp(yarn));
        let turn = |i: usize| {
            let plain = base.powf(-2.0 * i as f64 / self.dimensions as f64);
            let scaled = match ramp {
                None => scale,
                Some((low, high)) => {
                    let kept = 1.0 - ((i as f64 - low) / (high - low).max(1e-3)).clamp(0.0, 1.0);
                    scale * (1.0 - kept) + kept
                }
            };
            plain * scaled / factors.map_or(1.0, |factors| f64::from(factors[i]))
        };
        (0..self.dimensions / 2).map(|i| turn(i) as f32).collect()
    }

    /// The pairs where YaRN's ramp begins and ends, whole as in the authors' code.
    fn ramp(&self, yarn: Yarn) -> (f64, f64) {
        let (d, base) = (self.dimensions as f64, f64::from(self.base));
        // The pair that turns `turns` times over the original context.
        let pair = |turns: f32| {
            let wave = self.original_context as f64 / (f64::from(turns) * 2.0 * PI);
            d * wave.ln() / (2.0 * base.ln())
        };
        let (low, high) = (pair(yarn.fast).floor(), pair(yarn.slow).ceil());
        (low.max(0.0), high.min(d - 1.0))
    }
}
