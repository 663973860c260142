//! Exceptions by name.

use anyhow::{Context, Result};
use dram_core::quant::{FORMATS, Format, format_by_name};

/// One line of a rule list: tensors whose name matches `pattern` (`*` stands for anything) get `format`. The first match decides.
#[derive(Debug, Clone)]
pub struct Rule {
    pub pattern: String,
    pub format: &'static Format,
}

impl Rule {
    /// `PATTERN=FORMAT`, such as `blk.0.*=q8_0`.
    ///
    /// # Errors
    /// When it is not of that form, or the format is unknown.
    pub fn parse(text: &str) -> Result<Self> {
        let (pattern, format) = text
            .split_once('=')
            .with_context(|| format!("{text}: expected PATTERN=FORMAT, such as blk.0.*=q8_0"))?;
        let format = format_by_name(format).with_context(|| {
            let names: Vec<_> = FORMATS.iter().map(|f| f.name).collect();
            format!("{text}: expected a format, one of {}", names.join(", "))
        })?;
        Ok(Rule {
            pattern: pattern.into(),
            format,
        })
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        let mut parts = self.pattern.split('*');
        let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
            return false;
        };
        let mut last = None;
        for part in parts {
            if let Some(before) = last.replace(part) {
                match rest.split_once(before) {
                    Some((_, after)) => rest = after,
                    None => return false,
                }
            }
        }
        last.map_or(rest.is_empty(), |end| rest.ends_with(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_match_whole_names() {
        let matches = |pattern: &str, name| {
            Rule {
                pattern: pattern.into(),
                format: &FORMATS[0],
            }
            .matches(name)
        };
        assert!(matches("blk.*.attn_v.weight", "blk.12.attn_v.weight"));
        assert!(matches("*ffn*", "blk.0.ffn_up.weight"));
        assert!(matches("output.weight", "output.weight"));
        assert!(!matches("output.weight", "attn_output.weight"));
        assert!(!matches("blk.1.*", "blk.12.attn_v.weight"));
        assert!(!matches("*.bias", "blk.0.attn_q.weight"));
        assert!(!matches("a*a", "a"));
    }
}
