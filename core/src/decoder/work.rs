//! How much work a token is, whatever does it: what bounds prefill and decoding.

use crate::model::Model;
use crate::model::weights::Matrix;
use crate::state::{self, CacheFormat};

impl Model {
    /// Multiply-adds of int8 for each token of a prompt of `prompt` tokens: every matrix whose format takes int8, of experts those that a token takes, and those that only the
    /// prompt's last token needs once. 0 where no weight is quantised.
    pub(crate) fn multiply_adds(&self, prompt: usize) -> u64 {
        let products = |matrix: &Matrix| match matrix.format.takes_int8() {
            true => matrix.rows as u64 * matrix.cols as u64,
            false => 0,
        };
        let last: u64 = self.weights().of_last_token().map(products).sum();
        let all: u64 = self.weights().multiplied().map(products).sum();
        let experts = self.weights().of_experts();
        let experts: f64 = experts.map(|(m, share)| share * products(m) as f64).sum();
        all - last + last / prompt.max(1) as u64 + experts as u64
    }

    /// Bytes that are read to make one token after `seen` others: every matrix, of experts those that a token takes, the cache's keys and values as far as attention sees,
    /// and the matrices of linear attention.
    pub(crate) fn bytes_read(&self, seen: usize, format: CacheFormat) -> u64 {
        let matrices = self.weights().multiplied();
        let weights: u64 = matrices.map(|matrix| matrix.range.len() as u64).sum();
        let experts = self.weights().of_experts();
        let experts: f64 = experts.map(|(m, share)| share * m.range.len() as f64).sum();
        let weights = weights.saturating_add(experts as u64);
        weights.saturating_add(state::bytes_read(self.config(), seen, format))
    }
}
