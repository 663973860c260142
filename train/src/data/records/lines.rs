//! JSON Lines and JSON arrays, packed or not.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Each, LINE};

/// A longer line is no record.
const LONGEST_LINE: u64 = 256 << 20;
/// A longer array has to be JSON Lines, which are read line by line.
const LONGEST_ARRAY: u64 = 4 << 30;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

pub(super) fn each(path: &Path, file: File, magic: &[u8], each: &mut Each<'_>) -> Result<()> {
    let plain: Box<dyn Read> = match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(file)?),
        _ => Box::new(file),
    };
    let mut reader = BufReader::with_capacity(1 << 16, plain);
    let mut line = Vec::new();
    let mut number = 0;
    let mut records = false;
    loop {
        line.clear();
        number += 1;
        let place = || format!("{}:{number}", path.display());
        let read = reader
            .by_ref()
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut line)
            .with_context(place)?;
        if read == 0 {
            return Ok(());
        }
        ensure!(
            (read as u64) < LONGEST_LINE,
            "{}: expected lines of less than {} MiB",
            place(),
            LONGEST_LINE >> 20
        );
        let text = match line.strip_prefix(BYTE_ORDER_MARK) {
            Some(text) if number == 1 => text,
            _ => line.as_slice(),
        }
        .trim_ascii_start();
        if text.is_empty() {
            continue;
        }
        if text.starts_with(b"[") && !records {
            let start = line.len() - text.len();
            let mut whole = line.split_off(start);
            reader
                .take(LONGEST_ARRAY)
                .read_to_end(&mut whole)
                .with_context(place)?;
            return array(path, &whole, each);
        }
        records = true;
        if let Err(error) = std::str::from_utf8(text) {
            bail!(
                "{}: not UTF-8 (byte {} of the line)",
                place(),
                error.valid_up_to()
            );
        }
        let value: Value = serde_json::from_slice(text).with_context(place)?;
        each(LINE, number, &value)?;
    }
}

fn array(path: &Path, text: &[u8], each: &mut Each<'_>) -> Result<()> {
    ensure!(
        (text.len() as u64) < LONGEST_ARRAY,
        "{}: a JSON array of {} GiB or more; expected JSON Lines, one record a line",
        path.display(),
        LONGEST_ARRAY >> 30
    );
    let array: Vec<Value> = serde_json::from_slice(text)
        .with_context(|| format!("{}: not a JSON array", path.display()))?;
    for (i, value) in array.iter().enumerate() {
        each("record", i + 1, value)?;
    }
    Ok(())
}
