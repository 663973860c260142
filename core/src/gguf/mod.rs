//! Reads GGUF versions 2 and 3 without copying: metadata and tensors are views into the memory map.
//!
//! Nothing in a file is trusted. Every count, offset, length, type and alignment is checked once, when the file is opened; what the views
//! return afterwards lies inside the map. Specification: GGML's `docs/gguf.md`.

mod cursor;
mod metadata;
mod reader;
mod value;

pub use metadata::{Metadata, Strings};
pub use value::{Array, Kind, Value};

use crate::quant::Format;
use crate::{Error, Result};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// An open GGUF file.
pub struct File {
    name: String,
    bytes: Bytes,
    version: u32,
    metadata: metadata::Table,
    tensors: Vec<Entry>,
    by_name: HashMap<Box<str>, usize>,
}

/// Where a file's bytes are.
enum Bytes {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
}

/// Asks for pages of 2 MB, with which weights are read faster: a processor knows the addresses of few pages at a time. Where the file system caches
/// files in such pages (ext4 since Linux 6.16, XFS), a file that is not in memory yet is then read and mapped so, which takes no more memory; elsewhere
/// nothing changes.
fn ask_for_huge_pages(map: &memmap2::Mmap) {
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage); // a kernel without them says so
    #[cfg(not(target_os = "linux"))]
    let _ = map;
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
    /// Maps the file at `path` and checks it. Takes a few milliseconds whatever the size of its weights.
    ///
    /// The file must not be changed while it is open: replace a model by renaming another file over it.
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses, otherwise what is wrong with the file.
    pub fn open(path: impl AsRef<Path>) -> Result<File> {
        let path = path.as_ref();
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        let file = std::fs::File::open(path).map_err(io)?;
        let bytes = if file.metadata().map_err(io)?.len() == 0 {
            Bytes::Owned(Vec::new()) // an empty file cannot be mapped
        } else {
            // SAFETY: the map is private and read-only. Changing a mapped file is outside what a process can prevent; the doc comment
            // asks for it, and every offset was checked against the length at the time of mapping.
            let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
            ask_for_huge_pages(&map);
            Bytes::Mapped(map)
        };
        reader::read(path.display().to_string(), bytes)
    }

    /// Checks a file that is already in memory. Errors call it `name`.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn from_bytes(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Result<File> {
        reader::read(name.into(), Bytes::Owned(bytes.into()))
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

    /// The size of the file in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> usize {
        self.bytes().len()
    }

    /// Whether the bytes are a map of the file (and not anonymous memory).
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        matches!(self.bytes, Bytes::Mapped(_))
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

    /// The bytes of the whole file. [`Tensor::range`] counts in them.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
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
        &self.file.bytes()[self.entry.range.clone()]
    }

    /// Where its bytes lie in the file.
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
