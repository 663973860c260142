//! The matrices of linear attention. A token changes all of a matrix, so going back is a copy of an earlier one, and the tokens after it once more.

use super::Mark;
use crate::kernels::{self, Kernels, StateToken};
use crate::model::{Config, LinearAttention, StateRule};
use std::borrow::Cow;
use std::io;
use std::ops::Range;

/// Last tokens that are kept, to be applied to a snapshot again.
const LOG: usize = 64;
/// A run of more tokens is not in the log as a whole: the state is copied before it, and this many tokens before its end.
const NEAR: usize = 16;
/// Tokens after a snapshot at which the next one is due.
const SPACING: usize = 32;
// A draft is dropped from a snapshot that is at most so far back.
const _: () = assert!(super::MAX_DRAFT < NEAR && SPACING + 2 * NEAR <= LOG);

/// What the linear attention of one sequence holds, for every layer that has one; `layer` is its number among these.
#[derive(Clone)]
pub(crate) struct RecurrentState {
    layers: Vec<LayerState>,
    checkpoints: [Checkpoint; 2],
}

/// All layers' matrices at a position; 0: nothing.
#[derive(Clone)]
struct Checkpoint {
    position: usize,
    states: Vec<f32>, // [layers, state]
}

#[derive(Clone)]
struct LayerState {
    spec: LinearAttention,
    /// Tokens that the matrices have seen.
    end: usize,
    current: Vec<f32>, // [value_heads, key_length, value_length]
    snapshots: [Snapshot; 2],
    log: Vec<f32>, // [LOG, queries, keys and values, then decays and betas of the heads]; token p is row p % LOG
    /// The first token that the log still has.
    first: usize,
}

/// The matrices at a position; `None`: nothing.
#[derive(Clone)]
struct Snapshot {
    position: Option<usize>,
    state: Vec<f32>, // as `current`
}

/// Values of a token in the log.
fn log_row(spec: &LinearAttention) -> usize {
    spec.conv_length() + 2 * spec.value_heads
}

/// Bytes for any context.
pub(super) fn bytes(config: &Config) -> u64 {
    let layer = |spec: &LinearAttention| (5 * spec.state_length() + LOG * log_row(spec)) as u64;
    config.linear_attentions().map(layer).sum::<u64>() * size_of::<f32>() as u64
}

