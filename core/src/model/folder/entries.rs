//! The metadata of a file to be written.

use super::{Result, refuse};
use crate::gguf::OwnedValue;

/// A metadata key and its value.
pub type Entry = (String, OwnedValue);

/// Metadata of a file to be written; setting a key again replaces its value.
pub struct Entries {
    architecture: &'static str,
    entries: Vec<Entry>,
}

impl Entries {
    /// With the architecture.
    #[must_use]
    pub fn new(architecture: &'static str) -> Entries {
        let mut new = Entries {
            architecture,
            entries: Vec::new(),
        };
        new.set("general.architecture", architecture);
        new.set("general.type", "model");
        new
    }

    /// `general.architecture`.
    #[must_use]
    pub fn architecture(&self) -> &'static str {
        self.architecture
    }

    /// All of them, in the order in which they were first set.
    #[must_use]
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// Sets a key by its whole name.
    pub fn set(&mut self, key: &str, value: impl Into<OwnedValue>) {
        let value = value.into();
        match self.entries.iter_mut().find(|(other, _)| other == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key.to_owned(), value)),
        }
    }

    /// Sets a key under the architecture's name.
    pub fn own(&mut self, key: &str, value: impl Into<OwnedValue>) {
        self.set(&format!("{}.{key}", self.architecture), value);
    }

    /// Sets a key under the architecture's name.
    ///
    /// # Errors
    /// When the number has more than 32 bits.
    pub fn number(&mut self, key: &str, value: usize) -> Result<()> {
        match u32::try_from(value) {
            Ok(value) => self.own(key, value),
            Err(_) => return refuse(format!("{key} = {value} does not fit 32 bits")),
        }
        Ok(())
    }

    /// Sets a key under the architecture's name.
    pub fn float(&mut self, key: &str, value: f64) {
        self.own(key, value as f32);
    }
}
