//! Reads the file's head piece by piece, never past its end.

use crate::{Error, Result};

/// A position in the file's bytes. `what` in its methods names the part for errors.
pub(super) struct Cursor<'a> {
    pub(super) file: &'a str,
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn corrupt(
        &self,
        what: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Error {
        Error::Corrupt {
            file: self.file.to_owned(),
            what: what.into(),
            expected: expected.into(),
            got: got.into(),
        }
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn take(&mut self, length: u64, what: &str) -> Result<&'a [u8]> {
        let taken = usize::try_from(length)
            .ok()
            .and_then(|length| self.bytes[self.at..].get(..length));
        let taken = taken.ok_or_else(|| {
            let expected = format!("{length} bytes at offset {}", self.at);
            self.corrupt(
                what,
                expected,
                format!(
                    "{} before the end of the file: it is cut short, or a length is wrong",
                    self.left()
                ),
            )
        })?;
        self.at += taken.len();
        Ok(taken)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(self
            .take(4, what)?
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(self
            .take(8, what)?
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub(super) fn string(&mut self, what: &str) -> Result<&'a str> {
        let length = self.u64(what)?;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).map_err(|error| {
            self.corrupt(
                what,
                "UTF-8",
                format!("a wrong byte at position {}", error.valid_up_to()),
            )
        })
    }

    /// A string that names something: not empty, at most `most` bytes.
    pub(super) fn name(&mut self, what: &str, most: usize) -> Result<&'a str> {
        let start = self.at;
        let name = self.string(what)?;
        if name.is_empty() || name.len() > most {
            self.at = start;
            return Err(self.corrupt(
                what,
                format!("1 to {most} bytes"),
                format!("{} bytes", name.len()),
            ));
        }
        Ok(name)
    }

    /// A count whose elements take at least `least` bytes each.
    pub(super) fn count(&self, count: u64, least: usize, most: u64, what: &str) -> Result<usize> {
        let room = (self.left() / least) as u64;
        if count > room.min(most) {
            let expected = format!("at most {} (what the file has room for)", room.min(most));
            return Err(self.corrupt(what, expected, count.to_string()));
        }
        Ok(count as usize) // at most the length of the file
    }
}
