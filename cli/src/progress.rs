//! How `pretrain`, `distill`, `demo` and `eval` show how far they are: a bar on a terminal, elsewhere a line now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use dram_train::trainer::Step;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// When the next line is due: every ten seconds in the beginning, then after a tenth more of the time, at most every five minutes.
struct Lines {
    started: Instant,
    next: Duration,
}

impl Lines {
    const FIRST: Duration = Duration::from_secs(10);
    const LAST: Duration = Duration::from_secs(300);

    fn new() -> Self {
        Lines {
            started: Instant::now(),
            next: Self::FIRST,
        }
    }

    fn due(&mut self, now: Duration) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + (now / 10).clamp(Self::FIRST, Self::LAST);
        }
        due
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        if self.due(self.started.elapsed()) {
            eprintln!("{}", line());
        }
    }
}

/// A training and what belongs to it, and the Ctrl-C that stops it.
pub(crate) struct Training {
    bar: ProgressBar,
    lines: Lines,
    stop: Arc<AtomicBool>,
    /// Whether there is something that a stop has to save.
    begun: Arc<AtomicBool>,
    steps: ProgressStyle,
    work: ProgressStyle,
    title: String,
    /// The stage's first step and when it began.
    first: Option<(u64, Instant)>,
}

impl Training {
    /// Listens for Ctrl-C. Before training has begun it ends the process; then the first raises the flag, and the second ends the process.
    pub(crate) fn new(steps: u64) -> Result<Self> {
        let (stop, begun) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (raise, something) = (stop.clone(), begun.clone());
        ctrlc::set_handler(move || {
            if raise.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
            if !something.load(Ordering::SeqCst) {
                eprintln!("\nstopped before training began");
                std::process::exit(130);
            }
            eprintln!("\nstopping at the next safe point (Ctrl-C again: at once)");
        })
        .context("cannot listen for Ctrl-C")?;
        let style = ProgressStyle::with_template("{prefix}{wide_bar} {pos}/{len} {msg}")?;
        Ok(Training {
            bar: ProgressBar::new(steps).with_style(style.clone()),
            lines: Lines::new(),
            stop,
            begun,
            steps: style,
            work: ProgressStyle::with_template("{prefix}{msg} {wide_bar} {percent} %")?,
            title: String::new(),
            first: None,
        })
    }

    /// The flag that Ctrl-C raises.
    pub(crate) fn stop(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// A line above the bar; where no terminal draws the bar, a plain line on standard error.
    pub(crate) fn say(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    pub(crate) fn stage(&mut self, title: &str) {
        self.title = format!("{title} ");
        self.first = None;
        self.bar.reset();
        self.bar.set_message("");
        self.bar.set_prefix(self.title.clone());
        self.say(title);
    }

    pub(crate) fn begun(&mut self, step: u64) {
        self.begun.store(true, Ordering::SeqCst);
        self.first = Some((step, Instant::now()));
    }

    /// Time to the last step at the stage's mean rate.
    pub(crate) fn left(&mut self, step: u64, of: u64) -> Duration {
        let (first, since) = *self
            .first
            .get_or_insert((step.saturating_sub(1), Instant::now()));
        let done = step.saturating_sub(first).max(1);
        since
            .elapsed()
            .mul_f64(of.saturating_sub(step) as f64 / done as f64)
    }

    pub(crate) fn step(&mut self, step: &Step, of: u64, rate: f64, left: Duration) {
        self.begun.store(true, Ordering::SeqCst);
        let left = HumanDuration(Duration::from_secs(left.as_secs()));
        let message = format!("loss {:.4}  {rate:.0} tokens/s  {left} left", step.loss);
        if self.bar.is_hidden() {
            let title = &self.title;
            self.lines
                .say(|| format!("{title}step {} of {of}: {message}", step.step));
            return;
        }
        self.bar.set_style(self.steps.clone());
        self.bar.set_length(of);
        self.bar.set_position(step.step);
        self.bar.set_message(message);
    }

    pub(crate) fn working(&mut self, what: &str, done: usize, of: usize) {
        if self.bar.is_hidden() {
            self.lines.say(|| work_line(what, done, of));
            return;
        }
        self.bar.set_style(self.work.clone());
        show_work(&self.bar, what, done, of);
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn work_line(what: &str, done: usize, of: usize) -> String {
    format!("{what}: {} %", 100 * done / of.max(1))
}

/// A bar for what is no training.
pub(crate) fn working_bar() -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent} %  {eta} left")?;
    Ok(ProgressBar::new(0).with_style(style))
}

pub(crate) fn show_work(bar: &ProgressBar, what: &str, done: usize, of: usize) {
    bar.set_length(of as u64);
    bar.set_position(done as u64);
    bar.set_message(what.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_rarer_and_do_not_cease() {
        let mut lines = Lines::new();
        let said: Vec<u64> = (0..100_000)
            .filter(|&s| lines.due(Duration::from_secs(s)))
            .collect();
        assert_eq!(said[..3], [10, 20, 30]);
        let apart: Vec<u64> = said.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(
            apart.is_sorted() && *apart.last().unwrap() == 300,
            "{apart:?}"
        );
    }
}
