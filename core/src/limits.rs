//! What this device can do at most: how fast its threads read memory, which bounds decoding, and how fast they multiply int8, which bounds
//! prefill.

use crate::kernels::{self, Words};
use crate::latency::Latency;
use crate::threads::Pool;
use crate::{Error, Result};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Memory that is read: far more than any cache holds.
const BYTES: usize = 256 << 20;

/// Pieces of work for each thread, so that one which loses its core for a moment leaves little behind.
const PIECES: usize = 16;

/// How often each is measured; the best counts.
const TIMES: usize = 16;

/// Most that some threads of this device do in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Threads that worked.
    pub threads: usize,
    /// The instruction set of the kernels.
    pub isa: &'static str,
    /// Bytes read from memory per second.
    pub read: f64,
    /// Multiply-adds of int8 per second, from register to register.
    pub multiply_adds: f64,
}

impl Limits {
    /// Measures them with the instruction set in use, in less than a second. Takes 256 MiB for that time. `threads` as in
    /// [`crate::SessionOptions`].
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for no thread, [`Error::Thread`] when the system starts none.
    pub fn measure(threads: Option<usize>) -> Result<Limits> {
        if threads == Some(0) {
            return Err(Error::InvalidOption {
                option: "threads",
                expected: "at least 1".into(),
                got: "0".into(),
            });
        }
        let pool = Pool::new(threads)?;
        Ok(Limits {
            threads: pool.threads(),
            isa: kernels::selected().name(),
            read: read(&pool),
            multiply_adds: multiply_adds(&pool),
        })
    }

    /// The share of the int8 limit that `measured`'s prefill makes use of: [`Latency::prefill_multiply_adds`] against [`Limits::multiply_adds`].
    /// `None` where there was no prefill, or the model multiplies no int8.
    #[must_use]
    pub fn prefill_share(&self, measured: &Latency) -> Option<f64> {
        let share = measured.prefill * measured.prefill_multiply_adds as f64 / self.multiply_adds;
        (share > 0.0).then_some(share)
    }

    /// The share of the read limit that `measured`'s decoding makes use of: [`Latency::decode_bytes`] against [`Limits::read`]. Above 1 where the
    /// caches hold the model. `None` where there was no decoding.
    #[must_use]
    pub fn decode_share(&self, measured: &Latency) -> Option<f64> {
        let share = measured.decode * measured.decode_bytes as f64 / self.read;
        (share > 0.0).then_some(share)
    }
}

fn read(pool: &Pool) -> f64 {
    let kernels = kernels::selected();
    let count = BYTES / size_of::<Words>();
    // Pages that were never written would all be one.
    let memory: Vec<Words> = (0..count).map(|at| [at as f32; 64]).collect();
    let pieces: Vec<&[Words]> = memory
        .chunks(count.div_ceil(pool.threads() * PIECES))
        .collect();
    let best = best(|| {
        pool.run(pieces.len(), &|piece, _| {
            black_box(kernels.read(black_box(pieces[piece])));
        });
    });
    BYTES as f64 / best.as_secs_f64()
}

fn multiply_adds(pool: &Pool) -> f64 {
    let kernels = kernels::selected();
    // Rounds of about half a millisecond.
    let mut rounds = 1 << 10;
    let done = loop {
        let start = Instant::now();
        let done = kernels.multiply_adds(rounds);
        if start.elapsed() > Duration::from_micros(500) {
            break done;
        }
        rounds *= 2;
    };
    let pieces = pool.threads() * PIECES;
    let best = best(|| {
        pool.run(pieces, &|_, _| {
            black_box(kernels.multiply_adds(rounds));
        });
    });
    done as f64 * pieces as f64 / best.as_secs_f64()
}

/// The shortest of [`TIMES`] times.
fn best(mut work: impl FnMut()) -> Duration {
    let times = (0..TIMES).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed()
    });
    times.min().unwrap_or_default().max(Duration::from_nanos(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_reads_all_and_counts_its_products() {
        let memory: Vec<Words> = (0..5)
            .map(|at| std::array::from_fn(|i| ((at * 64 + i) * 7 % 61) as f32))
            .collect();
        // Whole numbers: the same in every order.
        let expected: f32 = memory.iter().flatten().sum();
        for kernels in kernels::every() {
            assert_eq!(kernels.read(&memory), expected, "{}", kernels.name());
            let one = kernels.multiply_adds(1);
            assert!(
                one > 0 && kernels.multiply_adds(7) == 7 * one,
                "{}",
                kernels.name()
            );
        }
        assert!(Limits::measure(Some(0)).is_err());
    }
}
