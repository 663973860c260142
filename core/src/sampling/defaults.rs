//! How a model is sampled where nobody says how: as its file says, or as its makers do.

use super::Sampling;
use crate::gguf::Value;
use crate::model::Model;
use crate::{Error, Result};

/// Where a model's default sampling comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplingSource {
    /// The file's keys `general.sampling.*`.
    File,
    /// What the makers of this family recommend for it.
    Family(&'static str),
    /// Neither says anything: numbers that suit most models.
    Usual,
}

/// A family, and what its makers set in the `generation_config.json` or the card of its models.
struct Family {
    title: &'static str,
    architecture: &'static str,
    /// A part of `general.name`, in lower case; empty where the architecture says it all.
    name: &'static str,
    temperature: f32,
    top_k: usize,
    top_p: f32,
    repetition: f32,
}

/// The first that fits.
#[rustfmt::skip]
const FAMILIES: &[Family] = &[
    Family { title: "Gemma 3", architecture: "gemma3", name: "", temperature: 1.0, top_k: 64, top_p: 0.95, repetition: 1.0 },
    Family { title: "Gemma 4", architecture: "gemma4", name: "", temperature: 1.0, top_k: 64, top_p: 0.95, repetition: 1.0 },
    Family { title: "Qwen 2.5", architecture: "qwen2", name: "qwen2.5", temperature: 0.7, top_k: 20, top_p: 0.8, repetition: 1.1 },
    Family { title: "Qwen 3", architecture: "qwen3", name: "qwen3", temperature: 0.6, top_k: 20, top_p: 0.95, repetition: 1.0 },
    Family { title: "Llama 3", architecture: "llama", name: "llama-3", temperature: 0.6, top_k: 0, top_p: 0.9, repetition: 1.0 },
    Family { title: "Llama 3", architecture: "llama", name: "llama 3", temperature: 0.6, top_k: 0, top_p: 0.9, repetition: 1.0 },
    Family { title: "SmolLM 2", architecture: "llama", name: "smollm2", temperature: 0.2, top_k: 50, top_p: 0.9, repetition: 1.0 },
    Family { title: "SmolLM 3", architecture: "smollm3", name: "", temperature: 0.6, top_k: 0, top_p: 0.95, repetition: 1.0 },
];

/// A key after `general.sampling.`, and what its number sets. Numbers out of range switch a step off, as in llama.cpp.
type Key = (&'static str, fn(&mut Sampling, f32));

const KEYS: &[Key] = &[
    ("temp", |s, n| s.temperature = n.max(0.0)),
    ("top_k", |s, n| s.top_k = n.max(0.0) as usize),
    ("top_p", |s, n| s.top_p = share(n)),
    ("min_p", |s, n| {
        s.min_p = if n < 1.0 { n.max(0.0) } else { 0.0 }
    }),
    ("xtc_probability", |s, n| {
        s.xtc.probability = n.clamp(0.0, 1.0)
    }),
    ("xtc_threshold", |s, n| s.xtc.threshold = n.clamp(0.0, 1.0)),
    // −1 is the whole context.
    ("penalty_last_n", |s, n| {
        s.penalties.window = if n < 0.0 { usize::MAX } else { n as usize }
    }),
    ("penalty_repeat", |s, n| {
        s.penalties.repetition = if n > 0.0 { n } else { 1.0 }
    }),
];

fn share(n: f32) -> f32 {
    if n > 0.0 && n < 1.0 { n } else { 1.0 }
}

impl Model {
    /// How to sample this model where nobody says how, with seed 0: as the file's keys `general.sampling.*` say (those of llama.cpp; not its order of samplers and
    /// mirostat), else as the makers of its family recommend, else with a temperature of 0.7 and the customary top-k, top-p and min-p. A request's own default is
    /// greedy all the same.
    ///
    /// # Errors
    /// [`Error::BadKey`] for a key that holds no finite number.
    pub fn default_sampling(&self) -> Result<(Sampling, SamplingSource)> {
        let metadata = self.gguf().metadata();
        let info = self.info();
        let name = info.name.to_lowercase();
        let fits = |family: &&Family| {
            family.architecture == info.architecture && name.contains(family.name)
        };
        let mut sampling = Sampling {
            temperature: 0.7,
            ..Sampling::default()
        };
        let mut source = SamplingSource::Usual;
        if let Some(family) = FAMILIES.iter().find(fits) {
            source = SamplingSource::Family(family.title);
            sampling.temperature = family.temperature;
            sampling.top_k = family.top_k;
            sampling.top_p = family.top_p;
            sampling.min_p = 0.0;
            sampling.penalties.repetition = family.repetition;
        }
        for (key, set) in KEYS {
            let key = format!("general.sampling.{key}");
            let Some(value) = metadata.get(&key) else {
                continue;
            };
            let number = number(value).map(|n| n as f32).filter(|n| n.is_finite());
            let number = number.ok_or_else(|| Error::BadKey {
                file: self.gguf().name().to_owned(),
                key,
                expected: "a finite number".into(),
                got: value.to_string(),
            })?;
            set(&mut sampling, number);
            source = SamplingSource::File;
        }
        Ok((sampling, source))
    }
}

/// Any number, also one that is written as a text.
fn number(value: Value<'_>) -> Option<f64> {
    match value {
        Value::F32(n) => Some(n.into()),
        Value::F64(n) => Some(n),
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_integer().map(|n| n as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_that_a_file_may_hold_gives_a_valid_sampling() {
        let numbers = [
            -1e30,
            -1.0,
            -0.0,
            0.0,
            1e-40,
            0.3,
            0.999_999_94,
            1.0,
            1.5,
            40.0,
            1e30,
        ];
        for (key, set) in KEYS {
            for n in numbers {
                let mut sampling = Sampling::default();
                set(&mut sampling, n);
                sampling
                    .validate()
                    .unwrap_or_else(|error| panic!("{key} {n}: {error}"));
            }
        }
        for family in FAMILIES {
            assert!(family.name == family.name.to_lowercase() && family.temperature > 0.0);
        }
    }
}
