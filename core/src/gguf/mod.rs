//! Reads GGUF versions 2 and 3 without copying: metadata and tensors are views into the memory map.
//!
//! Nothing in a file is trusted. Every count, offset, length, type and alignment is checked once, when the file is opened; what the views
//! return afterwards lies inside the map. Specification: GGML's `docs/gguf.md`.

mod cursor;
mod faults;
mod foreign;
mod map;
mod metadata;
pub mod names;
#[cfg(feature = "folders")]
mod owned;
mod reader;
mod split;
mod value;

pub use faults::handle_map_faults;
pub use metadata::Metadata;
#[cfg(feature = "folders")]
pub use owned::OwnedValue;
pub use value::{Array, Kind, Strings, Value};

use crate::quant::Format;
use crate::{Error, Result};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// An open GGUF file, or an open model in several files.
pub struct File {
    name: String,
    /// The first holds the metadata.
    parts: Vec<Part>,
    version: u32,
    metadata: metadata::Table,
    tensors: Vec<Entry>,
    by_name: HashMap<Box<str>, usize>,
}

/// One of the files.
struct Part {
    /// Bytes of the parts before it: ranges count from the beginning of the first.
    start: usize,
    bytes: Bytes,
}

/// Where a file's bytes are.
enum Bytes {
    Mapped(Box<map::Map>),
    Owned(Vec<u8>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map.bytes(),
            Bytes::Owned(bytes) => bytes,
        }
    }
}

/// What the file says about one tensor, checked.
struct Entry {
    name: Box<str>,
    format: &'static Format,
    /// GGML's order: the row length comes first.
    shape: Vec<usize>,
    /// Where its bytes lie in the file.
    range: Range<usize>,
}

impl File {
    /// Maps the file at `path` and checks it. Takes a few milliseconds whatever the size of its weights. Of a model in several files
    /// (`NAME-00001-of-00003.gguf`) any one may be named; all are opened.
    ///
    /// The files must not be changed while they are open; [`File::check_unchanged`] notices most changes. Reading what is no longer there gives zeros
    /// and an error ([`handle_map_faults`]).
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses, [`Error::SplitFile`] where parts are missing, otherwise what is wrong with the file.
    pub fn open(path: impl AsRef<Path>) -> Result<File> {
        let path = path.as_ref();
        split::open_parts(File::open_one(path)?, path, File::open_one)
    }

    fn open_one(path: &Path) -> Result<File> {
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        let name = path.display().to_string();
        // Before it is opened: to open a pipe may take for ever.
        let is = path.metadata().map_err(io)?;
        if !is.is_file() {
            let got = foreign::not_a_file(path, &is);
            return Err(Error::NotGguf { file: name, got });
        }
        let file = std::fs::File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        File::mapped(name, file, Some(path), 0..length).map_err(io)?
    }

    /// Maps `length` bytes of an open file from `offset` on, anywhere in it: a model inside another file, such as an asset that an Android package holds
    /// uncompressed. Errors call it `name`. As for [`File::open`] the file must not be changed; a model in several files is refused.
    ///
    /// # Errors
    /// As [`File::open`]; [`Error::Corrupt`] when the file has not that many bytes.
    pub fn open_at(
        name: impl Into<String>,
        file: std::fs::File,
        offset: u64,
        length: u64,
    ) -> Result<File> {
        let name = name.into();
        let io = |source| Error::Io {
            path: name.clone().into(),
            source,
        };
        let is = file.metadata().map_err(io)?;
        if !is.is_file() {
            let got = foreign::not_a_file(Path::new(&name), &is);
            return Err(Error::NotGguf { file: name, got });
        }
        match offset.checked_add(length) {
            Some(end) if end <= is.len() => {
                let file = File::mapped(name.clone(), file, None, offset..end).map_err(io)??;
                split::refuse(file)
            }
            _ => Err(Error::Corrupt {
                file: name,
                what: "the part of the file that holds the model".into(),
                expected: format!("at most the {} bytes of the file", is.len()),
                got: format!("{length} bytes from {offset} on"),
            }),
        }
    }

    /// Maps these bytes of `file` and checks them.
    fn mapped(
        name: String,
        file: std::fs::File,
        path: Option<&Path>,
        range: Range<u64>,
    ) -> std::io::Result<Result<File>> {
        let bytes = if range.is_empty() {
            Bytes::Owned(Vec::new()) // nothing cannot be mapped
        } else {
            Bytes::Mapped(Box::new(map::Map::new(file, path, range)?))
        };
        Ok(reader::read(name, bytes).and_then(|file| {
            file.check_read()?;
            Ok(file)
        }))
    }

