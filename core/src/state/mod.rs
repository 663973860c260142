//! What a session keeps of the tokens that it has evaluated: the KV cache of the layers with attention, and the inputs that short convolutions still see.
//!
//! Every part can go back to an earlier position, some only to certain ones: [`State::truncate`] answers the position that was really kept, and the
//! session evaluates again what lies between.

mod conv;
mod kv;

pub(crate) use conv::ConvState;
pub use kv::CacheFormat;
pub(crate) use kv::{KvCache, Mark, SEGMENT, SLACK, bytes_read};

use crate::model::Config;
use std::io;

/// Most tokens of a draft, which every state can drop again.
pub(crate) const MAX_DRAFT: usize = 15;

/// The state of one sequence.
pub(crate) struct State {
    pub(crate) kv: KvCache,
    pub(crate) conv: ConvState,
}

/// Bytes of a state for `context` positions; saturates instead of overflowing, so that a refusal can name a number.
pub(crate) fn bytes(config: &Config, context: usize, format: CacheFormat) -> u64 {
    kv::bytes(config, context, format).saturating_add(conv::bytes(config, context))
}

impl State {
    /// A state for `context` positions. Pages are the system's zero pages until they are written, so a long context costs memory only as it fills.
    pub(crate) fn new(config: &Config, context: usize, format: CacheFormat) -> State {
        State {
            kv: KvCache::new(config, context, format),
            conv: ConvState::new(config, context),
        }
    }

    /// Positions it has room for.
    pub(crate) fn context(&self) -> usize {
        self.kv.context()
    }

    /// Goes back to `position`, at most the tokens evaluated. Returns the position that was kept: `position`, or one before it.
    #[must_use]
    pub(crate) fn truncate(&mut self, position: usize) -> usize {
        let mut kept = position;
        loop {
            let all = self.conv.truncate(self.kv.truncate(kept));
            if all == kept {
                return kept;
            }
            kept = all;
        }
    }

    /// Whether [`State::checkpoint`] does anything.
    pub(crate) fn has_checkpoints(&self) -> bool {
        self.kv.has_checkpoints()
    }

    /// Keeps what going back to `position`, the tokens evaluated, needs, in place of the last checkpoint of this kind.
    pub(crate) fn checkpoint(&mut self, mark: Mark, position: usize) {
        self.kv.checkpoint(mark, position);
    }

    /// The same state up to `position`, the tokens evaluated.
    pub(crate) fn fork(&self, position: usize) -> State {
        State {
            kv: self.kv.fork(position),
            conv: self.conv.clone(),
        }
    }

    /// Bytes of what [`State::save`] hands out.
    pub(crate) fn saved_bytes(&self, position: usize) -> usize {
        self.kv.saved_bytes(position) + self.conv.saved_bytes(position)
    }

    /// Hands out what [`State::restore`] needs to go on from `position`, the tokens evaluated.
    pub(crate) fn save(
        &self,
        position: usize,
        write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.kv.save(position, write)?;
        self.conv.save(position, write)
    }

    /// Takes up what [`State::save`] handed out.
    pub(crate) fn restore(
        &mut self,
        position: usize,
        read: &mut dyn FnMut(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.kv.restore(position, read)?;
        self.conv.restore(position, read)
    }
}