/// What a run of tokens reads and writes of one layer.
pub(crate) struct StateRun<'a> {
    pub(crate) state: &'a mut [f32], // [value_heads, key_length, value_length]
    /// Copies to be made of the state: before which token of the run, and to where.
    pub(crate) copies: [(Option<usize>, &'a mut [f32]); 2],
}

impl RecurrentState {
    pub(super) fn new(config: &Config) -> RecurrentState {
        let layer = |spec: &LinearAttention| {
            // Each from the system: a clone would write its pages.
            let zeros = || vec![0.0; spec.state_length()];
            let snapshot = |_| Snapshot {
                position: None,
                state: zeros(),
            };
            LayerState {
                spec: *spec,
                end: 0,
                current: zeros(),
                snapshots: std::array::from_fn(snapshot),
                log: vec![0.0; LOG * log_row(spec)],
                first: 0,
            }
        };
        let values = config
            .linear_attentions()
            .map(LinearAttention::state_length)
            .sum();
        let checkpoint = |_| Checkpoint {
            position: 0,
            states: vec![0.0; values],
        };
        RecurrentState {
            layers: config.linear_attentions().map(layer).collect(),
            checkpoints: std::array::from_fn(checkpoint),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Begins a run of tokens from the layer's end. `rows` `[tokens, queries, keys and values]`, `gates` `[tokens, 2, value_heads]`: decays and betas.
    pub(crate) fn run(&mut self, layer: usize, rows: &[f32], gates: &[f32]) -> StateRun<'_> {
        let layer = &mut self.layers[layer];
        let spec = layer.spec;
        let (width, heads) = (spec.conv_length(), 2 * spec.value_heads);
        let (start, tokens) = (layer.end, rows.len() / width);
        let source = layer.source(start);
        layer.end += tokens;
        let kept = tokens.min(LOG);
        for number in tokens - kept..tokens {
            let row = log_row(&spec);
            let to = &mut layer.log[(start + number) % LOG * row..][..row];
            to[..width].copy_from_slice(&rows[number * width..][..width]);
            to[width..].copy_from_slice(&gates[number * heads..][..heads]);
        }
        layer.first = layer.first.max(layer.end.saturating_sub(LOG));

        let newest = source.flatten().unwrap_or(1);
        let from = source.map(|number| number.map_or(0, |_| layer.position(newest)));
        let is_far = from.is_none_or(|from| layer.end - from >= SPACING);
        let mut due = [None; 2]; // before which token of the run
        if tokens > NEAR {
            due[1 - newest] = Some(0);
            due[newest] = Some(tokens - NEAR);
        } else if is_far {
            due[1 - newest] = Some(0);
        }
        for (snapshot, due) in layer.snapshots.iter_mut().zip(due) {
            if let Some(token) = due {
                snapshot.position = Some(start + token);
            }
        }
        let [a, b] = &mut layer.snapshots;
        StateRun {
            state: &mut layer.current,
            copies: [(due[0], &mut a.state), (due[1], &mut b.state)],
        }
    }

    /// See [`super::State::truncate`]: a little by itself, farther to a checkpoint.
    pub(super) fn truncate(&mut self, kernels: &Kernels, position: usize) -> usize {
        let within = |layer: &LayerState| layer.end <= position || layer.source(position).is_some();
        let kept = if self.layers.iter().all(within) {
            position
        } else {
            let positions = self.checkpoints.iter().map(|c| c.position);
            positions.filter(|at| *at <= position).max().unwrap_or(0)
        };
        let found = self.checkpoints.iter().find(|c| c.position == kept);
        let mut at = 0;
        for layer in &mut self.layers {
            let saved = found.and_then(|c| c.states.get(at..at + layer.current.len()));
            at += layer.current.len();
            if kept < position && layer.end > kept {
                match saved.filter(|_| kept > 0) {
                    Some(saved) => layer.current.copy_from_slice(saved),
                    None => layer.current.fill(0.0),
                }
                layer.cut(kept);
            } else if layer.end > kept {
                layer.rewind(kernels, kept);
            }
        }
        for checkpoint in &mut self.checkpoints {
            if checkpoint.position > kept {
                checkpoint.position = 0;
            }
        }
        kept
    }

    /// The same at `position`, the tokens evaluated: drafts may lie beyond.
    pub(super) fn at(&self, position: usize) -> Cow<'_, RecurrentState> {
        if self.layers.iter().all(|layer| layer.end <= position) {
            return Cow::Borrowed(self);
        }
        let mut other = self.clone();
        let kept = other.truncate(kernels::selected(), position);
        assert_eq!(kept, position, "a draft can be dropped");
        Cow::Owned(other)
    }

    /// Keeps what going back to `position`, the tokens evaluated, needs, in place of the last checkpoint of this kind.
    pub(super) fn checkpoint(&mut self, mark: Mark, position: usize) {
        if self.is_empty() || position == 0 {
            return;
        }
        let checkpoint = &mut self.checkpoints[mark as usize];
        checkpoint.position = position;
        let mut rest = &mut checkpoint.states[..];
        for layer in &self.layers {
            let to = rest.split_off_mut(..layer.current.len());
            to.into_iter()
                .for_each(|to| to.copy_from_slice(&layer.current));
        }
    }

    pub(super) fn saved_bytes(&self) -> usize {
        let values = self.layers.iter().map(|layer| layer.current.len());
        values.sum::<usize>() * size_of::<f32>()
    }

    pub(super) fn save(&self, write: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        self.layers
            .iter()
            .try_for_each(|layer| super::write_floats(&layer.current, write))
    }

    pub(super) fn restore(
        &mut self,
        position: usize,
        read: &mut dyn FnMut(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.checkpoints.iter_mut().for_each(|c| c.position = 0);
        self.layers.iter_mut().try_for_each(|layer| {
            super::read_floats(&mut layer.current, read)?;
            layer.cut(0);
            (layer.end, layer.first) = (position, position);
            Ok(())
        })
    }
}

impl LayerState {
    /// Where a snapshot was made.
    fn position(&self, snapshot: usize) -> usize {
        self.snapshots[snapshot].position.unwrap_or(0)
    }

    /// The number of the snapshot from which the log leads to `position`, or of none from the beginning; `None`: neither leads there.
    fn source(&self, position: usize) -> Option<Option<usize>> {
        let leads = |from: usize| from == position || (from < position && from >= self.first);
        let usable = |number: &usize| self.snapshots[*number].position.is_some_and(leads);
        let newest = (0..2)
            .filter(usable)
            .max_by_key(|n| self.snapshots[*n].position);
        match newest {
            None if !leads(0) => None,
            found => Some(found),
        }
    }

    /// Goes back to `position`, for which there is a source.
    fn rewind(&mut self, kernels: &Kernels, position: usize) {
        let from = match self.source(position).flatten() {
            Some(number) => {
                self.current.copy_from_slice(&self.snapshots[number].state);
                self.position(number)
            }
            None => {
                self.current.fill(0.0);
                0
            }
        };
        self.apply(kernels, from..position);
        self.cut(position);
    }

    /// The tokens after `position` are forgotten.
    fn cut(&mut self, position: usize) {
        self.end = position;
        self.first = self.first.min(position);
        for snapshot in &mut self.snapshots {
            snapshot.position = snapshot.position.filter(|at| *at <= position);
        }
    }

    /// Applies tokens of the log.
    fn apply(&mut self, kernels: &Kernels, positions: Range<usize>) {
        let (spec, row) = (self.spec, log_row(&self.spec));
        let mut out = vec![0.0; spec.value_length];
        for position in positions {
            let row = &self.log[position % LOG * row..][..row];
            let (values, gates) = row.split_at(spec.conv_length());
            let state = spec.key_length * spec.value_length;
            for (head, state) in self.current.chunks_exact_mut(state).enumerate() {
                take_up(kernels, &spec, [values, gates], (head, state), &mut out);
            }
        }
    }
}

/// A head's `state` takes up a token, and `out` `[value_length]` = what the token reads there. `values`: the convolution's outputs, `[queries, keys and values]` of
/// a delta net, `[values, keys and queries]` of a state space. `gates`: `[2, value_heads]`, decays, then how much is written.
pub(crate) fn take_up(
    kernels: &Kernels,
    spec: &LinearAttention,
    [values, gates]: [&[f32]; 2],
    (head, state): (usize, &mut [f32]),
    out: &mut [f32],
) {
    let (keys, length) = (spec.keys_length(), spec.key_length);
    let key_head = match spec.rule {
        StateRule::GatedDelta => head % spec.key_heads,
        StateRule::StateSpace => head / (spec.value_heads / spec.key_heads),
    };
    let [query, key, value] = match spec.rule {
        StateRule::GatedDelta => [0, keys, 2 * keys],
        StateRule::StateSpace => [spec.values_length() + keys, spec.values_length(), 0],
    };
    let of =
        |first: usize, number: usize, length: usize| &values[first + number * length..][..length];
    let token = StateToken {
        query: of(query, key_head, length),
        key: of(key, key_head, length),
        value: of(value, head, spec.value_length),
        decay: gates[head],
        beta: gates[spec.value_heads + head],
    };
    match spec.rule {
        StateRule::GatedDelta => kernels.delta_rule(state, token, out),
        StateRule::StateSpace => kernels.state_space(state, token, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;

    fn models() -> [Model; 2] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/families");
        ["qwen3.5", "granite-hybrid"]
            .map(|name| Model::open(format!("{folder}/{name}.gguf")).unwrap())
    }

    /// splitmix64
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A token's values and gates, of length at most 1 and between 0 and 1.
    fn token(spec: &LinearAttention, seed: u64) -> [Vec<f32>; 2] {
        let mut state = seed;
        let mut unit = || (random(&mut state) >> 40) as f32 / (1 << 24) as f32;
        let values = (0..spec.conv_length()).map(|_| (unit() - 0.5) * 0.5);
        let values = values.collect();
        [values, (0..2 * spec.value_heads).map(|_| unit()).collect()]
    }

    /// What the forward pass does with a run of tokens.
    fn run(state: &mut RecurrentState, tokens: &[[Vec<f32>; 2]]) {
        let [rows, gates] = [0, 1].map(|part| -> Vec<f32> {
            tokens
                .iter()
                .flat_map(|token| token[part].clone())
                .collect()
        });
        for layer in 0..state.layers.len() {
            let spec = state.layers[layer].spec;
            let head = spec.key_length * spec.value_length;
            let mut run = state.run(layer, &rows, &gates);
            for (number, [values, gates]) in tokens.iter().enumerate() {
                for (due, copy) in &mut run.copies {
                    if *due == Some(number) {
                        copy.copy_from_slice(run.state);
                    }
                }
                for (head, state) in run.state.chunks_exact_mut(head).enumerate() {
                    let mut out = vec![0.0; spec.value_length];
                    let token = [&values[..], &gates[..]];
                    take_up(kernels::selected(), &spec, token, (head, state), &mut out);
                }
            }
        }
    }

    /// Neighbouring heads of a state space share keys; a delta net's take them in turn.
    #[test]
    fn heads_read_their_keys() {
        for (rule, expected) in [
            (StateRule::GatedDelta, [1.0, 2.0, 1.0, 2.0]),
            (StateRule::StateSpace, [1.0, 1.0, 2.0, 2.0]),
        ] {
            let spec = LinearAttention {
                rule,
                kernel: 2,
                key_heads: 2,
                value_heads: 4,
                key_length: 1,
                value_length: 1,
            };
            let (ones, keys) = ([1.0; 4], [1.0, 2.0]);
            let values = match rule {
                StateRule::GatedDelta => [&[1.0; 2], &keys[..], &ones].concat(),
                StateRule::StateSpace => [&ones, &keys[..], &[1.0; 2]].concat(),
            };
            let found = [0, 1, 2, 3].map(|head| {
                let (mut state, mut out) = ([0.0], [0.0]);
                let token = [&values[..], &[1.0; 8]];
                take_up(
                    kernels::selected(),
                    &spec,
                    token,
                    (head, &mut state),
                    &mut out,
                );
                out[0]
            });
            assert_eq!(found, expected);
        }
    }

    /// However a sequence came about, its state is that of a fresh one.
    #[test]
    fn any_way_to_a_sequence_gives_its_state() {
        let models = models();
        let (mut seed, mut exact, mut rewound) = (7, 0, 0);
        for round in 0..40 {
            let model = &models[round % 2];
            let spec = *model.config().linear_attentions().next().unwrap();
            let mut state = RecurrentState::new(model.config());
            let mut tokens: Vec<[Vec<f32>; 2]> = Vec::new();
            let mut within = 0; // reached by itself: what lies after the last run's beginning, if that was short
            for _ in 0..30 {
                match random(&mut seed) % 8 {
                    0 => state.checkpoint(Mark::Prompt, tokens.len()),
                    1..=3 if !tokens.is_empty() => {
                        let back = 1 + random(&mut seed) as usize % 60;
                        let wanted = tokens.len().saturating_sub(back);
                        let kept = state.truncate(kernels::selected(), wanted);
                        assert!(kept == wanted || kept < wanted && wanted < within);
                        within = within.min(kept);
                        *if kept == wanted {
                            &mut exact
                        } else {
                            &mut rewound
                        } += 1;
                        tokens.truncate(kept);
                    }
                    kind => {
                        let most = if kind == 7 { 100 } else { 20 };
                        let count = 1 + random(&mut seed) as usize % most;
                        let new: Vec<_> = (0..count)
                            .map(|_| token(&spec, random(&mut seed)))
                            .collect();
                        run(&mut state, &new);
                        within = tokens.len() + count - count.min(NEAR);
                        tokens.extend(new);
                    }
                }
                let mut fresh = RecurrentState::new(model.config());
                tokens
                    .iter()
                    .for_each(|token| run(&mut fresh, std::slice::from_ref(token)));
                for (layer, fresh) in state.layers.iter().zip(&fresh.layers) {
                    assert_eq!(layer.end, tokens.len());
                    assert!(layer.current == fresh.current, "{} tokens", tokens.len());
                }
            }
        }
        println!("{exact} times to the position asked for, {rewound} times to one before");
        assert!(exact > 30 && rewound > 5);
    }

    /// Behind a checkpoint there is neither a snapshot nor a log, and a draft can be dropped at once.
    #[test]
    fn a_draft_behind_a_checkpoint_is_dropped() {
        let [model, _] = models();
        let spec = *model.config().linear_attentions().next().unwrap();
        let tokens = |count: u64| (0..count).map(|n| token(&spec, n)).collect::<Vec<_>>();
        let mut state = RecurrentState::new(model.config());
        run(&mut state, &tokens(10));
        state.checkpoint(Mark::Prompt, 10);
        run(&mut state, &tokens(40));
        run(&mut state, &tokens(40));
        assert_eq!(state.truncate(kernels::selected(), 20), 10);
        run(&mut state, &tokens(16));
        assert_eq!(state.truncate(kernels::selected(), 12), 12);
        let mut fresh = RecurrentState::new(model.config());
        run(&mut fresh, &tokens(10));
        run(&mut fresh, &tokens(2));
        for (layer, fresh) in state.layers.iter().zip(&fresh.layers) {
            assert!(layer.current == fresh.current);
        }
    }
}
