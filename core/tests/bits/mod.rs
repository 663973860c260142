//! What comparing instruction sets needs.
#![allow(dead_code, unreachable_pub)] // every test file uses another part of it

use dram_core::kernels::{self, Kernels};

/// A small generator of reproducible values (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// Between −1 and 1.
    pub fn value(&mut self) -> f32 {
        self.next() as i32 as f32 / 2f32.powi(31)
    }

    pub fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.value()).collect()
    }
}

pub fn scalar() -> &'static Kernels {
    kernels::every().last().unwrap()
}

pub fn others() -> impl Iterator<Item = &'static Kernels> {
    kernels::every().filter(|kernels| kernels.name() != "scalar")
}

pub fn assert_same(name: &str, what: &str, got: &[f32], expected: &[f32]) {
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan()),
            "{name}: {what}: value {index}: expected {expected:e}, got {got:e}"
        );
    }
    assert_eq!(got.len(), expected.len());
}
