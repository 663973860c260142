//! One run, one folder.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The lock of an output folder, held as long as this lives. The system releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock(#[expect(dead_code, reason = "the lock is on the open file")] File);

/// Its file: empty, or the number of the process that holds it or held it last.
const NAME: &str = ".lock";

impl FolderLock {
    /// Makes the folder if it is missing, and takes its lock.
    ///
    /// # Errors
    /// When another process, which it names, has the lock, or the disk refuses.
    pub fn take(folder: &Path) -> Result<FolderLock> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(NAME);
        let doing = || format!("cannot lock {}", path.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).with_context(doing)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Where it cannot be read, the message does without.
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    number => format!("process {number}"),
                };
                bail!(
                    "{}: {holder} is writing its results there: wait until it has finished, stop it, or name another folder",
                    folder.display()
                );
            }
            // A file system without locks: as good as it gets.
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(error).with_context(doing),
        }
        file.set_len(0).with_context(doing)?;
        writeln!(file, "{}", std::process::id()).with_context(doing)?;
        Ok(FolderLock(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead as _;
    use std::process::{Command, Stdio};

    #[test]
    fn one_run_has_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let lock = FolderLock::take(&out).unwrap();
        let message = FolderLock::take(&out).unwrap_err().to_string();
        let own = format!("process {}", std::process::id());
        assert!(
            message.contains(&own) && message.contains("out"),
            "{message}"
        );
        FolderLock::take(&folder.path().join("other")).unwrap();
        drop(lock);
        FolderLock::take(&out).unwrap();
    }

    /// This test runs itself in another process, which it kills.
    #[test]
    fn a_killed_process_has_no_lock() {
        const FOLDER: &str = "DRAM_TEST_LOCK";
        if let Some(folder) = std::env::var_os(FOLDER) {
            let _lock = FolderLock::take(Path::new(&folder)).unwrap();
            println!("locked");
            std::thread::sleep(std::time::Duration::from_secs(60));
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "lock::tests::a_killed_process_has_no_lock",
                "--nocapture",
            ])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(
            lines
                .map_while(Result::ok)
                .any(|line| line.contains("locked"))
        );
        let message = FolderLock::take(folder.path()).unwrap_err().to_string();
        assert!(
            message.contains(&format!("process {}", child.id())),
            "{message}"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        FolderLock::take(folder.path()).unwrap();
    }
}
