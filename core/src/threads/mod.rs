//! A pool of threads for regions of a few microseconds, hundreds of which follow each other for every token.
//!
//! Each thread, the caller's among them, has a share of a region's chunks, which it claims one by one, and then takes from the others' shares.
//! Nobody waits for a thread that has claimed nothing: where another process takes a core, the others do that worker's share, and the caller waits
//! at most for the one chunk that it had begun. A worker that made the caller wait long, because the system took its core in the middle of a chunk,
//! stays out for some milliseconds, so that this does not happen for every chunk. Workers look out for the next region for some tens of
//! microseconds, in which they ask for the memory that they were told it will read, then sleep until they are woken.

mod cores;
mod prefetch;
mod shares;
mod sync;

pub use cores::default_threads;
pub(crate) use shares::share;

use crate::{Error, Result};
use prefetch::Prefetch;
use shares::Shares;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;
use sync::{
    Arc, AtomicBool, AtomicU32, AtomicUsize, Builder, Instant, JoinHandle, Mutex, MutexGuard,
    Thread, Turns,
};

/// How long a worker looks out for the next region before it sleeps. Longer than the serial work between two regions of a token, shorter
/// than what a person's battery notices between two tokens that wait for a screen.
const LOOK_OUT: Duration = Duration::from_micros(60);

/// How long the caller looks at the last claimed chunks before it sleeps, which leaves its core to the thread that it waits for.
const WAIT: Duration = Duration::from_micros(40);

/// How much longer than its own chunks took the caller waits before it calls a worker late: this much, and [`LATE_CHUNKS`] chunks.
const LATE: Duration = Duration::from_micros(300);
const LATE_CHUNKS: u32 = 4;

/// How long a late worker stays out, the first time and at most: twice as long each time it is late again soon after.
const OUT: Duration = Duration::from_millis(10);
const OUT_MOST: Duration = Duration::from_millis(160);

/// Threads that share the work of [`Pool::run`].
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// Changes how many of a [`Pool`]'s threads take part, also while it works: fewer when the phone is hot or other things matter more. It outlives
/// the pool, and then changes nothing.
#[derive(Clone, Debug)]
pub struct ThreadCount(Arc<Shared>);

impl ThreadCount {
    /// From the next region on `threads` threads take part, at least one (the caller's) and at most as many as the pool was made with.
    pub fn set(&self, threads: usize) {
        let most = self.0.states.len() + 1;
        self.0
            .taking_part
            .store(threads.clamp(1, most), Ordering::Relaxed);
    }

    /// How many take part.
    #[must_use]
    pub fn get(&self) -> usize {
        self.0.taking_part.load(Ordering::Relaxed)
    }
}

/// One region's work as the workers see it.
#[derive(Clone, Copy)]
struct Job {
    /// The caller's closure, `work(chunk, worker)`, with its lifetime taken off: it lives until every claimed chunk is done.
    work: *const (dyn Fn(usize, usize) + Sync),
}

struct Shared {
    /// Chunks that nobody has claimed. Once one is claimed, the job stays as it is until that chunk is done.
    unclaimed: Shares,
    /// Chunks that are not done.
    unfinished: AtomicUsize,
    job: Turns<Job>,
    /// What each thread will read in the next region.
    prefetch: Box<[Prefetch]>,
    /// Set when a chunk panicked: chunks that are still claimed are not executed.
    panicked: AtomicBool,
    payload: Mutex<Option<Box<dyn Any + Send>>>,
    /// Held by the thread that runs a region.
    running: Mutex<()>,
    /// Set by the caller when the last unfinished chunk takes much longer than it should.
    late: AtomicBool,
    /// Whether the caller sleeps, and who it is.
    caller_sleeps: AtomicBool,
    caller: Mutex<Option<Thread>>,
    /// One for each worker.
    states: Box<[AtomicU32]>,
    /// How many threads take part, the caller's included.
    taking_part: AtomicUsize,
    stop: AtomicBool,
}

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

