//! What the targets share: small valid models, a scratch folder in memory, and mutation of a GGUF file's header with its data kept in place.
//!
//! A target reads its input as outside data, uses what was accepted, and fails by panicking, by taking two seconds or by taking 1 GB.

use dram_core::gguf::File;
use dram_core::{Model, OpenOptions, Session, SessionOptions};
use dram_tests::gguf::Gguf;
use dram_tests::toy::Shape;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A llama of one layer with a byte-level BPE tokenizer.
pub fn toy() -> Gguf {
    Shape {
        width: 32,
        ffn: 64,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        ..Shape::default()
    }
    .gguf()
}

/// The same, opened, once for the process.
pub fn toy_model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        let file = File::from_bytes("toy.gguf", toy().bytes()).expect("the toy model is valid");
        let template = "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools }}";
        let options = OpenOptions {
            chat_template: Some(template.into()),
            ..OpenOptions::default()
        };
        Model::from_gguf(file, &options).expect("the toy model opens")
    })
}

/// A session as small as the model allows, on the caller's thread alone.
pub fn session(model: &Model, context: usize) -> Option<Session> {
    let context = context.min(model.config().context_length);
    let options = SessionOptions {
        context: Some(context),
        threads: Some(1),
        ..SessionOptions::default()
    };
    model.session(options).ok()
}

/// A file of this process for what is only read by path; in memory where the system has such a folder.
pub fn scratch(name: &str) -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        tempfile::Builder::new()
            .prefix("dram-fuzz")
            .tempdir_in(parent)
            .expect("a scratch folder")
    });
    folder.path().join(name)
}

/// Splits an input into `N` parts at a separator that the seeds write too.
pub fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut rest = data;
    std::array::from_fn(|i| {
        let at = (i + 1 < N)
            .then(|| rest.windows(SEPARATOR.len()).position(|w| w == SEPARATOR))
            .flatten();
        let (part, after) = match at {
            Some(at) => (&rest[..at], &rest[at + SEPARATOR.len()..]),
            None => (rest, &[][..]),
        };
        rest = after;
        part
    })
}

/// Between the parts of an input that is several files.
pub const SEPARATOR: &[u8] = b"\n\0---\0\n";

/// A GGUF's header ends here: mutating it alone, and putting the data behind it again where the alignment wants it, reaches what lies behind the
/// reader. `None` for bytes that are no GGUF file, which are mutated as they are.
pub fn data_start(bytes: &[u8]) -> Option<usize> {
    let file = File::from_bytes("seed", bytes).ok()?;
    file.tensors().map(|tensor| tensor.range().start).min()
}

/// Mutates `data[..size]` as a GGUF file; `mutate(buffer, length, room)` gives the new length.
pub fn mutate_gguf(
    data: &mut [u8],
    size: usize,
    seed: u32,
    mutate: impl Fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let room = data.len();
    let Some(start) = data_start(&data[..size]).filter(|_| !seed.is_multiple_of(8)) else {
        return mutate(data, size, room);
    };
    let tail = data[start..size].to_vec();
    let mut header = vec![0; (start + 256).min(room)];
    let kept = start.min(header.len());
    header[..kept].copy_from_slice(&data[..kept]);
    let room_header = header.len();
    let length = mutate(&mut header, kept, room_header);
    let padded = length.next_multiple_of(32);
    let whole: Vec<u8> = header[..length]
        .iter()
        .copied()
        .chain(std::iter::repeat_n(0, padded - length))
        .chain(tail)
        .take(room)
        .collect();
    data[..whole.len()].copy_from_slice(&whole);
    whole.len()
}
