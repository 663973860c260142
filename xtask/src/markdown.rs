//! Parts of a Markdown file that a command writes, between two comments; the prose around them is people's.

use anyhow::{Context, Result, ensure};
use std::path::Path;

/// Puts `body` between the comments of `name`, or with them at the file's end where it has none yet.
pub(crate) fn put(file: &Path, name: &str, body: &str) -> Result<()> {
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("reading {}", file.display()))?,
    };
    let text = with(&text, name, body).with_context(|| format!("{}", file.display()))?;
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

fn with(text: &str, name: &str, body: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let part = format!("{begin}\n{}\n{end}", body.trim_end());
    let Some(from) = text.find(&begin) else {
        let before = text.trim_end();
        let gap = if before.is_empty() { "" } else { "\n\n" };
        return Ok(format!("{before}{gap}{part}\n"));
    };
    let to = text[from..].find(&end).map(|at| from + at + end.len());
    ensure!(
        to.is_some(),
        "there is a comment {begin}, but none {end} after it"
    );
    let rest = to.map_or("", |to| &text[to..]);
    Ok(format!("{}{part}{rest}", &text[..from]))
}

#[cfg(test)]
mod tests {
    use super::with;

    #[test]
    fn only_what_lies_between_the_comments_changes() {
        let text = "before\n<!-- a -->\nold\n<!-- /a -->\nafter\n";
        let new = with(text, "a", "new\n").unwrap();
        assert_eq!(new, "before\n<!-- a -->\nnew\n<!-- /a -->\nafter\n");
        assert_eq!(with(&new, "a", "new").unwrap(), new);
        assert_eq!(
            with("text\n", "b", "new").unwrap(),
            "text\n\n<!-- b -->\nnew\n<!-- /b -->\n"
        );
        assert!(with("<!-- c -->\n", "c", "new").is_err());
    }
}
