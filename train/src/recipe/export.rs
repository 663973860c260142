//! `[export]`: the file that is written.

use serde::{Deserialize, Serialize};

/// `[export]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Export {
    /// Whether to write a GGUF file. Default true.
    pub gguf: bool,
    /// Block format of every matrix when there is no `[quant]`. Default "f16".
    pub format: String,
}

impl Default for Export {
    fn default() -> Self {
        Export {
            gguf: true,
            format: "f16".into(),
        }
    }
}
