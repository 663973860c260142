//! `[quant]`: quantisation-aware training.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// `[quant]`: the formats that the student is trained for and exported in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quant {
    /// Block format of the layers' matrices. Default "q4_0".
    pub linear: String,
    /// Block format of the embeddings, which are the output matrix too when tied. Default "q8_0".
    pub embedding: String,
    /// Block format of an output matrix of its own. Default "q8_0".
    pub head: String,
    /// Share of the steps after which training begins to round, 0 to 1; 1 means plain rounding after training. Default 0.5.
    pub start: f64,
}

impl Default for Quant {
    fn default() -> Self {
        Quant {
            linear: "q4_0".into(),
            embedding: "q8_0".into(),
            head: "q8_0".into(),
            start: 0.5,
        }
    }
}

impl Quant {
    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            (0.0..=1.0).contains(&self.start),
            "[quant] start = {}; expected 0 to 1",
            self.start
        );
        Ok(())
    }
}
