//! Logits from the runtime: one session per worker, each on a thread of its own.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use dram_core::{Adapter, CancelToken, Model, Session, SessionOptions};

use super::{Scorer, Take};
use crate::data::Batch;
use crate::stop::{self, Stopped, Watch};

/// A GGUF file as the runtime evaluates it. For small models whole sequences in parallel beat threads inside one.
pub struct Runtime {
    name: String,
    model: Model,
    sessions: Vec<Mutex<Session>>,
    context: usize,
}

impl Runtime {
    /// Opens `path` with `workers` sessions of `context` positions (`None`: what the model allows, at most 4096).
    ///
    /// # Errors
    /// What is wrong with the file or the numbers.
    pub fn open(path: &Path, workers: usize, context: Option<usize>) -> Result<Self> {
        let model = Model::open(path)?;
        Self::new(
            path.file_name()
                .map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned()),
            model,
            workers,
            context,
        )
    }

    /// The same for an open model.
    ///
    /// # Errors
    /// When the numbers mean nothing or memory lacks.
    pub fn new(name: String, model: Model, workers: usize, context: Option<usize>) -> Result<Self> {
        ensure!(workers > 0, "expected at least one worker");
        Self::build(name, model, workers, 1, context)
    }

    /// One session of `threads` threads: for models whose cache is large or whose layers keep several threads busy.
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn wide(
        name: String,
        model: Model,
        threads: usize,
        context: Option<usize>,
    ) -> Result<Self> {
        Self::build(name, model, 1, threads, context)
    }

    fn build(
        name: String,
        model: Model,
        workers: usize,
        threads: usize,
        context: Option<usize>,
    ) -> Result<Self> {
        let context = context.unwrap_or(4096).min(model.config().context_length);
        let options = SessionOptions {
            context: Some(context),
            threads: Some(threads),
            ..SessionOptions::default()
        };
        let sessions = (0..workers)
            .map(|_| Ok(Mutex::new(model.session(options)?)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            name,
            model,
            sessions,
            context,
        })
    }

    /// Evaluates with these adapters, each with its scale, from now on.
    ///
    /// # Errors
    /// As [`Session::set_adapters`].
    pub fn set_adapters(&mut self, adapters: &[(Adapter, f32)]) -> Result<()> {
        for session in &mut self.sessions {
            let session = session.get_mut().unwrap_or_else(|e| e.into_inner());
            session.set_adapters(adapters)?;
        }
        Ok(())
    }

    /// The open model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Positions a session has room for.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }

    /// Calls `work(session, item)` for items `0..count`, on one thread per session; results in order. When the watch says stop, what the sessions do
    /// is cancelled.
    ///
    /// # Errors
    /// The first error; the other workers stop at their next item. [`Stopped`].
    pub(crate) fn each<T: Send>(
        &self,
        count: usize,
        watch: &mut Watch<'_>,
        work: impl Fn(&mut Session, usize) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let stop = watch.stop();
        let next = AtomicUsize::new(0);
        let tokens: Vec<Mutex<Option<CancelToken>>> =
            self.sessions.iter().map(|_| Mutex::new(None)).collect();
        let run = |worker: usize, begin: &mut dyn FnMut(usize)| -> Result<Vec<(usize, T)>> {
            let mut session = lock(&self.sessions[worker]);
            let mut done = Vec::new();
            loop {
                let item = next.fetch_add(1, Ordering::Relaxed);
                if item >= count {
                    return Ok(done);
                }
                begin(item);
                *lock(&tokens[worker]) = Some(session.cancel_token());
                // After the token is there: whoever cancels comes later, or is seen here.
                let result = stop::check(stop)
                    .map_err(anyhow::Error::from)
                    .and_then(|()| work(&mut session, item));
                match result {
                    Ok(value) => done.push((item, value)),
                    Err(error) => {
                        next.store(count, Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
        };
        let finished = AtomicBool::new(false);
        let mut parts: Vec<Result<Vec<(usize, T)>>> = Vec::new();
        std::thread::scope(|scope| {
            let (run, finished, tokens) = (&run, &finished, &tokens);
            // Set in a panic, too: the scope waits for the thread that looks at it.
            let end = Raised(finished);
            let watcher = scope.spawn(move || {
                while !finished.load(Ordering::Acquire) {
                    if stop.load(Ordering::Relaxed) {
                        for token in tokens.iter().filter_map(|t| lock(t).take()) {
                            token.cancel();
                        }
                    }
                    std::thread::park_timeout(Duration::from_millis(20));
                }
            });
            let handles: Vec<_> = (1..self.sessions.len())
                .map(|worker| scope.spawn(move || run(worker, &mut |_| {})))
                .collect();
            // What it says comes back from the check before the work.
            parts.push(run(0, &mut |item| {
                let _ = watch.at(item, count);
            }));
            parts.extend(handles.into_iter().map(|h| {
                h.join()
                    .unwrap_or_else(|_| Err(anyhow!("a worker panicked")))
            }));
            drop(end);
            watcher.thread().unpark();
        });
        let mut all = Vec::with_capacity(count);
        for part in parts {
            match part {
                Ok(part) => all.extend(part),
                // A cancelled request is how a session hears of it.
                Err(_) if stop.load(Ordering::Relaxed) => return Err(Stopped.into()),
                Err(error) => return Err(error),
            }
        }
        all.sort_by_key(|(item, _)| *item);
        Ok(all.into_iter().map(|(_, value)| value).collect())
    }
}

/// Raises a flag when it goes.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Values of logits handed over at a time.
const RUN: usize = 1 << 20;

impl Scorer for Runtime {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn vocabulary(&self) -> usize {
        self.model.config().vocabulary
    }

    fn visit(&self, batch: &Batch, stop: &AtomicBool, take: Take<'_>) -> Result<()> {
        // Rows as ranges of `targets`.
        let rows: Vec<(usize, &[(usize, u32)])> = (0..batch.batch)
            .map(|row| {
                let at = |position: usize| batch.targets.partition_point(|t| t.0 < position);
                let first = at(row * batch.length);
                (first, &batch.targets[first..at((row + 1) * batch.length)])
            })
            .collect();
        let mut ignore = |_, _| {};
        let mut watch = Watch::new(stop, &mut ignore);
        self.each(batch.batch, &mut watch, |session, row| {
            let (mut first, targets) = rows[row];
            let Some(last) = targets.last() else {
                return Ok(());
            };
            let start = row * batch.length;
            let ids = &batch.ids[start..=last.0];
            ensure!(
                ids.len() <= session.context(),
                "{}: a sequence of {} tokens does not fit the context of {}",
                self.name,
                ids.len(),
                session.context()
            );
            let (mut run, mut rows, mut failed) = (Vec::new(), 0, None); // run: [rows, vocabulary]
            let mut flush = |run: &mut Vec<f32>, rows: &mut usize| {
                if failed.is_none() {
                    failed = take(first, run).err();
                }
                first += *rows;
                *rows = 0;
                run.clear();
            };
            let mut wanted = targets.iter().map(|t| t.0 - start).peekable();
            session
                .evaluate(ids, &mut |position, logits| {
                    if wanted.next_if_eq(&position).is_some() {
                        run.extend_from_slice(logits);
                        rows += 1;
                        if run.len() >= RUN {
                            flush(&mut run, &mut rows);
                        }
                    }
                })
                .with_context(|| self.name.clone())?;
            if rows > 0 {
                flush(&mut run, &mut rows);
            }
            failed.map_or(Ok(()), Err)
        })?;
        Ok(())
    }
}
