//! Splits the small work between the matrix products over the pool: each job owns the slices it writes, so nothing here is unsafe.

use crate::quant::activation::{BLOCK, QuantizedMut};
use crate::threads::Pool;
use std::sync::{Mutex, PoisonError};

/// Most jobs of one region. Jobs that need scratch of their own have one row of it each.
pub(super) const LANES: usize = 16;

/// How many of `rows` rows make one job, where a row reads and writes about `bytes`: work that takes about as long as waking a thread is not split.
pub(super) fn rows_per_job(pool: &Pool, rows: usize, bytes: usize) -> usize {
    const MIN_BYTES: usize = 32 << 10;
    let most = if pool.threads() == 1 { 1 } else { LANES };
    let jobs = (rows.saturating_mul(bytes) / MIN_BYTES).clamp(1, most);
    rows.div_ceil(jobs).max(1)
}

/// Does every job, at most [`LANES`] of them, on the pool's threads. Allocates nothing.
pub(super) fn each<J: Send>(
    pool: &Pool,
    jobs: impl ExactSizeIterator<Item = J>,
    work: impl Fn(usize, J) + Sync,
) {
    let count = jobs.len();
    assert!(count <= LANES, "at most {LANES} jobs, got {count}");
    if count <= 1 {
        jobs.for_each(|job| work(0, job));
        return;
    }
    let mut jobs = jobs.fuse();
    let slots: [Mutex<Option<J>>; LANES] = std::array::from_fn(|_| Mutex::new(jobs.next()));
    pool.run(count, &|lane, _worker| {
        let job = slots[lane]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(job) = job {
            work(lane, job);
        }
    });
}

/// Cuts `out` into `count` pieces of `values` values each, the last one shorter; without `out`, as many times nothing.
pub(super) fn pieces(
    out: Option<QuantizedMut<'_>>,
    values: usize,
    count: usize,
) -> impl ExactSizeIterator<Item = Option<QuantizedMut<'_>>> {
    let mut rest = out;
    (0..count).map(move |_| {
        let whole = rest.take()?;
        let at = values.min(whole.values.len());
        let (values, more_values) = whole.values.split_at_mut(at);
        let (scales, more_scales) = whole.scales.split_at_mut(at / BLOCK);
        let (sums, more_sums) = whole.sums.split_at_mut(at / BLOCK);
        rest = Some(QuantizedMut {
            values: more_values,
            scales: more_scales,
            sums: more_sums,
        });
        Some(QuantizedMut {
            values,
            scales,
            sums,
        })
    })
}
