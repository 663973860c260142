//! Opening models, and making their sessions.

use super::{Session, SessionOptions};
use crate::gguf;
use crate::model::{Model, OpenOptions};
use crate::{Result, kernels};
use std::path::Path;

/// Context of a session that asks for none, where the model allows it: the cache of a longer one can be large.
const DEFAULT_CONTEXT: usize = 4096;

impl Model {
    /// Maps the GGUF file at `path` and checks that this runtime can run it. Weights are not read, let alone copied. Of a model in several files any one
    /// may be named.
    ///
    /// The file must stay as it is while the model or one of its sessions lives. To bring an update, put a new file in its place (write it beside
    /// and rename it) and open that; never write to a file that is open. Each request looks first whether the file was truncated, written to or
    /// replaced, and returns [`Error::FileChanged`] if so. What cannot be read any more in the middle of a request ends it with that error too, where the
    /// system allows it ([`gguf::handle_map_faults`]); elsewhere it ends the process.
    ///
    /// # Errors
    /// What is wrong with the file: it names the key or tensor, what was expected and what was found.
    pub fn open(path: impl AsRef<Path>) -> Result<Model> {
        Model::open_with(path, &OpenOptions::default())
    }

    /// [`Model::open`], refusing a model too large for `options.memory_limit`.
    ///
    /// # Errors
    /// Also [`Error::MemoryLimit`] when not even a session with the smallest context would fit.
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Model> {
        Model::from_gguf(gguf::File::open(path)?, options)
    }

    /// The model that `length` bytes of an open file hold, from `offset` on: see [`gguf::File::open_at`]. Errors call it `name`.
    ///
    /// # Errors
    /// As [`Model::open_with`] and [`gguf::File::open_at`].
    pub fn open_at(
        name: impl Into<String>,
        file: std::fs::File,
        offset: u64,
        length: u64,
        options: &OpenOptions,
    ) -> Result<Model> {
        Model::from_gguf(gguf::File::open_at(name, file, offset, length)?, options)
    }

    /// A model in a file that is already open.
    ///
    /// # Errors
    /// As [`Model::open_with`]; [`Error::InstructionSet`](crate::Error::InstructionSet) when `DRAM_ISA` asks for what this processor does not have.
    pub fn from_gguf(file: gguf::File, options: &OpenOptions) -> Result<Model> {
        kernels::check_selected()?;
        let model = Model::read(file, options)?;
        model.check_memory(SessionOptions {
            context: Some(1),
            ..SessionOptions::default()
        })?;
        model.gguf().check_read()?;
        Ok(model)
    }

    /// The context of a session that asks for none: the model's own, at most 4096.
    #[must_use]
    pub fn default_context(&self) -> usize {
        self.config().context_length.min(DEFAULT_CONTEXT)
    }

    /// A session: one sequence with its own cache and threads.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a context or thread count of 0, a context longer than the model's, or a cache format that does not suit the
    /// model's heads; [`Error::MemoryLimit`]; [`Error::Thread`] when the system starts no thread; [`Error::WrongUse`] when the model is an encoder.
    pub fn session(&self, options: SessionOptions) -> Result<Session> {
        self.check_generates()?;
        Session::new(self.clone(), options)
    }

    /// Refuses an encoder.
    pub(crate) fn check_generates(&self) -> Result<()> {
        match self.config().pooling {
            None => Ok(()),
            Some(_) => Err(self.wrong_use(
                "generates text: this is an embedding model or a reranker, use Model::encoder",
            )),
        }
    }
}
