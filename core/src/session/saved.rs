//! Saving a session's sequence to a file, and taking it up again.
//!
//! Little-endian: [`Header`]; the tokens, 4 bytes each; the state as [`State::save`](crate::state::State::save) hands it out; a hash of everything before
//! it, 8 bytes.

use super::Session;
use crate::files::{Access, NewFile};
use crate::hash::Hash;
use crate::state::CacheFormat;
use crate::{Error, Result};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

const MAGIC: [u8; 8] = *b"DRAMSEQ\0";
/// Grows with every change to what is written, and to what the forward pass leaves in the cache.
const VERSION: u32 = 3;
const HEADER: usize = 8 + 4 + 4 + 8 + 8 + 8 + 8;
const CHECKSUM: usize = 8;

/// The beginning of a saved session.
struct Header {
    version: u32,
    /// GGML's number of the cache's format.
    format: u32,
    /// Of the model.
    fingerprint: u64,
    /// Of the adapters and their scales; 0 without.
    adapters: u64,
    /// Of the sequence.
    tokens: u64,
    /// Tokens in the state.
    positions: u64,
}

impl Header {
    fn to_bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.format.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.fingerprint.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.adapters.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.tokens.to_le_bytes());
        bytes[40..].copy_from_slice(&self.positions.to_le_bytes());
        bytes
    }

    /// `None` for another magic.
    fn from_bytes(bytes: &[u8; HEADER]) -> Option<Header> {
        let (words, _) = bytes.as_chunks::<4>();
        let (longs, _) = bytes.as_chunks::<8>();
        (longs[0] == MAGIC).then(|| Header {
            version: u32::from_le_bytes(words[2]),
            format: u32::from_le_bytes(words[3]),
            fingerprint: u64::from_le_bytes(longs[2]),
            adapters: u64::from_le_bytes(longs[3]),
            tokens: u64::from_le_bytes(longs[4]),
            positions: u64::from_le_bytes(longs[5]),
        })
    }
}

fn ggml_id(format: CacheFormat) -> u32 {
    match format {
        CacheFormat::F16 => 1,
        CacheFormat::Q8_0 => 8,
    }
}

/// Passes bytes on, and hashes them.
struct Hashed<T> {
    inner: T,
    hash: Hash,
}

impl<T> Hashed<T> {
    fn new(inner: T) -> Self {
        Hashed {
            inner,
            hash: Hash::default(),
        }
    }
}

impl<W: Write> Hashed<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.inner.write_all(bytes)
    }
}

impl Session {
    /// What tells the adapters in use, with their scales, from others; 0 without.
    fn adapters_fingerprint(&self) -> u64 {
        if self.adapters().is_empty() {
            return 0;
        }
        let mut hash = Hash::default();
        for (adapter, scale) in self.adapters() {
            hash.update(&adapter.fingerprint().to_le_bytes());
            hash.update(&scale.to_le_bytes());
        }
        hash.finish()
    }

