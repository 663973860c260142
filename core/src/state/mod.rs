//! What a session keeps of the tokens that it has evaluated: the KV cache of the layers with attention, the inputs that short convolutions still see, and
//! the matrices of linear attention.
//!
//! Every part can go back to an earlier position, some only to certain ones: [`State::truncate`] answers the position that was really kept, and the
//! session evaluates again what lies between.

mod conv;
mod kv;
mod recurrent;

pub(crate) use conv::ConvState;
pub use kv::CacheFormat;
pub(crate) use kv::{KvCache, Mark, SEGMENT, SLACK};
pub(crate) use recurrent::{RecurrentState, StateRun, take_up};

use crate::kernels;
use crate::model::{Config, LinearAttention};
use std::io;

/// Most tokens of a draft, which every state can drop again.
pub(crate) const MAX_DRAFT: usize = 15;

/// The state of one sequence.
pub(crate) struct State {
    pub(crate) kv: KvCache,
    pub(crate) conv: ConvState,
    pub(crate) recurrent: RecurrentState,
}

/// Bytes of a state for `context` positions; saturates instead of overflowing, so that a refusal can name a number.
pub(crate) fn bytes(config: &Config, context: usize, format: CacheFormat) -> u64 {
    kv::bytes(config, context, format)
        .saturating_add(conv::bytes(config, context))
        .saturating_add(recurrent::bytes(config))
}

/// Bytes that a token after `seen` others reads, in all layers: keys and values, and the matrices of linear attention.
pub(crate) fn bytes_read(config: &Config, seen: usize, format: CacheFormat) -> u64 {
    let matrices = config
        .linear_attentions()
        .map(LinearAttention::state_length);
    let matrices = matrices.sum::<usize>() * size_of::<f32>();
    kv::bytes_read(config, seen, format).saturating_add(matrices as u64)
}

impl State {
    /// A state for `context` positions. Pages are the system's zero pages until they are written, so a long context costs memory only as it fills.
    pub(crate) fn new(config: &Config, context: usize, format: CacheFormat) -> State {
        State {
            kv: KvCache::new(config, context, format),
            conv: ConvState::new(config, context),
            recurrent: RecurrentState::new(config),
        }
    }

    /// Positions it has room for.
    pub(crate) fn context(&self) -> usize {
        self.kv.context()
    }

    /// Goes back to `position`, at most the tokens evaluated. Returns the position that was kept: `position`, or one before it.
    #[must_use]
    pub(crate) fn truncate(&mut self, position: usize) -> usize {
        let kernels = kernels::selected();
        let mut kept = position;
        loop {
            let all = self.recurrent.truncate(kernels, self.kv.truncate(kept));
            let all = self.conv.truncate(all);
            if all == kept {
                return kept;
            }
            kept = all;
        }
    }

    /// Whether [`State::checkpoint`] does anything.
    pub(crate) fn has_checkpoints(&self) -> bool {
        self.kv.has_checkpoints() || !self.recurrent.is_empty()
    }

    /// Keeps what going back to `position`, the tokens evaluated, needs, in place of the last checkpoint of this kind.
    pub(crate) fn checkpoint(&mut self, mark: Mark, position: usize) {
        let kept = self.truncate(position);
        assert_eq!(kept, position, "a draft can be dropped");
        self.kv.checkpoint(mark, position);
        self.conv.checkpoint(mark, position);
        self.recurrent.checkpoint(mark, position);
    }

    /// The same state up to `position`, the tokens evaluated.
    pub(crate) fn fork(&self, position: usize) -> State {
        State {
            kv: self.kv.fork(position),
            conv: self.conv.clone(),
            recurrent: self.recurrent.at(position).into_owned(),
        }
    }

    /// Bytes of what [`State::save`] hands out.
    pub(crate) fn saved_bytes(&self, position: usize) -> usize {
        self.kv.saved_bytes(position)
            + self.conv.saved_bytes(position)
            + self.recurrent.saved_bytes()
    }

    /// Hands out what [`State::restore`] needs to go on from `position`, the tokens evaluated.
    pub(crate) fn save(
        &self,
        position: usize,
        write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.kv.save(position, write)?;
        self.conv.save(position, write)?;
        self.recurrent.at(position).save(write)
    }

    /// Takes up what [`State::save`] handed out.
    pub(crate) fn restore(
        &mut self,
        position: usize,
        read: &mut dyn FnMut(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.kv.restore(position, read)?;
        self.conv.restore(position, read)?;
        self.recurrent.restore(position, read)
    }
}

/// Hands out values as little-endian bytes.
fn write_floats(values: &[f32], write: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut bytes = [0; 4 * FLOATS];
    for values in values.chunks(FLOATS) {
        for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
            *bytes = value.to_le_bytes();
        }
        write(&bytes[..size_of_val(values)])?;
    }
    Ok(())
}

/// Takes up values that [`write_floats`] handed out.
fn read_floats(
    values: &mut [f32],
    read: &mut dyn FnMut(&mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut bytes = [0; 4 * FLOATS];
    for values in values.chunks_mut(FLOATS) {
        read(&mut bytes[..size_of_val(values)])?;
        for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
            *value = f32::from_le_bytes(*bytes);
        }
    }
    Ok(())
}

/// Values that are handed out together.
const FLOATS: usize = 256;
