//! A log in a file, which begins anew when it is told to, or by itself.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Place, Stopped};
use crate::config::model::Rotate;

pub struct LogFile {
    file: File,
    path: PathBuf,
    rotate: Option<Rotate>,
    size: u64,
    begun: SystemTime,
}

impl LogFile {
    pub fn open(path: &Path, rotate: Option<Rotate>) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let metadata = file.metadata()?;
        // Not every file system knows when a file was made; one that was written an hour ago is an hour old at least.
        let begun = metadata.created().or_else(|_| metadata.modified())?;
        Ok(Self { file, path: path.to_owned(), rotate, size: metadata.len(), begun })
    }

    fn is_full(&self, more: usize) -> bool {
        let Some(Rotate { size, age, keep: _ }) = self.rotate else { return false };
        let too_large = size.is_some_and(|most| self.size + more as u64 > most);
        // A clock that was set back makes no file old.
        let too_old = age.is_some_and(|oldest| self.begun.elapsed().is_ok_and(|age| age >= oldest));
        self.size > 0 && (too_large || too_old)
    }

    fn rotate_if_full(&mut self, more: usize) {
        if self.is_full(more)
            && let Some(Rotate { keep, .. }) = self.rotate
            && let Err(error) = self.rotate(keep)
        {
            // Better a large file than lost lines. It is tried again when as much has been written.
            tracing::error!(path = %self.path.display(), %error, "the access log can't be rotated");
            (self.size, self.begun) = (0, SystemTime::now());
        }
    }

    /// Each old file makes room for the one before it; the oldest is overwritten.
    fn rotate(&mut self, keep: u32) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..keep).rev() {
            match std::fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, numbered(1))?;
        self.reopen()
    }
}

impl Place for LogFile {
    fn write(&mut self, lines: &[u8]) -> Result<(), Stopped> {
        self.rotate_if_full(lines.len());
        self.file.write_all(lines).map_err(|error| Stopped { done: 0, error })?;
        self.size += lines.len() as u64;
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        *self = Self::open(&self.path, self.rotate)?;
        Ok(())
    }

    fn rest(&mut self) {
        self.rotate_if_full(0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_old_file_is_put_away_also_when_nobody_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let day = Duration::from_secs(86_400);
        let mut log = LogFile::open(&path, Some(Rotate { size: None, age: Some(day), keep: 2 })).unwrap();
        log.write(b"yesterday\n").unwrap_or_else(|stopped| panic!("{:?}", stopped.error));
        log.rest();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "yesterday\n");
        log.begun -= day;
        log.rest();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        assert_eq!(std::fs::read_to_string(path.with_extension("log.1")).unwrap(), "yesterday\n");
        // An empty one is as good as a new one.
        log.begun -= day;
        log.rest();
        assert!(!path.with_extension("log.2").exists());
    }
}
