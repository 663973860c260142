//! The one pass over a file's head that checks everything.

use super::cursor::Cursor;
use super::metadata::{Pair, Table};
use super::value::{Kind, shorten, split_string};
use super::{Bytes, Entry, File, Part, foreign};
use crate::quant::{known_by_id, names};
use crate::{Error, Result};
use std::collections::HashMap;
use std::ops::Range;

const MAX_KEY: usize = 65_535; // the specification's own limit
const MAX_TENSOR_NAME: usize = 255; // GGML writes at most 63
const MAX_KEYS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 20;
const MAX_DIMENSIONS: u32 = 4;
const DEFAULT_ALIGNMENT: u32 = 32;
const ALIGNMENTS: std::ops::RangeInclusive<u32> = 8..=65_536;

/// Bytes that the shortest pair takes: key length, a key of one byte, type, a value of one byte.
const MIN_PAIR: usize = 8 + 1 + 4 + 1;
/// Bytes that the shortest tensor description takes: name length, a name of one byte, dimensions, one dimension, format, offset.
const MIN_TENSOR: usize = 8 + 1 + 4 + 8 + 4 + 8;

pub(super) fn read(name: String, bytes: Bytes) -> Result<File> {
    let mut cursor = Cursor {
        file: &name,
        bytes: &bytes,
        at: 0,
    };
    let version = header(&mut cursor)?;
    let tensor_count = cursor.u64("header: tensor count")?;
    let pair_count = cursor.u64("header: metadata count")?;
    let tensor_count = cursor.count(
        tensor_count,
        MIN_TENSOR,
        MAX_TENSORS,
        "header: tensor count",
    )?;
    let pair_count = cursor.count(pair_count, MIN_PAIR, MAX_KEYS, "header: metadata count")?;
    let metadata = pairs(&mut cursor, pair_count)?;
    let alignment = alignment(&cursor, &metadata)?;
    let (tensors, by_name) = tensors(&mut cursor, tensor_count, alignment)?;
    Ok(File {
        version,
        metadata,
        tensors,
        by_name,
        name,
        parts: vec![Part { start: 0, bytes }],
    })
}

fn header(cursor: &mut Cursor<'_>) -> Result<u32> {
    let file = || cursor.file.to_owned();
    match cursor.bytes.first_chunk::<4>() {
        Some(b"GGUF") => {}
        Some(b"FUGG") => return Err(Error::BigEndian { file: file() }),
        _ => {
            return Err(Error::NotGguf {
                file: file(),
                got: foreign::kind(cursor.bytes),
            });
        }
    }
    cursor.at = 4;
    let version = cursor.u32("header: version")?;
    match version {
        2 | 3 => Ok(version),
        other if (1..=3).contains(&other.swap_bytes()) => Err(Error::BigEndian {
            file: cursor.file.to_owned(),
        }),
        other => Err(Error::Version {
            file: cursor.file.to_owned(),
            got: other,
        }),
    }
}

fn pairs(cursor: &mut Cursor<'_>, count: usize) -> Result<Table> {
    let mut table = Table {
        entries: Vec::with_capacity(count),
        by_key: HashMap::with_capacity(count),
    };
    for index in 0..count {
        let key = cursor.name(&format!("key of metadata pair {index}"), MAX_KEY)?;
        let what = format!("metadata key `{}`", shorten(key));
        let kind = kind(cursor, &what)?;
        let (elements, range) = match kind {
            Kind::Array => array(cursor, &what)?,
            Kind::String => {
                let text = cursor.string(&what)?;
                (None, cursor.at - text.len()..cursor.at)
            }
            plain => {
                let bytes = cursor.take(plain.size().unwrap_or(0) as u64, &what)?;
                check_bools(cursor, plain, bytes, &what)?;
                (None, cursor.at - bytes.len()..cursor.at)
            }
        };
        if table.by_key.insert(key.into(), index).is_some() {
            return Err(cursor.corrupt(what, "each key once", "a second one"));
        }
        table.entries.push(Pair {
            key: key.into(),
            kind,
            elements,
            range,
        });
    }
    Ok(table)
}

fn kind(cursor: &mut Cursor<'_>, what: &str) -> Result<Kind> {
    let id = cursor.u32(what)?;
    Kind::from_id(id)
        .ok_or_else(|| cursor.corrupt(what, "a value type from 0 to 12", id.to_string()))
}

