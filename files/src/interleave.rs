//! The order of rows of queries and keys.
//!
//! llama.cpp rotates neighbouring pairs (2i, 2i + 1) for some families, Hugging Face and training rotate (i, i + half), so rows change places inside each
//! head. Whole rows move: the blocks of a row stay what they are.

/// Where row `row` of the file comes from in the folder's matrix: pair (2i, 2i + 1) of a head is its (i, i + half).
#[must_use]
pub fn source_row(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    head * head_dim + within / 2 + (within % 2) * (head_dim / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_head_interleave() {
        // head_dim 6: file rows 0..6 hold rows 0, 3, 1, 4, 2, 5 of the folder; the second head likewise.
        let order: Vec<usize> = (0..12).map(|r| source_row(r, 6)).collect();
        assert_eq!(order, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }
}
