//! LoRA adapters: opened once beside their model, put to use in any of its sessions.

use crate::types::count;
use std::sync::Arc;

/// An open LoRA adapter of one model. Its weights stay in its file; sessions that use it keep it alive.
#[derive(uniffi::Object)]
pub struct DramAdapter {
    inner: dram_core::Adapter,
}

impl DramAdapter {
    pub(crate) fn new(inner: dram_core::Adapter) -> Arc<Self> {
        Arc::new(DramAdapter { inner })
    }
}

#[uniffi::export]
impl DramAdapter {
    /// Matrices of the model that it changes.
    pub fn matrices(&self) -> u32 {
        count(self.inner.len())
    }

    /// Size of its file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.inner.gguf().file_bytes() as u64
    }
}

/// An adapter and how strongly it acts.
#[derive(Clone, uniffi::Record)]
pub struct ScaledAdapter {
    /// The adapter.
    pub adapter: Arc<DramAdapter>,
    /// 1 is what it was trained for; 0 turns it off.
    #[uniffi(default = 1.0)]
    pub scale: f32,
}

/// As core takes them.
pub(crate) fn scaled(adapters: &[ScaledAdapter]) -> Vec<(dram_core::Adapter, f32)> {
    let each = |a: &ScaledAdapter| (a.adapter.inner.clone(), a.scale);
    adapters.iter().map(each).collect()
}