fn check_bools(cursor: &Cursor<'_>, kind: Kind, bytes: &[u8], what: &str) -> Result<()> {
    match bytes.iter().find(|byte| **byte > 1) {
        Some(byte) if kind == Kind::Bool => {
            Err(cursor.corrupt(what, "a bool of 0 or 1", byte.to_string()))
        }
        _ => Ok(()),
    }
}

/// For arrays the type and number of the elements; where the value lies.
type Located = (Option<(Kind, usize)>, Range<usize>);

/// Checks an array and returns the type and number of its elements and where they lie.
fn array(cursor: &mut Cursor<'_>, what: &str) -> Result<Located> {
    let kind = kind(cursor, what)?;
    let count = cursor.u64(what)?;
    let start = match kind {
        Kind::Array => {
            return Err(cursor.corrupt(
                what,
                "an array of plain values or strings",
                "an array of arrays",
            ));
        }
        Kind::String => {
            let count = cursor.count(count, 8, u64::MAX, what)?;
            let start = cursor.at;
            strings(cursor, count, what)?;
            start
        }
        plain => {
            let size = plain.size().unwrap_or(1);
            let count = cursor.count(count, size, u64::MAX, what)?;
            let bytes = cursor.take(count as u64 * size as u64, what)?;
            check_bools(cursor, plain, bytes, what)?;
            cursor.at - bytes.len()
        }
    };
    Ok((Some((kind, count as usize)), start..cursor.at))
}

/// Checks `count` strings and passes over them.
fn strings(cursor: &mut Cursor<'_>, count: usize, what: &str) -> Result<()> {
    // A length below 128 is eight characters of ASCII. So short strings are UTF-8 each if they are together with their lengths, and one check
    // of many is faster than many checks.
    const SHORT: usize = 127;
    let mut rest = &cursor.bytes[cursor.at..];
    let (all, mut run, mut valid) = (rest, rest, true);
    for index in 0..count {
        let run_bytes = run.len() - rest.len();
        let text = split_string(&mut rest).ok_or_else(|| {
            let got = format!("string {index} passing the end of the file");
            cursor.corrupt(what, format!("{count} strings"), got)
        })?;
        if text.len() > SHORT {
            valid &= is_utf8(&run[..run_bytes]) && is_utf8(text);
            run = rest;
        }
    }
    valid &= is_utf8(&run[..run.len() - rest.len()]);
    cursor.at = cursor.bytes.len() - rest.len();
    if valid {
        return Ok(());
    }
    let mut rest = all;
    let mut texts = std::iter::from_fn(|| split_string(&mut rest)).take(count);
    let index = texts.position(|text| !is_utf8(text)).unwrap_or(count);
    Err(cursor.corrupt(
        what,
        "UTF-8",
        format!("other bytes in string {index} of {count}"),
    ))
}

fn is_utf8(bytes: &[u8]) -> bool {
    is_narrow_utf8(bytes) || std::str::from_utf8(bytes).is_ok()
}

/// Whether `bytes` are characters of one or two bytes, as those of GPT-2's byte alphabet are. No branches: the compiler makes vectors of it.
fn is_narrow_utf8(bytes: &[u8]) -> bool {
    let leads = |byte: u8| (0xc2..=0xdf).contains(&byte);
    let continues = |byte: u8| byte & 0xc0 == 0x80;
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return true;
    };
    let neighbours = bytes.iter().zip(&bytes[1..]);
    let wrong = neighbours.fold(0, |wrong, (&a, &b)| {
        let known = b.is_ascii() | leads(b) | continues(b);
        wrong | u8::from(!known | (leads(a) != continues(b)))
    });
    wrong == 0 && (first.is_ascii() || leads(first)) && !leads(last)
}

fn alignment(cursor: &Cursor<'_>, metadata: &Table) -> Result<u64> {
    const KEY: &str = "general.alignment";
    let Some(index) = metadata.by_key.get(KEY) else {
        return Ok(DEFAULT_ALIGNMENT.into());
    };
    let pair = &metadata.entries[*index];
    let expected = format!(
        "a u32 that is a power of two from {} to {}",
        ALIGNMENTS.start(),
        ALIGNMENTS.end()
    );
    let bad = |got| Error::BadKey {
        file: cursor.file.to_owned(),
        key: KEY.to_owned(),
        expected: expected.clone(),
        got,
    };
    let bytes = &cursor.bytes[pair.range.clone()];
    match <[u8; 4]>::try_from(bytes).map(u32::from_le_bytes) {
        Ok(alignment)
            if pair.kind == Kind::U32
                && alignment.is_power_of_two()
                && ALIGNMENTS.contains(&alignment) =>
        {
            Ok(alignment.into())
        }
        Ok(alignment) if pair.kind == Kind::U32 => Err(bad(alignment.to_string())),
        _ => Err(bad(pair.kind.to_string())),
    }
}

