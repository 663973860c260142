//! Files that are written whole or not at all.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Who may read a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its owner alone (mode 0600): it holds somebody's conversation.
    Private,
    /// Whoever the process lets read its files (its umask).
    Shared,
}

/// A file in the making. It lies beside `path` under a random name that nobody else has, and takes the place of what is there when it is committed;
/// dropped before, it is removed. So readers never see half of it, an error leaves the old file, and of several that are made at the same time the
/// last one that is committed stays.
///
/// It holds a lock on itself. Those that killed processes left behind, which nobody holds a lock on, are removed by the next one in the same folder.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    beside: PathBuf,
    path: PathBuf,
}

/// What the names of unfinished files begin and end with; 16 hexadecimal digits stand between.
const BEGIN: &str = ".dram-";
const END: &str = ".part";
/// Where the file system has no locks, an unfinished file of this age is nobody's.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
const ATTEMPTS: usize = 16;

impl NewFile {
    /// Begins a file that is to take the place of what is at `path`. A link there is replaced, not followed.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::InvalidInput`] where `path` is a folder, a device or a pipe.
    pub fn create(path: impl AsRef<Path>, access: Access) -> io::Result<NewFile> {
        let path = path.as_ref();
        if path.file_name().is_none() || path.metadata().is_ok_and(|is| !is.is_file()) {
            let message = "expected the path of a file, got that of a folder or a device";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let folder = folder_of(path);
        remove_abandoned(folder);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true); // which follows no link
        #[cfg(unix)]
        if access == Access::Private {
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        for _ in 0..ATTEMPTS {
            let number = RandomState::new().hash_one(std::process::id());
            let beside = folder.join(format!("{BEGIN}{number:016x}{END}"));
            let file = match options.open(&beside) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened?,
            };
            // Between its creation and its lock, another process may have taken it for an abandoned one.
            let is_locked = file.try_lock();
            if matches!(is_locked, Err(TryLockError::WouldBlock)) || !beside.exists() {
                continue;
            }
            return Ok(NewFile {
                file,
                beside,
                path: path.to_owned(),
            });
        }
        let message = format!("no free name in {}", folder.display());
        Err(io::Error::new(io::ErrorKind::AlreadyExists, message))
    }

    /// The open file, to write to.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Where it lies until it is committed, for writers that want a path.
    #[must_use]
    pub fn beside(&self) -> &Path {
        &self.beside
    }

    /// Waits until the disk has it, and gives it its name.
    ///
    /// # Errors
    /// What the system says; the old file is then untouched and the new one removed.
    pub fn commit(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.beside, &self.path)?;
        // Not every system lets a folder be synced; the rename stands anyway.
        #[cfg(unix)]
        let _ = File::open(folder_of(&self.path)).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // After a commit there is nothing under this name.
        let _ = fs::remove_file(&self.beside);
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Removes unfinished files that nobody holds a lock on. That one cannot be removed is no reason not to write another.
fn remove_abandoned(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let digits = name
            .to_str()
            .and_then(|name| name.strip_prefix(BEGIN)?.strip_suffix(END));
        let is_ours = digits.is_some_and(|digits| {
            digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let _ = remove_if_abandoned(&entry.path());
        }
    }
}

fn remove_if_abandoned(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let abandoned = match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(_)) => {
            let age = file.metadata()?.modified()?.elapsed();
            age.is_ok_and(|age| age > ABANDONED)
        }
    };
    if abandoned {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_last_one_that_is_committed_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut both = [1, 2].map(|_| NewFile::create(&path, Access::Shared).unwrap());
        for (new, text) in both.iter_mut().zip(["one", "two"]) {
            new.file().write_all(text.as_bytes()).unwrap();
        }
        let [one, two] = both;
        assert_ne!(one.beside(), two.beside());
        two.commit().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        one.commit().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        // One that is given up leaves what was there, and nothing else.
        let mut given_up = NewFile::create(&path, Access::Shared).unwrap();
        given_up.file().write_all(b"three").unwrap();
        drop(given_up);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn many_at_once_in_one_folder_never_mix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::thread::scope(|scope| {
            for digit in b'0'..b'8' {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..40 {
                        let mut new = NewFile::create(path, Access::Private).unwrap();
                        for _ in 0..8 {
                            new.file().write_all(&[digit; 512]).unwrap();
                        }
                        new.commit().unwrap();
                        let read = fs::read(path).unwrap();
                        assert!(read.len() == 4096 && read.iter().all(|byte| *byte == read[0]));
                    }
                });
            }
        });
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn what_killed_processes_left_is_removed_and_what_others_write_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let kept = [".dram-0123.part", ".dram-00112233445566zz.part", "a.part"];
        for name in kept.into_iter().chain([".dram-00112233445566aa.part"]) {
            fs::write(at(name), "half").unwrap();
        }
        let other = NewFile::create(at("other"), Access::Shared).unwrap();
        let own = NewFile::create(at("own"), Access::Shared).unwrap();
        own.commit().unwrap();
        assert!(other.beside().exists());
        other.commit().unwrap();
        let mut expected = [&kept[..], &["other", "own"]].concat();
        expected.sort_unstable();
        assert_eq!(names(folder.path()), expected);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_replaced_and_private_files_are_private() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (victim, path) = (folder.path().join("victim"), folder.path().join("file"));
        fs::write(&victim, "untouched").unwrap();
        symlink(&victim, &path).unwrap();
        let mut new = NewFile::create(&path, Access::Private).unwrap();
        new.file().write_all(b"new").unwrap();
        new.commit().unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        let is = fs::symlink_metadata(&path).unwrap();
        assert!(is.is_file() && is.permissions().mode() & 0o777 == 0o600);
        let errors = [folder.path(), Path::new("/dev/null"), Path::new("..")];
        for path in errors {
            assert!(NewFile::create(path, Access::Shared).is_err());
        }
    }
}
