//! Files that change while they are open: an error, and the process lives.
#![cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]

mod common;

use common::{Random, Shape};
use dram_core::{
    Adapter, Error, Event, Model, Prompt, Request, Session, SessionOptions, Speculation,
};
use std::fs::{self, OpenOptions};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const PAGE: u64 = 4096;

fn options() -> SessionOptions {
    SessionOptions {
        threads: Some(2),
        ..SessionOptions::default()
    }
}

fn file(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn truncate(path: &Path, length: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}

fn generate(session: &mut Session, on_piece: &mut dyn FnMut()) -> Result<usize, Error> {
    let request = Request {
        max_tokens: 12,
        ..Request::new(Prompt::Text("once upon a time".into()))
    };
    let made = session.generate(&request, &mut |event| {
        if let Event::Piece { .. } = event {
            on_piece();
        }
        ControlFlow::Continue(())
    });
    made.map(|completion| completion.tokens.len())
}

fn is_changed<T>(result: Result<T, Error>, fragment: &str) {
    match result {
        Err(error @ Error::FileChanged { .. }) => {
            let message = error.to_string();
            assert!(message.contains(fragment), "{message:?} lacks {fragment:?}");
        }
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("no error"),
    }
}

/// A model inside another file, at any place in it.
#[test]
fn a_part_of_a_file_is_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = Random::new(Shape::default()).to_gguf();
    let whole = Model::open(file(&folder, "whole.gguf", &bytes)).unwrap();
    let (before, after) = (vec![1; 3 * PAGE as usize + 7], [2; 100]);
    let path = file(&folder, "package", &[&before[..], &bytes, &after].concat());
    let (offset, length) = (before.len() as u64, bytes.len() as u64);
    let open = |offset, length| {
        let file = fs::File::open(&path).unwrap();
        Model::open_at("package", file, offset, length, &Default::default())
    };
    let part = open(offset, length).unwrap();
    let ids = [3, 1, 4, 1, 5];
    let [mut a, mut b] = [&whole, &part].map(|model| model.session(options()).unwrap());
    assert!(a.prefill(&ids).unwrap() == b.prefill(&ids).unwrap());
    assert_eq!(part.memory(options()).mapped, length);

    let end = offset + length + after.len() as u64;
    for (offset, length) in [(offset, end), (end + 1, 0), (u64::MAX, 2), (1, u64::MAX)] {
        let error = open(offset, length).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{end} bytes of the file")),
            "{error}"
        );
    }
    for (offset, length) in [(offset, 0), (0, length), (end, 0)] {
        assert!(matches!(open(offset, length), Err(Error::NotGguf { .. })));
    }
    let error = open(offset, length - PAGE).unwrap_err();
    assert!(error.to_string().contains("package"), "{error}");

    truncate(&path, offset + PAGE);
    is_changed(generate(&mut b, &mut || {}), "bytes instead of");
}

/// Every way in which a request begins.
#[test]
fn a_change_is_noticed_before_each_request() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = Random::new(Shape::default()).to_gguf();
    let saved = folder.path().join("saved");
    type Change = fn(&Path, &[u8]);
    let changes: [(Change, &str); 4] = [
        (|path, _| truncate(path, PAGE), "4096 bytes instead of"),
        (
            |path, bytes| {
                truncate(path, 0);
                fs::write(path, [bytes, b"more"].concat()).unwrap();
            },
            "bytes instead of",
        ),
        (
            |path, bytes| {
                std::thread::sleep(std::time::Duration::from_millis(20)); // a file system's clock ticks
                fs::write(path, bytes).unwrap();
            },
            "written to",
        ),
        (
            |path, bytes| {
                let other = path.with_extension("new");
                fs::write(&other, bytes).unwrap();
                fs::rename(other, path).unwrap();
            },
            "another file in its place",
        ),
    ];
    for (change, fragment) in changes {
        let path = file(&folder, "model.gguf", &bytes);
        let model = Model::open(&path).unwrap();
        let mut session = model.session(options()).unwrap();
        session.prefill(&[1, 2]).unwrap();
        session.save(&saved).unwrap();
        change(&path, &bytes);
        is_changed(session.decode(3).map(<[f32]>::to_vec), fragment);
        is_changed(session.evaluate(&[1], &mut |_, _| ()), fragment);
        is_changed(generate(&mut session, &mut || ()), fragment);
        is_changed(session.save(&saved), fragment);
        is_changed(session.restore(&saved), fragment);
        assert_eq!(session.tokens(), [1, 2]);
    }
    // A file that was removed is still there for its map.
    let path = file(&folder, "model.gguf", &bytes);
    let mut session = Model::open(&path).unwrap().session(options()).unwrap();
    fs::remove_file(&path).unwrap();
    generate(&mut session, &mut || ()).unwrap();
}

