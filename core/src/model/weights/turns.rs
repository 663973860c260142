//! How far RoPE turns each pair for each position.

use super::super::config::{Config, Rope};
use super::finder::Finder;
use crate::gguf::names::tensor::{self, weight};
use crate::{Error, Result};

/// Turns per position of each pair, with scaling and factors applied.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    short: Vec<f32>,        // [rope dimensions / 2]
    long: Option<Vec<f32>>, // [rope dimensions / 2]: in contexts longer than the original one
}

impl Turns {
    /// `[rope dimensions / 2]`, for a session of `context` positions.
    pub(crate) fn of(&self, rope: &Rope, context: usize) -> &[f32] {
        match &self.long {
            Some(long) if context > rope.original_context => long,
            _ => &self.short,
        }
    }
}

/// The turns of every rotary embedding. Factors lie in the file for all contexts, or for short and long ones; local layers take none.
pub(super) fn turns(find: &mut Finder<'_>, config: &Config) -> Result<Vec<Turns>> {
    let pairs = config.rope.dimensions / 2;
    if pairs == 0 {
        return Ok(Vec::new());
    }
    let mut factors = |name: &str| -> Result<Option<Vec<f32>>> {
        let Some(tensor) = find.get(name) else {
            return Ok(None);
        };
        find.shaped(tensor, &[pairs])?;
        let factors = tensor.dequantize();
        match factors.iter().find(|f| !(f.is_finite() && **f > 0.0)) {
            None => Ok(Some(factors)),
            Some(bad) => Err(Error::Corrupt {
                file: find.file.name().into(),
                what: format!("tensor `{name}`"),
                expected: "finite factors greater than 0".into(),
                got: bad.to_string(),
            }),
        }
    };
    let every = factors(&weight(tensor::ROPE_FREQS))?;
    let short = factors(&weight(tensor::ROPE_FACTORS_SHORT))?.or(every);
    let long = factors(&weight(tensor::ROPE_FACTORS_LONG))?;
    let mut turns = vec![Turns {
        short: config.rope.frequencies(short.as_deref()),
        long: long.map(|long| config.rope.frequencies(Some(&long))),
    }];
    turns.extend(config.local_rope.iter().map(|rope| Turns {
        short: rope.frequencies(None),
        long: None,
    }));
    Ok(turns)
}
