//! Asking for memory before it is read.

#[cfg(target_arch = "x86_64")]
/// Asks for the cache line at `address`, which need not be valid, into the second-level cache: what waits there does not push out of the first what
/// is worked on.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: a prefetch never faults, and SSE is part of x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
}

#[cfg(target_arch = "aarch64")]
/// Asks for the cache line at `address`, which need not be valid, into the second-level cache.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8) {
    // SAFETY: a prefetch never faults, and changes nothing that a program sees.
    unsafe {
        std::arch::asm!("prfm pldl2keep, [{}]", in(reg) address, options(readonly, nostack, preserves_flags))
    }
}

/// Asks for the cache line at `address`, which need not be valid; here, in vain.
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
pub(crate) fn prefetch(_address: *const u8) {}
