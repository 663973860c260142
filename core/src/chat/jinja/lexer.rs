//! The source in pieces: text, and the tokens of tags.

use super::{Fault, Result};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Text outside of tags, whitespace control applied.
    Text(String),
    BlockBegin,
    BlockEnd,
    PrintBegin,
    PrintEnd,
    Name(String),
    Str(String),
    Int(i128),
    Float(f64),
    /// An operator or a bracket.
    Op(&'static str),
    End,
}

/// Longest first.
const OPERATORS: [&str; 27] = [
    "==", "!=", "<=", ">=", "**", "//", "+", "-", "*", "/", "%", "~", "(", ")", "[", "]", "{", "}",
    "<", ">", "=", ".", ":", "|", ",", ";", "!",
];

pub(super) struct Lexer<'s> {
    rest: &'s str,
    line: u32,
    tokens: Vec<(Token, u32)>,
    /// Whether what was read last ended a line.
    line_begins: bool,
}

/// The tokens of `source` with their lines. The last is [`Token::End`].
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, u32)>> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut lexer = Lexer {
        rest: source.strip_suffix('\n').unwrap_or(&source),
        line: 1,
        tokens: Vec::new(),
        line_begins: true,
    };
    while !lexer.rest.is_empty() {
        let line = lexer.line;
        lexer.text().map_err(|fault| fault.at(line))?;
    }
    let line = lexer.line;
    lexer.tokens.push((Token::End, line));
    Ok(lexer.tokens)
}

impl<'s> Lexer<'s> {
    /// Text up to a tag, and the tag.
    fn text(&mut self) -> Result<()> {
        let tag = |at: &usize| {
            let next = self.rest.as_bytes().get(at + 1);
            matches!(next, Some(b'{' | b'%' | b'#'))
        };
        let begin = self.rest.match_indices('{').map(|(at, _)| at).find(tag);
        let Some(begin) = begin else {
            let text = self.rest;
            self.advance(text.len());
            self.push_text(text);
            return Ok(());
        };
        let text = &self.rest[..begin];
        let kind = self.rest.as_bytes()[begin + 1];
        let sign = self.rest.as_bytes().get(begin + 2).copied();
        let kept = match sign {
            Some(b'-') => text.trim_end_matches(is_space),
            Some(b'+') => text,
            _ if kind != b'{' => self.without_indent(text),
            _ => text,
        };
        self.advance(begin + 2 + usize::from(matches!(sign, Some(b'-' | b'+'))));
        self.push_text(kept);
        match kind {
            b'#' => {
                let Some(end) = self.rest.find("#}") else {
                    return Err(Fault::new("a comment without `#}`"));
                };
                let minus = self.rest[..end].ends_with('-');
                let plus = self.rest[..end].ends_with('+');
                self.advance(end + 2);
                self.after(minus, !plus);
                Ok(())
            }
            b'%' => match self.raw_begin() {
                Some(length) => self.raw(length),
                None => self.tag(Token::BlockBegin, Token::BlockEnd, "%}"),
            },
            _ => self.tag(Token::PrintBegin, Token::PrintEnd, "}}"),
        }
    }