/// An emulator has its own way with signals, and cannot start this program by its name.
fn is_emulated() -> bool {
    let is = std::env::var_os("DRAM_EMULATED").is_some();
    if is {
        println!("not run under emulation");
    }
    is
}

/// Weights that are gone in the middle of a request: without the handler the process would end here.
#[test]
fn a_fault_in_a_map_ends_the_request_and_not_the_process() {
    if is_emulated() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let random = Random::new(Shape::default());
    let bytes = random.to_gguf();
    assert!(bytes.len() as u64 > 4 * PAGE);
    let open = |name: &str| {
        let path = file(&folder, name, &bytes);
        (Model::open(&path).unwrap(), path)
    };
    let (sound, _) = open("sound.gguf");
    let mut beside = sound.session(options()).unwrap();
    let whole = generate(&mut beside, &mut || ()).unwrap();
    assert!(whole > 2);

    let (model, path) = open("model.gguf");
    let mut session = model.session(options()).unwrap();
    is_changed(
        generate(&mut session, &mut || truncate(&path, PAGE)),
        "model.gguf",
    );
    is_changed(generate(&mut session, &mut || ()), "model.gguf");
    // Also once the file has its length again.
    fs::write(&path, &bytes).unwrap();
    is_changed(generate(&mut session, &mut || ()), "model.gguf");

    // An adapter's file.
    let path = file(
        &folder,
        "adapter.gguf",
        &common::gguf::adapter(&random, 4, "f32"),
    );
    let adapter: Adapter = sound.adapter(&path).unwrap();
    let mut session = sound.session(options()).unwrap();
    session.set_adapters(&[(adapter, 1.0)]).unwrap();
    is_changed(
        generate(&mut session, &mut || truncate(&path, 8)),
        "adapter.gguf",
    );

    // A draft model's, before the next request: drafts are few where they do not pay.
    let (draft, path) = open("draft.gguf");
    let mut session = sound.session(options()).unwrap();
    session.set_speculation(&Speculation::draft(draft)).unwrap();
    generate(&mut session, &mut || ()).unwrap();
    truncate(&path, PAGE);
    is_changed(generate(&mut session, &mut || ()), "draft.gguf");

    // Nobody else suffers.
    assert_eq!(generate(&mut beside, &mut || ()).unwrap(), whole);
}

#[test]
fn an_encoder_notices_too() {
    let folder = tempfile::tempdir().unwrap();
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families");
    let bytes = fs::read(families.join("bert-cls.gguf")).unwrap();
    let path = file(&folder, "bert.gguf", &bytes);
    let mut encoder = Model::open(&path).unwrap().encoder(options()).unwrap();
    encoder.embed(&[2, 3]).unwrap();
    truncate(&path, 64);
    is_changed(encoder.embed(&[2, 3]), "64 bytes instead of");
}

/// Faults outside the maps are what they were: the end by the signal, or a handler that was there before. This test runs itself in other processes.
#[test]
fn other_faults_are_passed_on() {
    const ROLE: &str = "DRAM_TEST_FAULT";
    if let Ok(role) = std::env::var(ROLE) {
        extern "C" fn handler(_: libc::c_int) {
            // SAFETY: it may be called in a handler.
            unsafe { libc::_exit(42) }
        }
        if role == "handler" {
            let handler = handler as extern "C" fn(libc::c_int) as usize;
            // SAFETY: a handler of the kind that `signal` takes.
            unsafe { libc::signal(libc::SIGBUS, handler) };
        }
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder, "m.gguf", &Random::new(Shape::default()).to_gguf());
        let _model = Model::open(&path).unwrap();
        let other = file(&folder, "other", &[1; 8192]);
        let open = fs::File::open(&other).unwrap();
        // SAFETY: only the map's end is missing when it is read, which is what this is about.
        let map = unsafe { memmap2::Mmap::map(&open) }.unwrap();
        truncate(&other, 0);
        if role == "sent" {
            // SAFETY: no conditions.
            unsafe { libc::raise(libc::SIGBUS) };
        }
        println!("{}", std::hint::black_box(&map)[5000]);
        std::process::exit(0);
    }
    if is_emulated() {
        return;
    }
    for (role, code, signal) in [
        ("default", None, Some(libc::SIGBUS)),
        ("sent", None, Some(libc::SIGBUS)),
        ("handler", Some(42), None),
    ] {
        use std::os::unix::process::ExitStatusExt;
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "other_faults_are_passed_on"])
            .env(ROLE, role)
            .output()
            .unwrap()
            .status;
        assert_eq!((status.code(), status.signal()), (code, signal), "{role}");
    }
}
