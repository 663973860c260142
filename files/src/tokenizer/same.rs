//! Whether two models speak the same tokens.

use anyhow::{Result, bail, ensure};

/// Checks that two models speak the same tokens, by their strings. Rows past a tokenizer's own tokens do not count.
///
/// # Errors
/// With the first token that differs.
pub fn same_tokens(a: &[String], b: &[String], a_name: &str, b_name: &str) -> Result<()> {
    match first_difference(a, b, a_name, b_name) {
        Some((_, words)) => bail!("{words}"),
        None => Ok(()),
    }
}

/// How many ids, from 0 on, are the same tokens in two models: all of the shorter list, or up to the first that differs where only a few
/// tokens at the end do, as added ones are.
///
/// # Errors
/// With the first token that differs, when more than a hundredth of the vocabulary (and more than 16 tokens) lie behind it: another tokenizer.
pub fn shared_tokens(a: &[String], b: &[String], a_name: &str, b_name: &str) -> Result<usize> {
    let Some((shared, words)) = first_difference(a, b, a_name, b_name) else {
        return Ok(a.len().min(b.len()));
    };
    let (own, other) = (real(a), real(b));
    let few = (own.min(other) / 100).max(16);
    ensure!(
        own.max(other) - shared <= few,
        "{words}; the two must share one vocabulary, but for at most {few} tokens at its end: give the student the teacher's tokenizer"
    );
    Ok(shared)
}

/// The first id whose token is not the same in both, and in words what is there.
fn first_difference(
    a: &[String],
    b: &[String],
    a_name: &str,
    b_name: &str,
) -> Option<(usize, String)> {
    let differs = |(x, y): (&String, &String)| x != y && !(is_padding(x) && is_padding(y));
    if let Some(id) = a.iter().zip(b).position(differs) {
        let words = format!(
            "token {id} is {:?} in {a_name} and {:?} in {b_name}",
            a[id], b[id]
        );
        return Some((id, words));
    }
    let shorter = a.len().min(b.len());
    let (longer, extra) = if a.len() > b.len() {
        (a_name, &a[shorter..])
    } else {
        (b_name, &b[shorter..])
    };
    let at = extra.iter().position(|token| !is_padding(token))?;
    let words = format!(
        "{a_name} has {} tokens and {b_name} has {}; {longer} alone knows token {}, {:?}",
        a.len(),
        b.len(),
        shorter + at,
        extra[at]
    );
    Some((shorter, words))
}

/// How many tokens there are without the padding at the end.
#[must_use]
pub fn real(tokens: &[String]) -> usize {
    let last = tokens.iter().rposition(|token| !is_padding(token));
    last.map_or(0, |last| last + 1)
}

fn is_padding(token: &str) -> bool {
    token
        .strip_prefix("[PAD")
        .and_then(|t| t.strip_suffix(']'))
        .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
}
