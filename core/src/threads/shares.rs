//! Which thread does which chunks: each has a run of neighbouring ones, and takes from the end of another's when its own are done. So a thread
//! walks through memory in order, and one that lost its core is left the least.

use super::sync::AtomicU64;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Chunks that nobody has claimed, `start .. end` in one word, on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Share(AtomicU64);

fn pack(chunks: Range<usize>) -> u64 {
    (chunks.start as u64) << 32 | chunks.end as u64
}

fn unpack(share: u64) -> Range<usize> {
    (share >> 32) as usize..(share & u64::from(u32::MAX)) as usize
}

impl Share {
    fn left(&self) -> usize {
        unpack(self.0.load(Ordering::Relaxed)).len()
    }

    /// Claims a chunk that `choose` takes from those that are left. Acquire: the claimer sees what was published before.
    fn claim(&self, choose: fn(&mut Range<usize>) -> Option<usize>) -> Option<usize> {
        let mut chosen = None;
        let update = |share| {
            let mut left = unpack(share);
            chosen = choose(&mut left);
            chosen.map(|_| pack(left))
        };
        let claimed = self
            .0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, update);
        claimed.ok().and(chosen)
    }
}

/// One share for each thread.
pub(super) struct Shares(Box<[Share]>);

/// The chunks that are `thread`'s of `threads`, of which the first `chunks` have one at least.
pub(crate) fn share(chunks: usize, threads: usize, thread: usize) -> Range<usize> {
    let sharing = threads.min(chunks).max(1);
    let start = |thread: usize| chunks * thread.min(sharing) / sharing;
    start(thread)..start(thread + 1)
}

impl Shares {
    pub(super) fn new(threads: usize) -> Shares {
        Shares((0..threads).map(|_| Share::default()).collect())
    }

    /// Hands `chunks` out to the first `threads` threads. Whoever claims one sees what was written before.
    pub(super) fn publish(&self, chunks: usize, threads: usize) {
        assert!(u32::try_from(chunks).is_ok(), "{chunks} chunks");
        for (thread, own) in self.0.iter().enumerate().take(threads) {
            // SeqCst: against a worker that goes to sleep.
            own.0
                .store(pack(share(chunks, threads, thread)), Ordering::SeqCst);
        }
    }

    /// Claims the next chunk for `thread`: of its own, or the last of whoever has most left.
    #[inline]
    pub(super) fn claim(&self, thread: usize) -> Option<usize> {
        if let Some(chunk) = self.0[thread].claim(Iterator::next) {
            return Some(chunk);
        }
        loop {
            let most = self.0.iter().max_by_key(|share| share.left())?;
            if most.left() == 0 {
                return None;
            }
            if let Some(chunk) = most.claim(DoubleEndedIterator::next_back) {
                return Some(chunk);
            }
        }
    }

    /// Whether there is something to claim.
    pub(super) fn any(&self) -> bool {
        self.0
            .iter()
            .any(|share| !unpack(share.0.load(Ordering::SeqCst)).is_empty())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_all_chunks_in_order() {
        for chunks in 0..20 {
            for threads in 1..9 {
                let all: Vec<usize> = (0..threads)
                    .flat_map(|thread| share(chunks, threads, thread))
                    .collect();
                assert_eq!(all, (0..chunks).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_thread_takes_its_own_in_order_and_then_the_others_last() {
        let shares = Shares::new(3);
        shares.publish(7, 3);
        let claimed: Vec<_> = (0..8).map(|_| shares.claim(1)).collect();
        assert_eq!(
            claimed,
            [2, 3, 6, 5, 1, 4, 0]
                .map(Some)
                .into_iter()
                .chain([None])
                .collect::<Vec<_>>()
        );
        assert!(!shares.any());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::super::sync::{Arc, Turns};
    use super::*;

    /// A worker that claims while the caller publishes: each chunk is one thread's, and who has one sees what was written before.
    #[test]
    fn a_chunk_is_claimed_once_and_shows_what_was_published() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound.get_or_insert(1);
        model.check(|| {
            let shared = Arc::new((Shares::new(2), Turns::new(0)));
            let claim_all = |shared: &(Shares, Turns<u32>), thread| {
                let mut claimed = Vec::new();
                while let Some(chunk) = shared.0.claim(thread) {
                    // SAFETY: it was written before the chunks were published; loom checks that.
                    assert_eq!(unsafe { shared.1.get() }, 7);
                    claimed.push(chunk);
                }
                claimed
            };
            let worker = loom::thread::spawn({
                let shared = Arc::clone(&shared);
                move || claim_all(&shared, 1)
            });
            // SAFETY: nobody reads it who has no chunk, and there are none yet.
            unsafe { shared.1.set(7) };
            shared.0.publish(3, 2);
            let mut claimed = claim_all(&shared, 0);
            claimed.extend(worker.join().unwrap());
            claimed.sort_unstable();
            assert_eq!(claimed, [0, 1, 2]);
        });
    }
}
