//! The task's own metric: is the whole greedy answer right?

use std::ops::ControlFlow;

use anyhow::{Context, Result};
use dram_core::{Finish, Prompt, Request};

use super::Runtime;
use crate::data::Batch;
use crate::stop::{self, Watch};

/// One held-out request.
#[derive(Clone, Debug)]
pub struct Case {
    /// The prompt as tokens, ready to be continued.
    pub prompt: Vec<u32>,
    /// What a right answer says.
    pub answer: String,
    /// Most tokens an answer may take; one that has not ended by then is wrong.
    pub max_tokens: usize,
}

/// One held-out set.
pub struct HeldOut {
    pub name: String,
    pub batches: Vec<Batch>,
    /// Requests with one right answer, for tasks that have it.
    pub cases: Vec<Case>,
}

/// The share of right answers, and the wrong ones to look at.
#[derive(Clone, Debug, Default)]
pub struct ExactMatch {
    pub right: usize,
    pub total: usize,
    /// (index of the case, what the model said).
    pub wrong: Vec<(usize, String)>,
}

impl ExactMatch {
    /// 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.right as f64 / self.total.max(1) as f64
    }
}

/// Answers every case greedily; `same(expected, got)` decides. The watch hears of every case.
///
/// # Errors
/// When the runtime refuses a prompt; [`crate::stop::Stopped`].
pub fn exact_match(
    runtime: &Runtime,
    cases: &[Case],
    same: &(dyn Fn(&str, &str) -> bool + Sync),
    watch: &mut Watch<'_>,
) -> Result<ExactMatch> {
    let stop = watch.stop();
    let answers = runtime.each(cases.len(), watch, |session, index| {
        let case = &cases[index];
        let request = Request {
            max_tokens: case.max_tokens,
            ..Request::new(Prompt::Tokens(case.prompt.clone()))
        };
        let completion = session
            .generate(&request, &mut |_| ControlFlow::Continue(()))
            .with_context(|| format!("held-out request {index}"))?;
        stop::check(stop)?;
        let ended = matches!(completion.finish, Finish::EndOfText | Finish::StopString(_));
        Ok((completion.text, ended))
    })?;
    let mut result = ExactMatch {
        total: cases.len(),
        ..ExactMatch::default()
    };
    for (index, (case, (answer, ended))) in cases.iter().zip(answers).enumerate() {
        if ended && same(&case.answer, &answer) {
            result.right += 1;
        } else {
            result.wrong.push((index, answer));
        }
    }
    Ok(result)
}
