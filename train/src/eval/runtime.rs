//! Logits from the runtime: one session per worker, each on a thread of its own.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow, ensure};
use dram_core::{Adapter, Model, Session, SessionOptions};

use super::Scorer;
use crate::data::Batch;

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

    /// Calls `work(session, item)` for items `0..count`, on one thread per session; results in order.
    ///
    /// # Errors
    /// The first error; the other workers stop at their next item.
    pub(crate) fn each<T: Send>(
        &self,
        count: usize,
        work: impl Fn(&mut Session, usize) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let next = AtomicUsize::new(0);
        let run = |session: &Mutex<Session>| -> Result<Vec<(usize, T)>> {
            let mut session = session.lock().unwrap_or_else(|e| e.into_inner());
            let mut done = Vec::new();
            loop {
                let item = next.fetch_add(1, Ordering::Relaxed);
                if item >= count {
                    return Ok(done);
                }
                match work(&mut session, item) {
                    Ok(value) => done.push((item, value)),
                    Err(error) => {
                        next.store(count, Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
        };
        let parts: Vec<Result<Vec<(usize, T)>>> = std::thread::scope(|scope| {
            let run = &run;
            let handles: Vec<_> = self.sessions[1..]
                .iter()
                .map(|s| scope.spawn(move || run(s)))
                .collect();
            let mut parts = vec![run(&self.sessions[0])];
            parts.extend(handles.into_iter().map(|h| {
                h.join()
                    .unwrap_or_else(|_| Err(anyhow!("a worker panicked")))
            }));
            parts
        });
        let mut all = Vec::with_capacity(count);
        for part in parts {
            all.extend(part?);
        }
        all.sort_by_key(|(item, _)| *item);
        Ok(all.into_iter().map(|(_, value)| value).collect())
    }
}

impl Scorer for Runtime {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn vocabulary(&self) -> usize {
        self.model.config().vocabulary
    }

    fn logits(&self, batch: &Batch) -> Result<Vec<f32>> {
        let vocabulary = self.vocabulary();
        // Rows as ranges of `targets`.
        let rows: Vec<&[(usize, u32)]> = (0..batch.batch)
            .map(|row| {
                let at = |position: usize| batch.targets.partition_point(|t| t.0 < position);
                &batch.targets[at(row * batch.length)..at((row + 1) * batch.length)]
            })
            .collect();
        let parts = self.each(batch.batch, |session, row| {
            let Some(last) = rows[row].last() else {
                return Ok(Vec::new());
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
            let mut out = Vec::with_capacity(rows[row].len() * vocabulary); // [targets of the row, vocabulary]
            let mut wanted = rows[row].iter().map(|t| t.0 - start).peekable();
            session
                .evaluate(ids, &mut |position, logits| {
                    if wanted.next_if_eq(&position).is_some() {
                        out.extend_from_slice(logits);
                    }
                })
                .with_context(|| self.name.clone())?;
            Ok(out)
        })?;
        Ok(parts.concat())
    }
}