type Tensors = (Vec<Entry>, HashMap<Box<str>, usize>);

fn tensors(cursor: &mut Cursor<'_>, count: usize, alignment: u64) -> Result<Tensors> {
    let mut entries = Vec::with_capacity(count);
    let mut by_name = HashMap::with_capacity(count);
    let mut offsets = Vec::with_capacity(count); // (offset in the data, bytes)
    for index in 0..count {
        let name = cursor.name(&format!("name of tensor {index}"), MAX_TENSOR_NAME)?;
        let what = format!("tensor `{name}`");
        let shape = shape(cursor, &what)?;
        let id = cursor.u32(&what)?;
        let format = known_by_id(id).ok_or_else(|| Error::UnsupportedFormat {
            file: cursor.file.to_owned(),
            tensor: name.to_owned(),
            expected: names(),
            got: format!("number {id}"),
        })?;
        if !shape[0].is_multiple_of(format.block) {
            let expected = format!(
                "rows of a multiple of {} values for {}",
                format.block, format.name
            );
            return Err(cursor.corrupt(what, expected, shape[0].to_string()));
        }
        let bytes = shape
            .iter()
            .try_fold(1usize, |product, dimension| product.checked_mul(*dimension))
            .and_then(|values| format.bytes(values));
        let bytes = bytes.ok_or_else(|| {
            cursor.corrupt(
                &*what,
                "a size that this machine can address",
                format!("shape {shape:?}"),
            )
        })?;
        let offset = cursor.u64(&what)?;
        if !offset.is_multiple_of(alignment) {
            return Err(cursor.corrupt(
                what,
                format!("an offset that is a multiple of the alignment, {alignment}"),
                offset.to_string(),
            ));
        }
        if by_name.insert(name.into(), index).is_some() {
            return Err(cursor.corrupt(what, "each tensor name once", "a second one"));
        }
        offsets.push((offset, bytes));
        entries.push(Entry {
            name: name.into(),
            format,
            shape,
            range: 0..0,
        });
    }
    let data = (cursor.at as u64).next_multiple_of(alignment);
    for (entry, (offset, bytes)) in entries.iter_mut().zip(offsets) {
        entry.range = place(cursor, entry, data, offset, bytes)?;
    }
    no_overlaps(cursor, &entries)?;
    Ok((entries, by_name))
}

fn shape(cursor: &mut Cursor<'_>, what: &str) -> Result<Vec<usize>> {
    let dimensions = cursor.u32(what)?;
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        return Err(cursor.corrupt(
            what,
            format!("1 to {MAX_DIMENSIONS} dimensions"),
            dimensions.to_string(),
        ));
    }
    (0..dimensions)
        .map(|_| {
            let dimension = cursor.u64(what)?;
            let fits = usize::try_from(dimension)
                .ok()
                .filter(|dimension| *dimension > 0);
            fits.ok_or_else(|| cursor.corrupt(what, "dimensions from 1", dimension.to_string()))
        })
        .collect()
}

/// Where a tensor lies in the file, if it does.
fn place(
    cursor: &Cursor<'_>,
    entry: &Entry,
    data: u64,
    offset: u64,
    bytes: usize,
) -> Result<Range<usize>> {
    let start = data.checked_add(offset);
    let end = start.and_then(|start| start.checked_add(bytes as u64));
    let size = cursor.bytes.len();
    match (start, end) {
        (Some(start), Some(end)) if end <= size as u64 => Ok(start as usize..end as usize),
        _ => {
            let expected =
                format!("{bytes} bytes at offset {offset} of the data, which begins at {data}");
            let got = format!("a file of {size} bytes: it is cut short, or the offset is wrong");
            Err(cursor.corrupt(format!("tensor `{}`", entry.name), expected, got))
        }
    }
}

fn no_overlaps(cursor: &Cursor<'_>, entries: &[Entry]) -> Result<()> {
    let mut order: Vec<&Entry> = entries.iter().collect();
    order.sort_unstable_by_key(|entry| entry.range.start);
    for pair in order.windows(2) {
        if pair[0].range.end > pair[1].range.start {
            let expected = format!(
                "its data from byte {}, where tensor `{}` ends",
                pair[0].range.end, pair[0].name
            );
            return Err(cursor.corrupt(
                format!("tensor `{}`", pair[1].name),
                expected,
                format!("byte {}", pair[1].range.start),
            ));
        }
    }
    Ok(())
}
