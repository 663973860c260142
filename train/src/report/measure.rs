//! One row of the table, measured on a file by the runtime that an app links.

use std::path::Path;

use anyhow::Result;
use dram_core::latency::{self, LatencyOptions};
use dram_core::{Adapter, Model, kernels};

use super::Row;
use crate::data::Batch;
use crate::eval::{Case, Reference, Runtime, evaluate_with, exact_match};
use crate::stop::{self, Stopped, Watch};

/// A request that fits `context` positions: a model with a short context is asked for less.
fn within(speed: LatencyOptions, context: usize) -> LatencyOptions {
    let generate = speed.generate.min(context / 2);
    let prompt = speed.prompt.min(context - generate);
    LatencyOptions {
        generate,
        prompt,
        depth: speed.depth.min(context - generate - prompt),
        ..speed
    }
}

/// What every row of a table is measured with.
pub struct Measure<'a> {
    /// For KL and top-1.
    pub teacher: Option<&'a Reference<'a>>,
    /// For NLL, KL and top-1; empty: none of them.
    pub batches: &'a [Batch],
    /// Requests with one right answer, set by set.
    pub cases: &'a [&'a [Case]],
    /// Whether an answer is the right one: (expected, got).
    pub same: &'a (dyn Fn(&str, &str) -> bool + Sync),
    /// Sessions in parallel, for the held-out sets.
    pub workers: usize,
    pub speed: LatencyOptions,
}

impl Measure<'_> {
    /// Speed as the demo and the reports measure it: a short request on one thread.
    #[must_use]
    pub fn short_request() -> LatencyOptions {
        LatencyOptions {
            prompt: 32,
            generate: 32,
            depth: 0,
            threads: Some(1),
            repetitions: 5,
        }
    }

    /// [`Measure::short_request`] for a model of `context` positions, which may be fewer than that takes.
    #[must_use]
    pub fn short_request_within(context: usize) -> LatencyOptions {
        within(Self::short_request(), context)
    }

    /// Measures the file at `path`.
    ///
    /// # Errors
    /// When the runtime refuses the file, or a sequence does not fit its context; [`Stopped`].
    pub fn row(&self, name: &str, path: &Path, watch: &mut Watch<'_>) -> Result<Row> {
        self.row_of(name, &Model::open(path)?, &[], watch)
    }

    /// Measures an open model with adapters, each with its scale.
    ///
    /// # Errors
    /// As [`Measure::row`].
    pub fn row_of(
        &self,
        name: &str,
        model: &Model,
        adapters: &[(Adapter, f32)],
        watch: &mut Watch<'_>,
    ) -> Result<Row> {
        let longest = self.batches.iter().map(|b| b.length);
        let asked = self
            .cases
            .iter()
            .copied()
            .flatten()
            .map(|c| c.prompt.len() + c.max_tokens);
        let context = longest
            .chain(asked)
            .max()
            .unwrap_or(1)
            .min(model.config().context_length);
        let mut runtime =
            Runtime::new(name.to_owned(), model.clone(), self.workers, Some(context))?;
        runtime.set_adapters(adapters)?;
        let mut row = Row {
            name: name.to_owned(),
            parameters: Some(model.info().parameters),
            ..Row::default()
        };
        for cases in self.cases {
            let share = exact_match(&runtime, cases, self.same, watch)?.share();
            row.exact.push((!cases.is_empty()).then_some(share));
        }
        if !self.batches.is_empty() {
            let figures = evaluate_with(&[&runtime], self.teacher, self.batches, watch)?[0];
            row.set_figures(&figures);
        }
        drop(runtime);
        let options = within(self.speed, model.config().context_length);
        let stop = watch.stop();
        let stopped = || stop::check(stop).is_err();
        let speed = latency::measure_with(model, adapters, &options, &stopped, &mut |_| {});
        let speed = match speed {
            Err(_) if stopped() => return Err(Stopped.into()),
            other => other?,
        };
        row.file_bytes = Some(model.info().file_bytes);
        row.prefill = (options.prompt > 0).then_some(speed.prefill);
        row.decode = (options.generate > 0).then_some(speed.decode);
        row.first_token_ms = Some(speed.first_token.as_secs_f64() * 1e3);
        row.mapped = Some(speed.memory.mapped);
        row.anonymous = Some(speed.memory.anonymous());
        Ok(row)
    }

    /// How the speed was measured, for [`super::Table::notes`].
    #[must_use]
    pub fn speed_note(&self) -> String {
        let LatencyOptions {
            prompt,
            generate,
            threads,
            repetitions,
            ..
        } = self.speed;
        let threads = threads.map_or_else(
            || "default threads".into(),
            |n| format!("{n} thread{}", if n == 1 { "" } else { "s" }),
        );
        format!(
            "speed: {prompt} tokens in, {generate} out, {threads}, {}, medians of {repetitions}",
            kernels::selected().name()
        )
    }
}