    /// Writes the sequence, its tokens with their keys and values, to a file, from which [`Session::restore`] takes it up with the same model and
    /// adapters. The file is written beside `path` and then renamed, so that an error or a crash leaves the old one, and of several saves at the same
    /// time one stays whole. It holds the conversation in the clear; nobody but its owner may read it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::FileChanged`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        self.check_files()?;
        let written = NewFile::create(path, Access::Private).and_then(|mut new| {
            self.write_to(new.file())?;
            new.commit()
        });
        written.map_err(|source| Error::Io {
            path: path.to_owned(),
            source,
        })
    }

    fn write_to(&self, file: &mut File) -> io::Result<()> {
        let mut out = Hashed::new(BufWriter::with_capacity(1 << 16, file));
        let header = Header {
            version: VERSION,
            format: ggml_id(self.cpu.state.kv.format()),
            fingerprint: self.model.fingerprint(),
            adapters: self.adapters_fingerprint(),
            tokens: self.ids.len() as u64,
            positions: self.position as u64,
        };
        out.put(&header.to_bytes())?;
        for id in self.tokens() {
            out.put(&id.to_le_bytes())?;
        }
        self.cpu
            .state
            .save(self.position, &mut |bytes| out.put(bytes))?;
        let checksum = out.hash.finish();
        out.inner.write_all(&checksum.to_le_bytes())?;
        out.inner.flush()
    }

    /// Takes up the sequence that [`Session::save`] wrote, in place of this one. A request whose prompt begins with its tokens then evaluates only
    /// the rest. The whole file is read and checked before anything changes; then it is read again.
    ///
    /// # Errors
    /// [`Error::SavedSession`] for a file of another model, adapters, cache format or version, for one that is truncated or altered, and for a sequence that
    /// is longer than this session's context; [`Error::Io`]. The session stays as it was, unless the file changes while it is read: then it is empty.
    pub fn restore(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        self.check_files()?;
        let mut file = File::open(path).map_err(io)?;
        let (tokens, positions) = self.check_saved(path, &mut file)?;
        file.seek(SeekFrom::Start(HEADER as u64)).map_err(io)?;
        self.reset();
        let mut file = BufReader::with_capacity(1 << 16, file);
        let read = self.read_sequence(tokens, positions, &mut file);
        let is_known = self.ids.is_empty() || self.check(&self.ids).is_ok();
        if read.is_err() || !is_known {
            self.ids.clear();
            read.map_err(io)?;
            return Err(refuse(path, "tokens of the model", "others", ALTERED));
        }
        self.position = positions;
        Ok(())
    }

    fn read_sequence(
        &mut self,
        tokens: usize,
        positions: usize,
        file: &mut impl Read,
    ) -> io::Result<()> {
        let mut id = [0; 4];
        for _ in 0..tokens {
            file.read_exact(&mut id)?;
            self.ids.push(u32::from_le_bytes(id));
        }
        self.cpu
            .state
            .restore(positions, &mut |bytes| file.read_exact(bytes))
    }

    /// Checks all of the file, and returns how many tokens it has, and how many of them in the state.
    fn check_saved(&self, path: &Path, file: &mut File) -> Result<(usize, usize)> {
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        let length = file.metadata().map_err(io)?.len();
        let least = (HEADER + CHECKSUM) as u64;
        if length < least {
            let expected = format!("at least {least} bytes");
            return Err(refuse(path, expected, length, TRUNCATED));
        }
        let mut bytes = [0; HEADER];
        file.read_exact(&mut bytes).map_err(io)?;
        let Some(header) = Header::from_bytes(&bytes) else {
            let got = format!("{:?}", String::from_utf8_lossy(&bytes[..8]));
            return Err(refuse(
                path,
                "a file that begins with \"DRAMSEQ\"",
                got,
                "it is another kind of file",
            ));
        };
        if header.version != VERSION {
            let advice =
                "it was saved by another version of the runtime: evaluate the prompt again";
            return Err(refuse(
                path,
                format!("version {VERSION}"),
                header.version,
                advice,
            ));
        }
        let format = self.cpu.state.kv.format();
        if header.format != ggml_id(format) {
            let expected = format!(
                "a cache in {} (GGML's number {})",
                format.name(),
                ggml_id(format)
            );
            let advice = "make a session with the cache format it was saved from";
            return Err(refuse(
                path,
                expected,
                format!("number {}", header.format),
                advice,
            ));
        }
        let fingerprint = self.model.fingerprint();
        if header.fingerprint != fingerprint {
            let expected = format!(
                "the model {} (fingerprint {fingerprint:016x})",
                self.model.gguf().name()
            );
            let got = format!("fingerprint {:016x}", header.fingerprint);
            return Err(refuse(
                path,
                expected,
                got,
                "open the model it was saved with",
            ));
        }
        let adapters = self.adapters_fingerprint();
        if header.adapters != adapters {
            let name = |number| match number {
                0 => "no adapters".to_owned(),
                number => format!("adapters with the fingerprint {number:016x}"),
            };
            let advice = "set the adapters, with their scales, that it was saved with";
            return Err(refuse(path, name(adapters), name(header.adapters), advice));
        }
        let context = self.context();
        let Some(tokens) = usize::try_from(header.tokens)
            .ok()
            .filter(|&n| n <= context)
        else {
            let expected = format!("at most {context} tokens, the session's context");
            return Err(refuse(
                path,
                expected,
                header.tokens,
                "make a session with a longer context",
            ));
        };
        let Some(positions) = usize::try_from(header.positions)
            .ok()
            .filter(|&n| n <= tokens)
        else {
            let expected = format!("a state of at most {tokens} tokens");
            return Err(refuse(path, expected, header.positions, ALTERED));
        };
        // At most what this session's own state takes.
        let state = self.cpu.state.saved_bytes(positions);
        let expected = least + (tokens * size_of::<u32>() + state) as u64;
        if length != expected {
            let advice = if length < expected {
                TRUNCATED
            } else {
                ALTERED
            };
            return Err(refuse(path, format!("{expected} bytes"), length, advice));
        }
        let mut hash = Hash::default();
        hash.update(&bytes);
        let mut left = expected - least;
        let mut part = vec![0; 1 << 16];
        while left > 0 {
            let count = left.min(part.len() as u64) as usize;
            file.read_exact(&mut part[..count]).map_err(io)?;
            hash.update(&part[..count]);
            left -= count as u64;
        }
        let mut checksum = [0; CHECKSUM];
        file.read_exact(&mut checksum).map_err(io)?;
        let (expected, got) = (u64::from_le_bytes(checksum), hash.finish());
        // A fuzzer does not guess checksums.
        if got != expected && !cfg!(fuzzing) {
            let expected = format!("the checksum {expected:016x}");
            return Err(refuse(path, expected, format!("{got:016x}"), ALTERED));
        }
        Ok((tokens, positions))
    }
}

const TRUNCATED: &str = "the file is truncated: evaluate the prompt again";
const ALTERED: &str = "the file is damaged: evaluate the prompt again";

fn refuse(path: &Path, expected: impl ToString, got: impl ToString, advice: &'static str) -> Error {
    Error::SavedSession {
        path: path.to_owned(),
        expected: expected.to_string(),
        got: got.to_string(),
        advice,
    }
}
