//! Which block format each matrix gets.

use anyhow::{Context, Result};
use dram_core::quant::{FORMATS, Format, format_by_name};

/// Which block format each matrix gets.
///
/// A name of [`FORMATS`] gives every matrix that format, but the output matrix (or the embeddings, where these are the output matrix) Q6_K,
/// as errors there reach the logits directly. `q3_k_m`, `q4_k_s`, `q4_k_m`, `q5_k_s`, `q5_k_m` and `q2_k` are llama.cpp's mixtures: attention values
/// and the second feed-forward matrix of some layers get more bits.
#[derive(Debug, Clone)]
pub struct Mixture {
    pub(super) name: String,
    pub(super) base: &'static Format,
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
pub(super) struct Place {
    /// Its number, of values' matrices among those, which not every layer has.
    pub(super) layer: usize,
    pub(super) layers: usize,
    /// Query heads per key and value head.
    pub(super) group: usize,
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
    pub(super) fn format_of(&self, kind: &str, place: Place) -> &'static str {
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

#[cfg(test)]
mod tests {
    use super::*;

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
