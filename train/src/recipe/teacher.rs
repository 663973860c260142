//! `[teacher]`: whom the student learns from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[teacher]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Teacher {
    /// A Hugging Face folder or a GGUF file, relative to the recipe.
    pub path: PathBuf,
}