// SAFETY: `job` is written only by the thread that holds `running`, and only while no chunk of the job before is unfinished. It is read only
// after claiming a chunk, which orders the read after that write and keeps the job from changing until the chunk is done. The closure it points to is Sync.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({} workers)", self.states.len())
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller's included, at least one; `None` takes [`default_threads`].
    ///
    /// # Errors
    /// [`Error::Thread`] when the system would not start one.
    pub fn new(threads: Option<usize>) -> Result<Pool> {
        let workers = threads.unwrap_or_else(default_threads).max(1) - 1;
        let shared = Arc::new(Shared {
            unclaimed: Shares::new(workers + 1),
            unfinished: AtomicUsize::new(0),
            job: Turns::new(Job { work: &|_, _| {} }),
            prefetch: (0..=workers).map(|_| Prefetch::default()).collect(),
            panicked: AtomicBool::new(false),
            payload: Mutex::new(None),
            running: Mutex::new(()),
            late: AtomicBool::new(false),
            caller_sleeps: AtomicBool::new(false),
            caller: Mutex::new(None),
            states: (0..workers).map(|_| AtomicU32::new(AWAKE)).collect(),
            taking_part: AtomicUsize::new(workers + 1),
            stop: AtomicBool::new(false),
        });
        let mut pool = Pool {
            shared,
            workers: Vec::with_capacity(workers),
        };
        for index in 0..workers {
            let shared = Arc::clone(&pool.shared);
            let thread = Builder::new().name(format!("dram-{}", index + 1));
            let worker = thread
                .spawn(move || {
                    cores::prefer_fast(workers + 1);
                    shared.serve(index);
                })
                .map_err(|source| Error::Thread {
                    index: index + 1,
                    source,
                })?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// How many threads work, the caller's included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.shared.taking_part.load(Ordering::Relaxed)
    }

    /// What changes that number, from any thread.
    #[must_use]
    pub fn thread_count(&self) -> ThreadCount {
        ThreadCount(Arc::clone(&self.shared))
    }

    /// Calls `work(chunk, worker)` once for each chunk below `chunks` and returns when all are done. Workers are numbered from 0 (the caller)
    /// to `threads − 1`; no two threads have one number at the same time. Neighbouring chunks are one thread's, as far as others do not help it.
    ///
    /// A region inside a region, or a second one at the same time, runs on its own caller alone.
    ///
    /// # Panics
    /// With the panic of a chunk, after the others have ended.
    pub fn run(&self, chunks: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        let running = if self.threads() == 1 || chunks < 2 {
            None
        } else {
            match self.shared.running.try_lock() {
                Ok(running) => Some(running),
                // A chunk panicked. All the others had ended when its panic went through here, so the pool is as good as new.
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            }
        };
        match running {
            Some(running) => self.run_shared(chunks, work, &running),
            None => (0..chunks).for_each(|chunk| work(chunk, 0)),
        }
    }

    /// Says what each thread will read in the region after the next one: `bytes(thread)` from the beginning, as far as there is time.
    pub(crate) fn prefetch<'a>(&self, bytes: impl Fn(usize) -> &'a [u8]) {
        for (thread, prefetch) in self.shared.prefetch.iter().enumerate() {
            prefetch.prefetch(bytes(thread));
        }
    }

    fn run_shared(
        &self,
        chunks: usize,
        work: &(dyn Fn(usize, usize) + Sync),
        _running: &MutexGuard<'_, ()>,
    ) {
        let shared = &*self.shared;
        let work: *const (dyn Fn(usize, usize) + Sync + '_) = work;
        // SAFETY: only the lifetime changes. No worker looks at the job without having claimed a chunk, and this function does not return
        // before every claimed chunk is done, so `work` outlives its last use.
        let work: *const (dyn Fn(usize, usize) + Sync + 'static) =
            unsafe { std::mem::transmute(work) };
        // SAFETY: `running` is held and no chunk is unclaimed or unfinished, so nobody reads the job.
        unsafe { shared.job.set(Job { work }) };
        shared.late.store(false, Ordering::Relaxed);
        shared.unfinished.store(chunks, Ordering::Relaxed);
        let threads = self.threads().min(chunks);
        shared.unclaimed.publish(chunks, threads);
        let workers = shared.states.iter().zip(&self.workers);
        for (state, worker) in workers.take(threads - 1) {
            if state.load(Ordering::SeqCst) == ASLEEP
                && state.swap(AWAKE, Ordering::SeqCst) == ASLEEP
            {
                worker.thread().unpark();
            }
        }
        let begun = Instant::now();
        let mut own = 0;
        while shared.execute_one(0).is_some() {
            own += 1;
        }
        let finished = || shared.unfinished.load(Ordering::Acquire) == 0;
        if !finished() && !shared.prefetch[0].ask(finished) {
            shared.wait(LATE + begun.elapsed() / own.max(1) * LATE_CHUNKS);
        }
        if shared.panicked.swap(false, Ordering::Relaxed) {
            let payload = lock(&shared.payload).take();
            resume_unwind(payload.unwrap_or_else(|| Box::new("a chunk panicked")));
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches what its chunks throw, so it ends without a panic of its own.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Claims one chunk and executes it; `None` when all are claimed. True when it was the region's last and the caller waited long for it.
    #[inline]
    fn execute_one(&self, worker: usize) -> Option<bool> {
        let chunk = self.unclaimed.claim(worker)?;
        // SAFETY: the claim succeeded, so this is the current job, and it stays until `unfinished` is lowered below.
        let work = unsafe { &*self.job.get().work };
        if !self.panicked.load(Ordering::Relaxed)
            && let Err(payload) = catch_unwind(AssertUnwindSafe(|| work(chunk, worker)))
        {
            lock(&self.payload).get_or_insert(payload);
            self.panicked.store(true, Ordering::Relaxed);
        }
        // Release: what the chunk wrote is seen by the caller. SeqCst against a caller that goes to sleep.
        let last = self.unfinished.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && worker != 0 {
            let late = self.late.swap(false, Ordering::Relaxed);
            if self.caller_sleeps.swap(false, Ordering::SeqCst)
                && let Some(caller) = &*lock(&self.caller)
            {
                caller.unpark();
            }
            return Some(late);
        }
        Some(false)
    }

    /// The caller's wait for chunks that workers have begun. After `patience` it calls the last of them late.
    fn wait(&self, patience: Duration) {
        if spin(WAIT, || self.unfinished.load(Ordering::Acquire) == 0) {
            return;
        }
        *lock(&self.caller) = Some(sync::current());
        let begun = Instant::now();
        loop {
            self.caller_sleeps.store(true, Ordering::SeqCst);
            if self.unfinished.load(Ordering::SeqCst) == 0 {
                self.caller_sleeps.store(false, Ordering::Relaxed);
                return;
            }
            match patience.checked_sub(begun.elapsed()) {
                Some(left) => sync::park_timeout(left),
                None => {
                    self.late.store(true, Ordering::Relaxed);
                    sync::park();
                }
            }
        }
    }

    /// A worker's life.
    fn serve(&self, index: usize) {
        let mut out = OUT;
        let mut back = Instant::now();
        while !self.stop.load(Ordering::SeqCst) {
            let takes_part = || index + 1 < self.taking_part.load(Ordering::Relaxed);
            while takes_part()
                && let Some(late) = self.execute_one(index + 1)
            {
                if late {
                    out = if back.elapsed() < out * 4 {
                        (out * 2).min(OUT_MOST)
                    } else {
                        OUT
                    };
                    self.stay_out(index, out);
                    back = Instant::now();
                }
            }
            let due = || self.stop.load(Ordering::SeqCst) || takes_part() && self.unclaimed.any();
            if self.prefetch[index + 1].ask(due) || spin(LOOK_OUT, due) {
                continue;
            }
            self.states[index].store(ASLEEP, Ordering::SeqCst);
            if !due() {
                sync::park();
            }
            self.states[index].store(AWAKE, Ordering::SeqCst);
        }
    }

    /// Sleeps for `time` whatever happens, except the pool's end. The worker counts as awake, so nobody tries to wake it.
    fn stay_out(&self, index: usize, time: Duration) {
        debug_assert_eq!(self.states[index].load(Ordering::Relaxed), AWAKE);
        let begun = Instant::now();
        while let Some(left) = time
            .checked_sub(begun.elapsed())
            .filter(|_| !self.stop.load(Ordering::SeqCst))
        {
            sync::park_timeout(left);
        }
    }
}

/// Looks at `done` until it holds or the time is over, and says whether it held.
fn spin(most: Duration, done: impl Fn() -> bool) -> bool {
    /// Looks between two questions to the clock.
    const LOOKS: usize = if cfg!(loom) { 1 } else { 32 };
    let mut start = None;
    loop {
        for _ in 0..LOOKS {
            if done() {
                return true;
            }
            sync::spin_loop();
        }
        if cfg!(loom) {
            return done();
        }
        if start.get_or_insert_with(Instant::now).elapsed() > most {
            return false;
        }
    }
}

/// Locks a mutex whose contents stay right whatever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    #[test]
    fn every_chunk_runs_once_by_any_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(Some(threads)).unwrap();
            assert_eq!(pool.threads(), threads);
            for round in 0..300 {
                let chunks = round % 40;
                let counts: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(chunks, &|chunk, worker| {
                    assert!(worker < threads);
                    counts[chunk].fetch_add(1, Ordering::Relaxed);
                });
                assert!(
                    counts
                        .iter()
                        .all(|count| count.load(Ordering::Relaxed) == 1)
                );
                if round % 100 == 99 {
                    std::thread::sleep(Duration::from_millis(1)); // the workers fall asleep
                }
            }
        }
    }

    #[test]
    fn the_count_changes_while_regions_run() {
        let pool = Pool::new(Some(4)).unwrap();
        let count = pool.thread_count();
        let done = AtomicBool::new(false);
        let seen: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for threads in (0..).take_while(|_| !done.load(Ordering::Relaxed)) {
                    count.set(threads % 6); // 0 and 5 are as 1 and 4
                    std::thread::yield_now();
                }
            });
            for _ in 0..2000 {
                let sum = AtomicUsize::new(0);
                pool.run(9, &|chunk, worker| {
                    sum.fetch_add(1 << chunk, Ordering::Relaxed);
                    seen[worker].fetch_add(1, Ordering::Relaxed);
                });
                assert_eq!(sum.into_inner(), (1 << 9) - 1);
            }
            done.store(true, Ordering::Relaxed);
        });
        count.set(1);
        assert_eq!(pool.threads(), 1);
        std::thread::sleep(Duration::from_millis(1)); // nobody is in the middle of a look
        let before: Vec<usize> = seen.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        pool.run(9, &|_, worker| {
            seen[worker].fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(seen[0].load(Ordering::Relaxed), before[0] + 9);
        count.set(9);
        assert_eq!(pool.threads(), 4);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_still_works() {
        let pool = Pool::new(Some(3)).unwrap();
        for round in 0..20 {
            let thrown = catch_unwind(AssertUnwindSafe(|| {
                pool.run(16, &|chunk, _| {
                    assert!(chunk != round % 16, "chunk {chunk}")
                })
            }));
            let payload = thrown.unwrap_err();
            assert_eq!(
                payload.downcast_ref::<String>().unwrap(),
                &format!("chunk {}", round % 16)
            );
            let sum = AtomicUsize::new(0);
            pool.run(16, &|chunk, _| {
                sum.fetch_add(chunk, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 120);
        }
        // Two chunks that wait for each other need two threads.
        let begun = AtomicUsize::new(0);
        pool.run(2, &|_, _| {
            begun.fetch_add(1, Ordering::SeqCst);
            let start = Instant::now();
            while begun.load(Ordering::SeqCst) < 2 {
                assert!(start.elapsed().as_secs() < 20, "the pool is serial");
                std::thread::yield_now();
            }
        });
    }

    #[test]
    fn regions_inside_regions_and_beside_each_other_complete() {
        let pool = Pool::new(Some(2)).unwrap();
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        pool.run(4, &|_, _| {
                            pool.run(3, &|chunk, _| {
                                sum.fetch_add(chunk, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 3 * 50 * 4 * 3);
    }
}

/// `cargo xtask loom`: every order of steps with at most so many preemptions.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// LOOM_MAX_PREEMPTIONS asks for more than these `preemptions`.
    fn check(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound.get_or_insert(preemptions);
        model.check(body);
    }

    /// Two regions after each other: every chunk once, with its own region's work, whether the worker is awake, falls asleep or sleeps.
    #[test]
    fn regions_follow_each_other() {
        check(1, || {
            let pool = Pool::new(Some(2)).unwrap();
            for region in 1..3 {
                let done = [const { AtomicUsize::new(0) }; 2];
                pool.run(2, &|chunk, _| {
                    done[chunk].fetch_add(region, Ordering::Relaxed);
                });
                assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == region));
            }
        });
    }

    /// One region: the worker may begin it, help, or come too late, and ends with the pool.
    #[test]
    fn two_threads_share_a_region() {
        check(2, || {
            let pool = Pool::new(Some(2)).unwrap();
            let done = [const { AtomicUsize::new(0) }; 2];
            pool.run(2, &|chunk, _| {
                done[chunk].fetch_add(1, Ordering::Relaxed);
            });
            assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1));
        });
    }
}
