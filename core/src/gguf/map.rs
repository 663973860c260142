//! A map of a file, and whether the file is still what it was when it was mapped.

use super::faults::Watch;
use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file's bytes, mapped. The file stays open.
pub(super) struct Map {
    // Before `map`: a watch must not outlive what it watches.
    watch: Watch,
    map: memmap2::Mmap,
    file: File,
    /// Where it lay, from the root.
    path: Option<PathBuf>,
    state: State,
}

/// What tells a file from another one, and from itself after a change.
#[derive(PartialEq)]
struct State {
    length: u64,
    modified: Option<SystemTime>,
    /// The device and its number of the file, where the system has such.
    identity: Option<(u64, u64)>,
}

impl State {
    fn of(is: &Metadata) -> State {
        #[cfg(unix)]
        let identity = {
            use std::os::unix::fs::MetadataExt;
            Some((is.dev(), is.ino()))
        };
        #[cfg(not(unix))]
        let identity = None;
        State {
            length: is.len(),
            modified: is.modified().ok(),
            identity,
        }
    }
}

impl Map {
    /// Maps these bytes of `file`, which must hold them and be some; it lies at `path`, where that is known.
    pub(super) fn new(file: File, path: Option<&Path>, bytes: Range<u64>) -> io::Result<Map> {
        let state = State::of(&file.metadata()?);
        let length = usize::try_from(bytes.end - bytes.start)
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut part = memmap2::MmapOptions::new();
        part.offset(bytes.start).len(length);
        // SAFETY: the map is read-only. That its file is not changed while it is open is outside what a process can ensure: the doc comment asks
        // for it, every offset is checked against the length at the time of mapping, text is checked again when it is read, every bit pattern is a
        // number, and a page that is gone is marked by the watch.
        let map = unsafe { part.map(&file) }?;
        ask_for_huge_pages(&map);
        Ok(Map {
            watch: Watch::new(&map),
            map,
            file,
            path: path.and_then(|path| std::path::absolute(path).ok()),
            state,
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Whether something that was read was not the file: a load of an atomic number.
    pub(super) fn faulted(&self) -> bool {
        self.watch.faulted()
    }

    /// What happened to the file, if something did: it or what lies at its path is looked at. One that was removed is still there for its map.
    pub(super) fn change(&self) -> Option<String> {
        if self.faulted() {
            return Some("one that could not be read to its end".into());
        }
        let now = self.file.metadata().map(|is| State::of(&is)).ok()?;
        let (length, before) = (now.length, self.state.length);
        if length != before {
            return Some(format!("{length} bytes instead of {before}"));
        }
        if now != self.state {
            return Some("one that was written to".into());
        }
        let there = self.path.as_deref()?.metadata().ok()?;
        let is_other = State::of(&there).identity != self.state.identity;
        is_other.then(|| "another file in its place".into())
    }
}

/// Asks for pages of 2 MB, with which weights are read faster: a processor knows the addresses of few pages at a time. Where the file system caches
/// files in such pages (ext4 since Linux 6.16, XFS), a file that is not in memory yet is then read and mapped so, which takes no more memory; elsewhere
/// nothing changes.
fn ask_for_huge_pages(map: &memmap2::Mmap) {
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage); // a kernel without them says so
    #[cfg(not(target_os = "linux"))]
    let _ = map;
}
