//! Loops that do nothing but what bounds a forward pass: reading memory, and multiplying int8. They say what a device could do at most.

use super::Kernels;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
use super::lanes::Lanes;
use std::hint::black_box;

/// 256 bytes of memory.
pub(crate) type Words = [f32; 64];

/// The fastest multiplication of int8 that an instruction set has, from register to register.
///
/// # Safety
/// Methods may be called only where the processor has the implementor's instructions, from a function that is compiled for them.
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
pub(super) trait Multiply {
    type Register: Copy;
    /// Multiply-adds of one [`Multiply::multiply`].
    const PRODUCTS: u64;
    /// Adds the products to `sum`, in a way that the compiler does not take out of a loop.
    unsafe fn multiply(
        sum: Self::Register,
        weights: Self::Register,
        x: Self::Register,
    ) -> Self::Register;
}

/// `rounds` rounds over `N` sums, so many that none waits for itself. Returns how many multiply-adds they were.
///
/// # Safety
/// `M` may be used.
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
#[inline(always)]
pub(super) unsafe fn multiply_adds<M: Multiply, const N: usize>(rounds: usize) -> u64 {
    // SAFETY: the caller's.
    unsafe {
        let (weights, x) = (splat(black_box(1)), splat(black_box(1)));
        let mut sums = black_box([0; N]).map(splat);
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = M::multiply(*sum, weights, x);
            }
        }
        black_box(sums);
    }
    (rounds * N) as u64 * M::PRODUCTS
}

/// `value` in every byte of a register.
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
#[inline(always)]
fn splat<R: Copy>(value: i8) -> R {
    const { assert!(size_of::<R>() <= 64) };
    // SAFETY: as many bytes are there, and a register holds any.
    unsafe { [value; 64].as_ptr().cast::<R>().read_unaligned() }
}

/// As [`multiply_adds`], as far as the compiler gets by itself.
pub(super) fn plain_multiply_adds(rounds: usize) -> u64 {
    const LENGTH: usize = 1024;
    let (weights, x) = ([1i8; LENGTH], [1i8; LENGTH]);
    for _ in 0..rounds {
        let products = black_box(&weights).iter().zip(black_box(&x));
        black_box(
            products
                .map(|(w, x)| i32::from(*w) * i32::from(*x))
                .sum::<i32>(),
        );
    }
    (rounds * LENGTH) as u64
}

/// The sum of all of it.
///
/// # Safety
/// `L` may be used.
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
#[inline(always)]
pub(super) unsafe fn read<L: Lanes>(memory: &[Words]) -> f32 {
    // SAFETY: the caller's; 64 values are four times sixteen.
    unsafe {
        let one = L::splat(1.0);
        let mut sums = [L::splat(0.0); 4];
        for words in memory {
            for (quarter, sum) in sums.iter_mut().enumerate() {
                *sum = L::load(words.as_ptr().add(quarter * 16)).mul_add(one, *sum);
            }
        }
        let [a, b, c, d] = sums;
        a.mul_add(one, b).mul_add(one, c.mul_add(one, d)).sum()
    }
}

/// As [`read`], as far as the compiler gets by itself.
pub(super) fn plain_read(memory: &[Words]) -> f32 {
    let mut sums: Words = [0.0; 64];
    for words in memory {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum += word;
        }
    }
    sums.iter().sum()
}

impl Kernels {
    /// The sum of `memory`, read as fast as loads go.
    pub(crate) fn read(&self, memory: &[Words]) -> f32 {
        // SAFETY: the processor has this table's instructions.
        unsafe { (self.read)(memory) }
    }

    /// Does nothing but int8 multiply-adds; returns how many.
    pub(crate) fn multiply_adds(&self, rounds: usize) -> u64 {
        // SAFETY: the processor has this table's instructions.
        unsafe { (self.multiply_adds)(rounds) }
    }
}
