//! Models that lie in several files, `NAME-00001-of-00003.gguf` and so on, as llama.cpp's `llama-gguf-split` writes them: the first has the metadata,
//! each some of the tensors.

use super::File;
use crate::{Error, Result};
use std::path::Path;

/// What a file says of itself.
struct Part {
    file: String,
    /// From 0.
    number: u32,
    count: u32,
}

impl Part {
    /// `None` where the file is a whole.
    fn of(file: &File) -> Result<Option<Part>> {
        let metadata = file.metadata();
        let count = metadata.opt_u32("split.count")?.unwrap_or(1);
        if count < 2 {
            return Ok(None);
        }
        let number = metadata.u32("split.no")?;
        Ok(Some(Part {
            file: file.name().to_owned(),
            number,
            count,
        }))
    }

    fn error(&self, expected: impl Into<String>, got: impl Into<String>) -> Error {
        Error::SplitFile {
            file: self.file.clone(),
            part: u64::from(self.number) + 1,
            count: self.count,
            expected: expected.into(),
            got: got.into(),
        }
    }

    /// What the name of part `number` ends in.
    fn ending(&self, number: u32) -> String {
        let (number, count) = (u64::from(number) + 1, self.count);
        format!("-{number:05}-of-{count:05}.gguf")
    }
}

/// Refuses a part where its other parts cannot be found.
pub(super) fn refuse(file: File) -> Result<File> {
    match Part::of(&file)? {
        None => Ok(file),
        Some(part) => Err(part.error("all parts on a disk", "this one alone")),
    }
}

/// The model that `file`, opened at `path`, is one part of; `file` itself where it is a whole. `open` opens one file.
pub(super) fn open_parts(
    file: File,
    path: &Path,
    open: impl Fn(&Path) -> Result<File>,
) -> Result<File> {
    let Some(part) = Part::of(&file)? else {
        return Ok(file);
    };
    let ending = part.ending(part.number);
    if part.number >= part.count {
        let expected = format!("`split.no` below {}", part.count);
        return Err(part.error(expected, part.number.to_string()));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(stem) = name.strip_suffix(&ending) else {
        let expected = format!("a name that ends in `{ending}`, beside the other parts");
        let got = format!(
            "`{name}`: give the parts their own names, or join them with llama.cpp's `llama-gguf-split --merge`"
        );
        return Err(part.error(expected, got));
    };
    let mut own = Some(file);
    let mut whole: Option<File> = None;
    for number in 0..part.count {
        let path = path.with_file_name(format!("{stem}{}", part.ending(number)));
        let next = match own.take() {
            Some(file) if number == part.number => file,
            other => {
                own = other;
                if !path.exists() {
                    let got = format!("no file {}", path.display());
                    return Err(part.error("all parts in one folder", got));
                }
                open(&path)?
            }
        };
        let is = Part::of(&next)?;
        if is.as_ref().map(|is| (is.number, is.count)) != Some((number, part.count)) {
            let expected = format!("part {} in {}", u64::from(number) + 1, path.display());
            let got = is.map_or("a whole file".into(), |is| {
                format!("part {} of {}", u64::from(is.number) + 1, is.count)
            });
            return Err(part.error(expected, got));
        }
        match &mut whole {
            None => whole = Some(next),
            Some(whole) => {
                if let Err(tensor) = whole.append(next) {
                    let got = format!("a second one in {}", path.display());
                    return Err(part.error(format!("tensor `{tensor}` in one part"), got));
                }
            }
        }
    }
    let Some(mut whole) = whole else {
        return Err(part.error("parts", "none"));
    };
    let tensors = whole.metadata().opt_u64("split.tensors.count")?;
    if tensors.is_some_and(|tensors| tensors != whole.tensors().len() as u64) {
        let expected = format!("{} tensors in all parts", tensors.unwrap_or_default());
        return Err(part.error(expected, whole.tensors().len().to_string()));
    }
    whole.name = part.file;
    Ok(whole)
}
