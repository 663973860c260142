//! Metadata keys of one file under its architecture's name, with the checks that every family shares.

use super::config::{Config, Pooling};
use super::families::Architecture;
use crate::gguf::names::key;
use crate::gguf::{self, Kind, Value};
use crate::{Error, Result};

/// A file, and the prefix of its keys.
pub(crate) struct Keys<'a> {
    pub(crate) file: &'a gguf::File,
    pub(super) family: &'static Architecture,
}

/// No dimension of a model is longer than this; products of two fit a 64-bit number with room to spare.
const LONGEST: u32 = 1 << 24;

/// Most positions that a convolution sees; published models have 3 and 4.
const MAX_KERNEL: usize = 16;

impl Keys<'_> {
    pub(crate) fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.family.name)
    }

    /// A length or count: from 1 to 2²⁴. A list of as many numbers as there are layers is one number where all are equal.
    pub(crate) fn length(&self, key: &str) -> Result<usize> {
        match self.opt_length(key)? {
            Some(length) => Ok(length),
            None => self
                .file
                .metadata()
                .u32(&self.name(key))
                .map(|n| n as usize),
        }
    }

    /// A length or count that may be absent.
    pub(crate) fn opt_length(&self, key: &str) -> Result<Option<usize>> {
        let name = self.name(key);
        let value = match self.file.metadata().get(&name) {
            Some(Value::Array(list)) if key != key::BLOCK_COUNT => Some(self.same(&name, list)?),
            _ => self.file.metadata().opt_u32(&name)?,
        };
        value.map(|value| self.in_range(&name, value)).transpose()
    }

    /// A count for each layer, which may be 0, `[layers]`; one number stands for all.
    pub(crate) fn lengths(&self, key: &str) -> Result<Vec<usize>> {
        let (name, layers) = (self.name(key), self.layers()?);
        let Some(Value::Array(list)) = self.file.metadata().get(&name) else {
            return Ok(vec![self.length(key)?; layers]);
        };
        let number = |value: Value<'_>| usize::try_from(value.as_integer()?).ok();
        let numbers: Option<Vec<usize>> = list.iter().map(number).collect();
        match numbers
            .filter(|all| all.len() == layers && all.iter().all(|n| *n <= LONGEST as usize))
        {
            Some(numbers) => Ok(numbers),
            None => {
                let expected = format!("a number up to {LONGEST} for each of the {layers} layers");
                let got = format!("{} values of type {}", list.len(), list.kind());
                Err(self.bad(&name, expected, got))
            }
        }
    }

    /// The number that a list holds once for each layer.
    fn same(&self, key: &str, list: gguf::Array<'_>) -> Result<u32> {
        let layers = self.layers()?;
        let expected = format!("a number, or the same one for each of the {layers} layers");
        let mut numbers = list.iter().map(|value| value.as_integer());
        let first = numbers.next().flatten();
        let number = first.and_then(|number| u32::try_from(number).ok());
        match number.filter(|_| list.len() == layers) {
            None => {
                let got = format!("{} values of type {}", list.len(), list.kind());
                Err(self.bad(key, expected, got))
            }
            Some(number) => match numbers.find(|other| *other != first) {
                None => Ok(number),
                Some(other) => {
                    let other = other.unwrap_or_default();
                    Err(self.bad(key, expected, format!("{number} and {other}")))
                }
            },
        }
    }

    /// A length that may be absent or 0, which means the same.
    pub(crate) fn nonzero_length(&self, key: &str) -> Result<Option<usize>> {
        match self.file.metadata().opt_u32(&self.name(key))? {
            None | Some(0) => Ok(None),
            Some(_) => self.opt_length(key),
        }
    }

    fn in_range(&self, key: &str, value: u32) -> Result<usize> {
        if (1..=LONGEST).contains(&value) {
            Ok(value as usize)
        } else {
            Err(self.bad(key, format!("a number from 1 to {LONGEST}"), value))
        }
    }

    /// `block_count`.
    pub(crate) fn blocks(&self) -> Result<usize> {
        self.length(key::BLOCK_COUNT)
    }

    /// [`Keys::blocks`], without the layers that predict tokens after the next one. Every layer has a tensor, so there are no more layers than tensors.
    pub(crate) fn layers(&self) -> Result<usize> {
        let (layers, tensors) = (self.blocks()?, self.file.tensors().len());
        if layers <= tensors {
            let more = self.nonzero_length(key::NEXTN_PREDICT_LAYERS)?.unwrap_or(0);
            return match layers.checked_sub(more) {
                Some(layers @ 1..) => Ok(layers),
                _ => {
                    let key = self.name(key::NEXTN_PREDICT_LAYERS);
                    Err(self.bad(&key, format!("less than the {layers} layers"), more))
                }
            };
        }
        let key = self.name(key::BLOCK_COUNT);
        Err(self.bad(
            &key,
            format!("at most the file's {tensors} tensors"),
            layers,
        ))
    }

    /// Positions that a short convolution sees.
    pub(crate) fn kernel(&self, key: &str) -> Result<usize> {
        let kernel = self.length(key)?;
        if (2..=MAX_KERNEL).contains(&kernel) {
            return Ok(kernel);
        }
        Err(self.bad(&self.name(key), format!("from 2 to {MAX_KERNEL}"), kernel))
    }

    /// A truth value for each layer, at least `[layers]`, if the file has the key.
    pub(crate) fn flags(&self, key: &str) -> Result<Option<Vec<bool>>> {
        let (name, layers) = (self.name(key), self.layers()?);
        match self.file.metadata().get(&name) {
            None => Ok(None),
            Some(Value::Array(list)) if list.kind() == Kind::Bool && list.len() >= layers => Ok(
                Some(list.iter().map(|on| on == Value::Bool(true)).collect()),
            ),
            Some(_) => {
                let expected = format!("a truth value for each of the {layers} layers");
                Err(self.bad(&name, expected, "something else"))
            }
        }
    }

    /// A finite number greater than 0, or `default` where the file has none.
    pub(crate) fn positive(&self, key: &str, default: Option<f32>) -> Result<f32> {
        match (self.opt_positive(key)?, default) {
            (Some(value), _) => Ok(value),
            (None, Some(default)) => Ok(default),
            (None, None) => self.file.metadata().f32(&self.name(key)),
        }
    }

    /// A finite number greater than 0, if the file has the key.
    pub(crate) fn opt_positive(&self, key: &str) -> Result<Option<f32>> {
        let key = self.name(key);
        match self.file.metadata().opt_f32(&key)? {
            Some(value) if !(value > 0.0 && value.is_finite()) => {
                Err(self.bad(&key, "a finite number greater than 0".into(), value))
            }
            value => Ok(value),
        }
    }

    /// A finite number greater than 0; absent and 0 mean the same.
    pub(crate) fn nonzero(&self, key: &str) -> Result<Option<f32>> {
        match self.file.metadata().opt_f32(&self.name(key))? {
            Some(0.0) => Ok(None),
            _ => self.opt_positive(key),
        }
    }

    /// Which layers see only a window, `[layers]`: the file's list, or all but the last of every `period`, which the file may name too.
    pub(crate) fn local_layers(&self, layers: usize, period: usize) -> Result<Vec<bool>> {
        self.local_layers_but(layers, period, |period| period - 1)
    }

    /// The same, but for the layer of this number in every period.
    pub(crate) fn local_layers_but(
        &self,
        layers: usize,
        period: usize,
        number: fn(usize) -> usize,
    ) -> Result<Vec<bool>> {
        let key = self.name(key::SLIDING_WINDOW_PATTERN);
        let every = |period: usize| (0..layers).map(|i| i % period != number(period)).collect();
        match self.file.metadata().get(&key) {
            None => Ok(every(period)),
            Some(Value::Array(list)) if list.kind() == Kind::Bool => {
                if list.len() == layers {
                    return Ok(list
                        .iter()
                        .map(|local| local == Value::Bool(true))
                        .collect());
                }
                let expected = format!("one truth value for each of the {layers} layers");
                Err(self.bad(&key, expected, format!("{} of them", list.len())))
            }
            Some(_) => Ok(every(self.length(key::SLIDING_WINDOW_PATTERN)?)),
        }
    }

    /// How an encoder makes one vector of a text's; `None` where the file names no way.
    pub(super) fn pooling(&self) -> Result<Option<Pooling>> {
        let key = self.name(key::POOLING_TYPE);
        Ok(match self.file.metadata().opt_u32(&key)? {
            None | Some(0) => None,
            Some(1) => Some(Pooling::Mean),
            Some(2) => Some(Pooling::Cls),
            Some(3) => Some(Pooling::Last),
            Some(4) => Some(Pooling::Rank),
            Some(other) => {
                let expected = "1 (mean), 2 (the first token), 3 (the last token) or 4 (a score)";
                return Err(self.bad(&key, expected.into(), other));
            }
        })
    }

    /// Refuses experts in a family that has none.
    pub(super) fn check_experts(&self, config: &Config) -> Result<()> {
        let key = self.name(key::EXPERT_COUNT);
        match self.file.metadata().opt_u32(&key)? {
            Some(n @ 1..) if config.experts().next().is_none() => {
                let expected = format!("0 or absent: `{}` has no experts", self.family.name);
                Err(self.bad(&key, expected, n))
            }
            _ => Ok(()),
        }
    }

    /// The error for a value of `key` (its full name) that cannot be.
    pub(crate) fn bad(&self, key: &str, expected: String, got: impl ToString) -> Error {
        Error::BadKey {
            file: self.file.name().to_owned(),
            key: key.to_owned(),
            expected,
            got: got.to_string(),
        }
    }
}
