//! Names what is given as a model and is none.

use std::fs::Metadata;
use std::path::Path;

/// What is known by its first bytes.
const KINDS: [(&[u8], &str); 10] = [
    (
        b"version https://git-lfs.github.com/",
        "a Git LFS pointer: fetch the file that it stands for with `git lfs pull`",
    ),
    (b"<!DOCTYPE", "a web page: download the file itself"),
    (b"<!doctype", "a web page: download the file itself"),
    (b"<html", "a web page: download the file itself"),
    (
        b"PK\x03\x04",
        "a ZIP archive, as PyTorch writes: convert the model to GGUF",
    ),
    (b"\x80\x02", "a Python pickle: convert the model to GGUF"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"tjgg", "an old GGML file: convert the model to GGUF"),
    (b"fmgg", "an old GGML file: convert the model to GGUF"),
    (b"lmgg", "an old GGML file: convert the model to GGUF"),
];

/// How much of a file tells whether it is text, and how much of a text an error shows.
const LOOK: usize = 512;
const SHOW: usize = 40;

/// What a file is that does not begin as a GGUF file does.
pub(super) fn kind(bytes: &[u8]) -> String {
    if let Some((_, kind)) = KINDS.iter().find(|(begin, _)| bytes.starts_with(begin)) {
        return (*kind).into();
    }
    if bytes.len() < 4 {
        return format!("a file of {} bytes", bytes.len());
    }
    // A length of eight bytes, and JSON.
    if bytes.get(4..9) == Some(b"\0\0\0\0{") {
        return "a safetensors file: convert the model to GGUF".into();
    }
    let look = &bytes[..bytes.len().min(LOOK)];
    let text = match str::from_utf8(look) {
        Ok(text) => text,
        // Cut within a character.
        Err(error) if error.error_len().is_none() => {
            str::from_utf8(&look[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => "",
    };
    let is_text = |c: char| !c.is_control() || c.is_whitespace();
    if !text.is_empty() && text.chars().all(is_text) {
        let begin: String = text.chars().take(SHOW).collect();
        return format!("a text file that begins with {begin:?}");
    }
    format!("\"{}\"", bytes[..4].escape_ascii())
}

/// What lies at `path` where that is no file.
pub(super) fn not_a_file(path: &Path, is: &Metadata) -> String {
    if !is.is_dir() {
        return "a device or a pipe".into();
    }
    if path.join("config.json").is_file() {
        return "a folder, as Hugging Face's transformers saves a model: convert it to GGUF".into();
    }
    "a folder: name a file in it".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_model_is_named() {
        let long = format!("{}中", "a".repeat(511));
        let cases: [(&[u8], &str); 9] = [
            (b"", "a file of 0 bytes"),
            (b"ab", "a file of 2 bytes"),
            (
                b"# A model card\n",
                r##"a text file that begins with "# A model card\n""##,
            ),
            (long.as_bytes(), "a text file"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS"),
            (b"<!DOCTYPE html><html>", "a web page"),
            (
                b"\x10\x27\0\0\0\0\0\0{\"__metadata__\"",
                "a safetensors file",
            ),
            (b"\x01\x02\x03\x04\x05", r#""\x01\x02\x03\x04""#),
            (&[0; 99], r#""\x00\x00\x00\x00""#),
        ];
        for (bytes, expected) in cases {
            let got = kind(bytes);
            assert!(got.starts_with(expected), "{got}");
        }
    }
}
