//! What a template may use: steps, memory, depth. A template is a program from a file.
//!
//! Every value that a template makes is counted while it lives, and a list or map knows its depth and how large it would be if it were written out. So
//! one number bounds what any operation on a value costs, however often a value holds another.

use super::jinja::Fault;
use std::cell::Cell;
use std::rc::Rc;

/// Bytes of a template's source at most. The longest in use have some 20,000.
pub(super) const SOURCE: usize = 128 << 10;
/// How deep blocks, brackets and operators may be nested in the source.
pub(super) const NESTING: u16 = 200;
/// Branches of one `if` at most.
pub(super) const BRANCHES: usize = 1000;
/// How deep lists and maps may be nested in each other. JSON that this crate reads has at most 128 levels.
pub(super) const DEPTH: u16 = 160;
/// How deep evaluation may recurse: blocks, expressions, macros.
const RECURSION: u32 = 1000;
/// Stack of the rendering thread in bytes: [`RECURSION`] and [`NESTING`] take a tenth of it with optimisation, half without. Only what is used of
/// it is ever backed by memory.
pub(super) const STACK: usize = 32 << 20;
/// Steps of evaluation, before what the conversation's length adds. A step takes some tens of nanoseconds.
const STEPS: u64 = 4_000_000;
/// Bytes of values alive at a time, before what the conversation's length adds.
const BYTES: usize = 8 << 20;
/// Bytes of a value that are copied or searched in a step.
const BYTES_PER_STEP: usize = 32;
/// Bytes of a text that are put together piece by piece in a step.
const WRITTEN_PER_STEP: usize = 16;
/// Steps between two looks at the caller's wish to stop.
const PATIENCE: u64 = 4096;

/// What is left to a rendering.
pub(super) struct Budget<'a> {
    steps: Cell<u64>,
    look: Cell<u64>,
    depth: Cell<u32>,
    /// Bytes alive.
    live: Rc<Cell<usize>>,
    /// Bytes alive at most.
    pub(super) most: usize,
    stop: &'a (dyn Fn() -> bool + Sync),
}

/// Bytes that a value occupies; given back when it is dropped.
pub(super) struct Held {
    live: Rc<Cell<usize>>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.live.set(self.live.get().saturating_sub(self.bytes));
    }
}

impl<'a> Budget<'a> {
    /// For a conversation of `input` bytes. `stop` is asked now and then.
    pub(super) fn new(input: usize, stop: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Budget {
            steps: Cell::new(STEPS.saturating_add(4 * input as u64)),
            look: Cell::new(0),
            depth: Cell::new(0),
            live: Rc::new(Cell::new(0)),
            most: BYTES.saturating_add(input.saturating_mul(16)),
            stop,
        }
    }

    /// Pays for `steps` steps.
    pub(super) fn spend(&self, steps: u64) -> Result<(), Fault> {
        let look = self.look.get() + steps;
        if look >= PATIENCE {
            if (self.stop)() {
                return Err(Fault::Cancelled);
            }
            self.look.set(0);
        } else {
            self.look.set(look);
        }
        match self.steps.get().checked_sub(steps) {
            Some(left) => {
                self.steps.set(left);
                Ok(())
            }
            None => {
                self.steps.set(0);
                Err(Fault::new("it takes too many steps"))
            }
        }
    }

    /// Pays for reading or copying `bytes`.
    pub(super) fn read(&self, bytes: usize) -> Result<(), Fault> {
        self.spend((bytes / BYTES_PER_STEP) as u64)
    }

    /// Refuses `bytes` for which there is no room: to be asked before they are made.
    pub(super) fn room(&self, bytes: usize) -> Result<(), Fault> {
        if self.live.get().saturating_add(bytes) <= self.most {
            return Ok(());
        }
        Err(Fault::new(format!(
            "its values take more memory than {} MiB",
            self.most >> 20
        )))
    }

    /// Takes `bytes` until the result is dropped.
    pub(super) fn hold(&self, bytes: usize) -> Result<Held, Fault> {
        self.room(bytes)?;
        self.read(bytes)?;
        self.live.set(self.live.get() + bytes);
        Ok(Held {
            live: Rc::clone(&self.live),
            bytes,
        })
    }

    /// Runs `inner` one level deeper.
    pub(super) fn deeper<T>(&self, inner: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        let depth = self.depth.get();
        if depth >= RECURSION {
            return Err(Fault::new(format!(
                "it recurses more than {RECURSION} levels deep"
            )));
        }
        self.depth.set(depth + 1);
        let result = inner();
        self.depth.set(depth);
        result
    }
}

/// A text that grows within a budget.
pub(super) struct Out<'b, 'a> {
    budget: &'b Budget<'a>,
    text: String,
    held: Held,
    unpaid: usize,
}

impl<'b, 'a> Out<'b, 'a> {
    pub(super) fn new(budget: &'b Budget<'a>) -> Result<Self, Fault> {
        Ok(Out {
            budget,
            text: String::new(),
            held: budget.hold(0)?,
            unpaid: 0,
        })
    }

    pub(super) fn budget(&self) -> &'b Budget<'a> {
        self.budget
    }

    pub(super) fn push_str(&mut self, text: &str) -> Result<(), Fault> {
        let needed = self.text.len() + text.len();
        if needed > self.held.bytes {
            // As much as the text doubles to when it grows.
            let more = needed.max(2 * self.held.bytes).max(64) - self.held.bytes;
            self.budget.room(more)?;
            self.text
                .reserve_exact(self.held.bytes + more - self.text.len());
            self.held.bytes += more;
            self.budget.live.set(self.budget.live.get() + more);
        }
        self.text.push_str(text);
        self.unpaid += text.len();
        if self.unpaid < 16 * WRITTEN_PER_STEP {
            return Ok(());
        }
        self.budget
            .spend((std::mem::take(&mut self.unpaid) / WRITTEN_PER_STEP) as u64)
    }

    pub(super) fn push(&mut self, c: char) -> Result<(), Fault> {
        self.push_str(c.encode_utf8(&mut [0; 4]))
    }

    pub(super) fn repeat(&mut self, text: &str, times: usize) -> Result<(), Fault> {
        self.budget.room(text.len().saturating_mul(times))?;
        (0..times).try_for_each(|_| self.push_str(text))
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}