    /// `text` before a block without the blanks that its last line consists of.
    fn without_indent<'t>(&self, text: &'t str) -> &'t str {
        let line = text.rfind('\n').map_or(0, |at| at + 1);
        let at_begin = line > 0 || self.line_begins;
        match at_begin && text[line..].chars().all(is_space) {
            true => &text[..line],
            false => text,
        }
    }

    fn push_text(&mut self, text: &str) {
        if !text.is_empty() {
            self.tokens.push((Token::Text(text.to_owned()), self.line));
        }
    }

    fn advance(&mut self, bytes: usize) {
        let (read, rest) = self.rest.split_at(bytes);
        self.line += read.bytes().filter(|b| *b == b'\n').count() as u32;
        if !read.is_empty() {
            self.line_begins = read.ends_with('\n');
        }
        self.rest = rest;
    }

    /// What follows a tag: dropped whitespace, or the one line break after a block.
    fn after(&mut self, strip: bool, trim: bool) {
        if strip {
            let blank = self.rest.len() - self.rest.trim_start_matches(is_space).len();
            self.advance(blank);
        } else if trim && self.rest.starts_with('\n') {
            self.advance(1);
        }
    }

    /// The length of what is left of `{% raw %}`, the `{%` read.
    fn raw_begin(&self) -> Option<usize> {
        tail_of(self.rest, "raw")
    }

    fn raw(&mut self, length: usize) -> Result<()> {
        let minus = self.rest[..length].ends_with("-%}");
        self.advance(length);
        self.after(minus, true);
        let ends = self.rest.match_indices("{%");
        let end = ends.into_iter().find_map(|(at, _)| {
            let sign = self.rest[at + 2..].starts_with(['-', '+']);
            let from = at + 2 + usize::from(sign);
            Some((at, from, tail_of(&self.rest[from..], "endraw")?))
        });
        let Some((at, from, length)) = end else {
            return Err(Fault::new("`raw` without `endraw`"));
        };
        let text = &self.rest[..at];
        let kept = match self.rest.as_bytes()[at + 2] {
            b'-' => text.trim_end_matches(is_space),
            b'+' => text,
            _ => self.without_indent(text),
        };
        self.push_text(kept);
        let minus = self.rest[from..from + length].ends_with("-%}");
        let plus = self.rest[from..from + length].ends_with("+%}");
        self.advance(from + length);
        self.after(minus, !plus);
        Ok(())
    }

    /// The tokens of a tag, whose beginning is read.
    fn tag(&mut self, begin: Token, end: Token, mark: &str) -> Result<()> {
        let is_block = end == Token::BlockEnd;
        self.tokens.push((begin, self.line));
        let mut open = Vec::new();
        loop {
            let blank = self.rest.len() - self.rest.trim_start_matches(is_space).len();
            self.advance(blank);
            let Some(first) = self.rest.chars().next() else {
                return Err(Fault::new(format!("a tag without `{mark}`")));
            };
            if open.is_empty() {
                let signed = self.rest.strip_prefix(['-', '+']).unwrap_or(self.rest);
                let sign = (signed.len() < self.rest.len()).then_some(first);
                if signed.starts_with(mark) && (is_block || sign != Some('+')) {
                    self.tokens.push((end, self.line));
                    self.advance(self.rest.len() - signed.len() + mark.len());
                    self.after(sign == Some('-'), is_block && sign != Some('+'));
                    return Ok(());
                }
            }
            let line = self.line;
            let token = self.token(first)?;
            match token {
                Token::Op(op @ ("(" | "[" | "{")) => open.push(op),
                Token::Op(close @ (")" | "]" | "}")) => {
                    let expected = match open.pop() {
                        Some("(") => ")",
                        Some("[") => "]",
                        Some(_) => "}",
                        None => "",
                    };
                    if close != expected {
                        return Err(Fault::new(format!("`{close}` closes nothing")));
                    }
                }
                _ => {}
            }
            self.tokens.push((token, line));
        }
    }

    fn token(&mut self, first: char) -> Result<Token> {
        if first == '\'' || first == '"' {
            return self.string(first);
        }
        if first.is_ascii_digit() {
            return self.number();
        }
        if first == '_' || first.is_alphabetic() {
            let part = |c: char| c == '_' || c.is_alphanumeric();
            let end = self.rest.find(|c| !part(c)).unwrap_or(self.rest.len());
            let name = self.rest[..end].to_owned();
            self.advance(end);
            return Ok(Token::Name(name));
        }
        match OPERATORS.into_iter().find(|op| self.rest.starts_with(op)) {
            Some(op) => {
                self.advance(op.len());
                Ok(Token::Op(op))
            }
            None => Err(Fault::new(format!("unexpected `{first}`"))),
        }
    }

    fn number(&mut self) -> Result<Token> {
        let bytes = self.rest.as_bytes();
        let digits = |from: usize| {
            let part = |b: &u8| b.is_ascii_digit() || *b == b'_';
            from + bytes[from..].iter().take_while(|b| part(b)).count()
        };
        let radix = match bytes.get(1).map(u8::to_ascii_lowercase) {
            Some(b'x') if bytes[0] == b'0' => 16,
            Some(b'o') if bytes[0] == b'0' => 8,
            Some(b'b') if bytes[0] == b'0' => 2,
            _ => 10,
        };
        if radix != 10 {
            let part = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
            let end = 2 + bytes[2..].iter().take_while(|b| part(b)).count();
            let text = self.rest[2..end].replace('_', "");
            self.advance(end);
            let number = i128::from_str_radix(&text, radix).ok();
            return number
                .map(Token::Int)
                .ok_or_else(|| Fault::new("a bad number"));
        }
        let mut end = digits(0);
        let mut is_float = false;
        if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
            end = digits(end + 1);
            is_float = true;
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
                end = digits(end + 1 + sign);
                is_float = true;
            }
        }
        let text = self.rest[..end].replace('_', "");
        self.advance(end);
        let token = match is_float {
            true => text.parse().ok().map(Token::Float),
            false => text.parse().ok().map(Token::Int),
        };
        token.ok_or_else(|| Fault::new(format!("the number `{text}` is out of range")))
    }

    fn string(&mut self, quote: char) -> Result<Token> {
        let mut out = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.advance(at + 1);
                return Ok(Token::Str(out));
            }
            if c != '\\' {
                out.push(c);
                continue;
            }
            match chars.next().map(|(_, c)| c) {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('b') => out.push('\x08'),
                Some('f') => out.push('\x0c'),
                Some('v') => out.push('\x0b'),
                Some('a') => out.push('\x07'),
                Some('0') => out.push('\0'),
                Some('\n') => {}
                Some('x') => out.push(code(&mut chars, 2)?),
                Some('u') => out.push(code(&mut chars, 4)?),
                Some('U') => out.push(code(&mut chars, 8)?),
                Some(c @ ('\\' | '\'' | '"')) => out.push(c),
                Some(c) => out.extend(['\\', c]),
                None => break,
            }
        }
        Err(Fault::new("a string without its closing quote"))
    }
}

/// The letter that so many hexadecimal digits stand for.
fn code(chars: &mut dyn Iterator<Item = (usize, char)>, digits: usize) -> Result<char> {
    let text: String = chars.take(digits).map(|(_, c)| c).collect();
    let code = u32::from_str_radix(&text, 16).ok();
    code.and_then(char::from_u32)
        .ok_or_else(|| Fault::new("a bad escape in a string"))
}

/// What Python's `str.isspace` and `\s` take for whitespace.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// The length of `word %}`, blanks around the word, at the beginning of `rest`.
fn tail_of(rest: &str, word: &str) -> Option<usize> {
    let after = rest.trim_start_matches(is_space).strip_prefix(word)?;
    let after = after.trim_start_matches(is_space);
    let after = after.strip_prefix(['-', '+']).unwrap_or(after);
    Some(rest.len() - after.strip_prefix("%}")?.len())
}
