//! Where a session's drafts come from.

use crate::model::NativeModel;
use std::sync::Arc;

/// Tokens guessed ahead, which the model then evaluates together: fewer steps for the same answers. A seed draws other tokens with a draft model than
/// without, from the same distribution.
#[derive(Clone, uniffi::Enum)]
pub enum Speculation {
    /// No drafts: a token at a time.
    Off,
    /// A small model with the same vocabulary guesses, such as a student of the session's model.
    Draft {
        /// The small model.
        model: Arc<NativeModel>,
        /// Most tokens of a draft, from 1 to 15.
        #[uniffi(default = 8)]
        most: u32,
    },
    /// What followed the last tokens when they came up before. For answers that repeat what they are about.
    Lookup {
        /// How many of the last tokens must have come up together, at least 1.
        #[uniffi(default = 2)]
        ngram: u32,
        /// Most tokens of a draft, from 1 to 15.
        #[uniffi(default = 8)]
        most: u32,
    },
}

impl From<Speculation> for dram_core::Speculation {
    fn from(speculation: Speculation) -> Self {
        match speculation {
            Speculation::Off => dram_core::Speculation::Off,
            Speculation::Draft { model, most } => dram_core::Speculation::Draft {
                model: model.inner.clone(),
                most: most as usize,
            },
            Speculation::Lookup { ngram, most } => dram_core::Speculation::Lookup {
                ngram: ngram as usize,
                most: most as usize,
            },
        }
    }
}
