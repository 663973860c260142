//! Regular expressions of the engine's options, with an end.

/// How often a part may be repeated whose expression sets no limit.
const MAX: u32 = 40;

/// `pattern` with a limit for each repetition that has none.
pub(super) fn bounded(pattern: &str) -> String {
    let mut out = String::new();
    let (mut chars, mut in_class) = (pattern.chars().peekable(), false);
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                out.push(c);
                out.extend(chars.next());
            }
            '[' if !in_class => {
                in_class = true;
                out.push(c);
                // A bracket at the front is one of the class.
                for first in ['^', ']'] {
                    out.extend(chars.next_if_eq(&first));
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(c);
            }
            '*' if !in_class => out.push_str(&format!("{{0,{MAX}}}")),
            '+' if !in_class => out.push_str(&format!("{{1,{MAX}}}")),
            '{' if !in_class => {
                let inside: String = std::iter::from_fn(|| chars.next_if(|&c| c != '}')).collect();
                let least = inside
                    .strip_suffix(',')
                    .and_then(|least| least.trim().parse::<u32>().ok());
                match least {
                    Some(least) => {
                        out.push_str(&format!("{{{least},{}", least.saturating_add(MAX)))
                    }
                    None => out.push_str(&format!("{{{inside}")),
                }
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::bounded;

    #[test]
    fn repetitions_without_a_limit_get_one() {
        for (pattern, expected) in [
            (r"[ \n]*", r"[ \n]{0,40}"),
            (r"\s+|x{2,}", r"\s{1,40}|x{2,42}"),
            (r"[]*+{]\*a{3}b{1,2}", r"[]*+{]\*a{3}b{1,2}"),
            (r" |\n {0,40}", r" |\n {0,40}"),
            (r"\x{20}+", r"\x{20}{1,40}"),
        ] {
            assert_eq!(bounded(pattern), expected, "{pattern}");
        }
    }
}
