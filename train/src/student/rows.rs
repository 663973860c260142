//! A padded batch, packed: only tokens that something wanted depends on.

use anyhow::{Result, ensure};

use super::ops::attention::{Span, padded};

/// Rows of the packed buffers. Padding, and whatever follows the last wanted position of a sequence, is left out: attention is causal,
/// so nothing wanted can depend on it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    /// Token of each row, [n].
    pub(crate) ids: Vec<u32>,
    /// Position of each row in its sequence, [n].
    pub(crate) at: Vec<u32>,
    /// Sequences, with every row a query.
    pub(crate) spans: Vec<Span>,
    /// Length of the probabilities of `spans`.
    pub(crate) probabilities: usize,
    /// Rows whose logits are wanted, ascending, [s].
    pub(crate) wanted: Vec<u32>,
    /// Positions of these rows in their sequences, [s].
    pub(crate) wanted_at: Vec<u32>,
    /// Sequences, with only the wanted rows as queries.
    pub(crate) wanted_spans: Vec<Span>,
    /// Length of the probabilities of `wanted_spans`.
    pub(crate) wanted_probabilities: usize,
}

impl Rows {
    /// `ids`: [batch, length]; `positions`: flat indices into it, ascending.
    ///
    /// # Errors
    /// When a position or token is out of range, positions do not ascend, or sequences are longer than `context`.
    pub(crate) fn new(
        ids: &[u32],
        length: usize,
        positions: &[usize],
        heads: usize,
        vocabulary: usize,
        context: usize,
    ) -> Result<Self> {
        ensure!(
            length > 0 && ids.len().is_multiple_of(length),
            "{} ids are not a multiple of the sequence length {length}",
            ids.len()
        );
        ensure!(
            positions.is_sorted_by(|a, b| a < b),
            "wanted positions must ascend"
        );
        if let Some(&last) = positions.last() {
            ensure!(
                last < ids.len(),
                "position {last} of a batch of {} tokens",
                ids.len()
            );
        }
        let mut rows = Rows::default();
        for wanted in positions.chunk_by(|a, b| a / length == b / length) {
            let first = wanted[0] / length * length;
            let used = wanted[wanted.len() - 1] - first + 1;
            ensure!(
                used <= context,
                "a sequence of {used} tokens in a model of {context}; shorten the data or enlarge context_length"
            );
            let start = rows.ids.len();
            let span = Span {
                start,
                length: used,
                query_start: start,
                queries: used,
                probabilities: rows.probabilities,
            };
            rows.probabilities += heads * used * padded(used);
            rows.spans.push(span);
            rows.wanted_spans.push(Span {
                query_start: rows.wanted.len(),
                queries: wanted.len(),
                probabilities: rows.wanted_probabilities,
                ..span
            });
            rows.wanted_probabilities += heads * wanted.len() * padded(used);
            rows.ids.extend_from_slice(&ids[first..first + used]);
            rows.at.extend(0..used as u32);
            for &p in wanted {
                rows.wanted.push((start + p - first) as u32);
                rows.wanted_at.push((p - first) as u32);
            }
        }
        if let Some(id) = rows.ids.iter().find(|&&id| id as usize >= vocabulary) {
            anyhow::bail!(
                "token {id} in a vocabulary of {vocabulary}; was the data tokenised with another tokenizer?"
            );
        }
        Ok(rows)
    }

    /// How many query rows a layer has, their positions, sequences, and the room for their probabilities; in the last layer only wanted rows are.
    pub(crate) fn queries(&self, last: bool) -> (usize, &[u32], &[Span], usize) {
        if last {
            (
                self.wanted.len(),
                &self.wanted_at,
                &self.wanted_spans,
                self.wanted_probabilities,
            )
        } else {
            (self.ids.len(), &self.at, &self.spans, self.probabilities)
        }
    }
}