    /// Checks a file that is already in memory. Errors call it `name`.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn from_bytes(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Result<File> {
        split::refuse(reader::read(name.into(), Bytes::Owned(bytes.into()))?)
    }

    /// Adds the tensors of the next part. `Err` with the name of a tensor that is there already.
    fn append(&mut self, part: File) -> Result<(), String> {
        for next in part.parts {
            let start = self.file_bytes();
            self.parts.push(Part { start, ..next });
        }
        let start = self.parts.last().map_or(0, |part| part.start);
        for mut entry in part.tensors {
            entry.range = entry.range.start + start..entry.range.end + start;
            let index = self.tensors.len();
            if self.by_name.insert(entry.name.clone(), index).is_some() {
                return Err(entry.name.into());
            }
            self.tensors.push(entry);
        }
        Ok(())
    }

    /// Looks whether the files are still what they were when they were opened: their length, when they were last written to, and that no others lie at
    /// their paths. A removed file is still there for its map.
    ///
    /// # Errors
    /// [`Error::FileChanged`].
    pub fn check_unchanged(&self) -> Result<()> {
        self.check(|map| map.change())
    }

    /// Whether all that was read so far was the files: cheap enough to ask after each layer.
    ///
    /// # Errors
    /// [`Error::FileChanged`].
    pub(crate) fn check_read(&self) -> Result<()> {
        self.check(|map| map.faulted().then(|| map.change()).flatten())
    }

    fn check(&self, change: impl Fn(&map::Map) -> Option<String>) -> Result<()> {
        for part in &self.parts {
            if let Bytes::Mapped(map) = &part.bytes
                && let Some(got) = change(map)
            {
                let file = self.name.clone();
                return Err(Error::FileChanged { file, got });
            }
        }
        Ok(())
    }

    /// The path it was opened by, as errors show it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The GGUF version: 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The size of the file in bytes; that of all of them where there are several.
    #[must_use]
    pub fn file_bytes(&self) -> usize {
        let last = self.parts.last();
        last.map_or(0, |part| part.start + part.bytes.len())
    }

    /// Whether the bytes are a map of the file (and not anonymous memory).
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        let mut parts = self.parts.iter();
        parts.all(|part| matches!(part.bytes, Bytes::Mapped(_)))
    }

    /// The key-value pairs.
    #[must_use]
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata::new(self)
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = Tensor<'_>> {
        self.tensors
            .iter()
            .map(|entry| Tensor { file: self, entry })
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        self.get_tensor(name).ok_or_else(|| Error::MissingTensor {
            file: self.name.clone(),
            tensor: name.to_owned(),
        })
    }

    /// The tensor called `name`, if there is one.
    #[must_use]
    pub fn get_tensor(&self, name: &str) -> Option<Tensor<'_>> {
        self.by_name.get(name).map(|index| Tensor {
            file: self,
            entry: &self.tensors[*index],
        })
    }

    /// The bytes of the file; of the first one where there are several.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.parts.first().map_or(&[], |part| &part.bytes)
    }

    /// The bytes of `range`, which lies in one of the files and counts from the beginning of the first, as [`Tensor::range`] does.
    pub(crate) fn at(&self, range: Range<usize>) -> &[u8] {
        let number = match &self.parts[..] {
            [_] => 0,
            parts => parts.partition_point(|part| part.start <= range.start) - 1,
        };
        let Part { start, bytes } = &self.parts[number];
        &bytes[range.start - start..range.end - start]
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("name", &self.name)
            .field("bytes", &self.file_bytes())
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

/// A tensor in a file: a view into the map.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    file: &'a File,
    entry: &'a Entry,
}

impl<'a> Tensor<'a> {
    /// Its name, such as `blk.0.attn_q.weight`.
    #[must_use]
    pub fn name(&self) -> &'a str {
        &self.entry.name
    }

    /// How its values are stored: one of [`crate::quant::FORMATS`], or a format that is known by name and size only
    /// ([`Format::is_read`]).
    #[must_use]
    pub fn format(&self) -> &'static Format {
        self.entry.format
    }

    /// Its dimensions in GGML's order: the row length comes first.
    #[must_use]
    pub fn shape(&self) -> &'a [usize] {
        &self.entry.shape
    }

    /// The length of a row: the first dimension.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.entry.shape[0]
    }

    /// The number of rows: the product of the other dimensions.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.entry.shape[1..].iter().product()
    }

    /// The number of values.
    #[must_use]
    pub fn values(&self) -> usize {
        self.entry.shape.iter().product()
    }

    /// Its bytes as stored: `rows` rows of `cols` values in blocks of [`Tensor::format`]. No alignment is promised.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.file.at(self.entry.range.clone())
    }

    /// Where its bytes lie in the file; where there are several, behind the bytes of those before.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.entry.range.clone()
    }

    /// All its values as f32: `[rows, cols]`.
    #[must_use]
    pub fn dequantize(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.values()];
        self.format().dequantize(self.bytes(), &mut values);
        values
    }
}

impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Tensor({} {} {:?})",
            self.name(),
            self.format().name,
            self.shape()
        )
    }
}

#[cfg(test)]
mod tests;
