//! Tables.

use std::fmt::Write as _;

/// Rows as a Markdown table, columns padded so that it also reads well in a terminal; the first column is left-aligned.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(c, h)| {
            rows.iter()
                .map(|r| r[c].chars().count())
                .chain([h.chars().count(), 3])
                .max()
                .unwrap_or(3)
        })
        .collect();
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        for (c, cell) in cells.enumerate() {
            let pad = " ".repeat(width[c].saturating_sub(cell.chars().count()));
            let _ = if c == 0 {
                write!(out, "| {cell}{pad} ")
            } else {
                write!(out, "| {pad}{cell} ")
            };
        }
        out.push_str("|\n");
    };
    line(&mut header.iter().copied());
    let rule: Vec<String> = width
        .iter()
        .enumerate()
        .map(|(c, w)| {
            if c == 0 {
                "-".repeat(*w)
            } else {
                format!("{}:", "-".repeat(w - 1))
            }
        })
        .collect();
    line(&mut rule.iter().map(String::as_str));
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align() {
        let t = table(&["model", "x"], &[vec!["a".into(), "12345".into()]]);
        assert_eq!(
            t,
            "| model |     x |\n| ----- | ----: |\n| a     | 12345 |\n"
        );
    }
}
