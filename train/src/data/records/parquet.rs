//! Parquet, row group by row group: a row becomes the JSON object that it would be as a line of JSON Lines.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use super::{Each, shapes};

/// The first bytes of a file.
pub(super) const MAGIC: &[u8] = b"PAR1";

pub(super) fn each(path: &Path, file: File, each: &mut Each<'_>) -> Result<()> {
    // The library's readers assert what they expect of a file's schema and levels.
    catch_unwind(AssertUnwindSafe(|| rows(path, file, each))).unwrap_or_else(|_| {
        bail!(
            "{}: a Parquet file that contradicts itself; it cannot be read",
            path.display()
        )
    })
}

fn rows(path: &Path, file: File, each: &mut Each<'_>) -> Result<()> {
    let broken = || format!("{}: not a readable Parquet file", path.display());
    let reader = SerializedFileReader::new(file).with_context(broken)?;
    let columns = known_columns(reader.metadata().file_metadata().schema())
        .with_context(|| path.display().to_string())?;
    let mut number = 0;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).with_context(broken)?;
        let rows = group
            .get_row_iter(Some(columns.clone()))
            .with_context(broken)?;
        for row in rows {
            number += 1;
            let row = row.with_context(|| format!("{}: row {number}", path.display()))?;
            each("row", number, &object(&row))?;
        }
    }
    Ok(())
}

/// The columns that records have; others, such as images, are not read.
fn known_columns(schema: &Type) -> Result<Type> {
    let all = schema.get_fields();
    let known: Vec<_> = all
        .iter()
        .filter(|column| shapes::is_known(column.name()))
        .cloned()
        .collect();
    if known.is_empty() {
        let names: Vec<&str> = all.iter().map(|column| column.name()).collect();
        bail!(shapes::unknown(&names));
    }
    for column in &known {
        ensure!(
            column.get_basic_info().has_repetition(),
            "column {}: expected a repetition",
            column.name()
        );
    }
    Ok(Type::group_type_builder(schema.name())
        .with_fields(known)
        .build()?)
}

/// A key that one row lacks and another has is null there: it is left out.
fn object(row: &Row) -> Value {
    let columns = row.get_column_iter();
    let present = columns.filter(|(_, field)| !matches!(field, Field::Null));
    let map: Map<String, Value> = present
        .map(|(name, field)| (name.clone(), value(field)))
        .collect();
    Value::Object(map)
}

fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(is) => Value::from(*is),
        Field::Byte(n) => Value::from(*n),
        Field::Short(n) => Value::from(*n),
        Field::Int(n) => Value::from(*n),
        Field::Long(n) => Value::from(*n),
        Field::UByte(n) => Value::from(*n),
        Field::UShort(n) => Value::from(*n),
        Field::UInt(n) => Value::from(*n),
        Field::ULong(n) => Value::from(*n),
        Field::Float(n) => Value::from(*n),
        Field::Double(n) => Value::from(*n),
        Field::Str(text) => Value::from(text.as_str()),
        // A text whose writer did not say that it is one.
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Value::from(text),
            Err(_) => Value::from(bytes.data().to_vec()),
        },
        Field::Group(row) => object(row),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::MapInternal(map) => {
            let entries = map.entries().iter();
            let present = entries.filter(|(_, field)| !matches!(field, Field::Null));
            let key = |field: &Field| match value(field) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            present
                .map(|(name, field)| (key(name), value(field)))
                .collect()
        }
        other => Value::from(other.to_string()),
    }
}
