//! From tokens' bytes to the text a caller may see: whole code points only, and never a byte of a stop string.

/// What a pushed token led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// The stop string with this index ended the text; the text ends before it.
    Stop(usize),
}

/// Collects a completion's text. Its buffers are kept from request to request, so that a warm session allocates nothing here.
#[derive(Default)]
pub(crate) struct Output {
    /// Bytes of a code point that has not ended yet (≤ 3 between pushes).
    partial: Vec<u8>,
    /// The completion so far, whole code points.
    text: String,
    /// How many bytes of `text` were handed out.
    taken: usize,
    /// How many bytes of `text` may be handed out: the rest could be the beginning of a stop string.
    ready: usize,
}

impl Output {
    pub(crate) fn clear(&mut self) {
        self.partial.clear();
        self.text.clear();
        self.taken = 0;
        self.ready = 0;
    }

    /// The whole text so far, without stop strings.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Appends one token's bytes, written by `bytes`, and looks for `stops`.
    pub(crate) fn push(&mut self, stops: &[String], bytes: impl FnOnce(&mut Vec<u8>)) -> Found {
        bytes(&mut self.partial);
        let before = self.text.len();
        self.take_whole_code_points();
        self.look_for(stops, before)
    }

    /// The text is over: what was held back is free. A code point that never ended becomes U+FFFD.
    pub(crate) fn finish(&mut self, stops: &[String]) -> Found {
        let before = self.text.len();
        if !self.partial.is_empty() {
            self.text.push(char::REPLACEMENT_CHARACTER);
            self.partial.clear();
        }
        let found = self.look_for(stops, before);
        self.ready = self.text.len();
        found
    }

    /// What may be shown and was not yet.
    pub(crate) fn take(&mut self) -> &str {
        let piece = &self.text[self.taken..self.ready];
        self.taken = self.ready;
        piece
    }

    /// Moves every code point that is complete from `partial` to `text`; each ill-formed sequence becomes U+FFFD.
    fn take_whole_code_points(&mut self) {
        let mut done = 0;
        loop {
            match std::str::from_utf8(&self.partial[done..]) {
                Ok(whole) => {
                    self.text.push_str(whole);
                    done = self.partial.len();
                    break;
                }
                Err(error) => {
                    let valid = done + error.valid_up_to();
                    if let Ok(whole) = std::str::from_utf8(&self.partial[done..valid]) {
                        self.text.push_str(whole);
                    }
                    done = valid;
                    match error.error_len() {
                        Some(bad) => {
                            self.text.push(char::REPLACEMENT_CHARACTER);
                            done += bad;
                        }
                        None => break,
                    }
                }
            }
        }
        self.partial.drain(..done);
    }

    /// Cuts the text before the stop string that is complete first (of several, the one that began first); otherwise holds back what may become one.
    fn look_for(&mut self, stops: &[String], before: usize) -> Found {
        let mut first: Option<(usize, usize, usize)> = None; // (end, start, index)
        let mut held = 0;
        for (index, stop) in stops.iter().enumerate() {
            // A stop string that ends in the new text begins at most its own length before it.
            let from = before.saturating_sub(stop.len()).max(self.taken);
            let from = (from..=before)
                .find(|&i| self.text.is_char_boundary(i))
                .unwrap_or(before);
            if let Some(at) = self.text[from..].find(stop.as_str()) {
                let candidate = (from + at + stop.len(), from + at, index);
                if first.is_none_or(|f| candidate < f) {
                    first = Some(candidate);
                }
            }
            held = held.max(overlap(&self.text[self.taken..], stop));
        }
        if let Some((_, start, index)) = first {
            self.text.truncate(start);
            self.ready = start;
            return Found::Stop(index);
        }
        self.ready = self.text.len() - held;
        Found::Nothing
    }
}

/// The length of the longest end of `text` that is a beginning of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len());
    (1..=longest)
        .rev()
        .find(|&n| text.as_bytes()[text.len() - n..] == stop.as_bytes()[..n])
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of `size` and returns (pieces shown, whole text, stop string found).
    fn run(bytes: &[u8], size: usize, stops: &[&str]) -> (Vec<String>, String, Option<usize>) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut output = Output::default();
        let mut pieces = Vec::new();
        let mut found = None;
        for chunk in bytes.chunks(size) {
            if let Found::Stop(index) = output.push(&stops, |out| out.extend_from_slice(chunk)) {
                found = Some(index);
                break;
            }
            pieces.push(output.take().to_string());
        }
        if found.is_none()
            && let Found::Stop(index) = output.finish(&stops)
        {
            found = Some(index);
        }
        pieces.push(output.take().to_string());
        assert_eq!(pieces.concat(), output.text());
        (pieces, output.text().to_string(), found)
    }

    #[test]
    fn code_points_are_never_split() {
        let text = "añ€😀z";
        let (pieces, whole, _) = run(text.as_bytes(), 1, &[]);
        assert_eq!(whole, text);
        let shown: Vec<_> = pieces.iter().filter(|p| !p.is_empty()).collect();
        assert_eq!(shown, ["a", "ñ", "€", "😀", "z"]);
    }

    #[test]
    fn ill_formed_bytes_become_replacement_characters() {
        for size in 1..6 {
            assert_eq!(
                run(b"a\xffb\xe2\x82c\xf0\x9f", size, &[]).1,
                "a\u{fffd}b\u{fffd}c\u{fffd}"
            );
        }
    }

    #[test]
    fn a_stop_string_is_found_whatever_the_pieces_and_never_shown() {
        let text = "one two STOP three";
        for size in 1..text.len() {
            let (pieces, whole, found) = run(text.as_bytes(), size, &["nothing", "STOP"]);
            assert_eq!(
                (whole.as_str(), found),
                ("one two ", Some(1)),
                "pieces of {size}"
            );
            assert!(!pieces.concat().contains('S'));
        }
    }

    #[test]
    fn what_only_looked_like_a_stop_string_is_shown() {
        for size in 1..8 {
            let (_, whole, found) = run(b"ST STO STAB", size, &["STOP"]);
            assert_eq!((whole.as_str(), found), ("ST STO STAB", None));
        }
    }

    #[test]
    fn the_stop_string_that_is_complete_first_wins() {
        for size in 1..8 {
            let (_, whole, found) = run("xé<end>".as_bytes(), size, &["end>", "<e", "é<e"]);
            assert_eq!((whole.as_str(), found), ("x", Some(2)), "pieces of {size}");
        }
    }

    #[test]
    fn a_repeated_beginning_still_matches() {
        for size in 1..8 {
            assert_eq!(run(b"aaab!", size, &["aab"]).1, "a");
        }
    }
}
