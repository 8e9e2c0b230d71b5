//! An initramfs: files in the `newc` form of cpio.

use std::io::{self, Write};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// Writes one archive. Folders must come before what lies in them.
pub struct Archive<W> {
    to: W,
    number: u32,
}

impl<W: Write> Archive<W> {
    pub fn new(to: W) -> Self {
        Self { to, number: 0 }
    }

    pub fn folder(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, FOLDER, &[])
    }

    /// Everybody may read and run it.
    pub fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.entry(name, PROGRAM, content)
    }

    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.to)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.number += 1;
        let size =
            u32::try_from(content.len()).map_err(|_| io::Error::other(format!("{name} is too large")))?;
        // Magic; inode, mode, uid, gid, links, mtime, size, device (2), its own device (2), name with NUL, check.
        let header = [self.number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        write!(self.to, "070701")?;
        for field in header {
            write!(self.to, "{field:08x}")?;
        }
        self.to.write_all(name.as_bytes())?;
        self.to.write_all(&[0])?;
        pad(&mut self.to, 110 + name.len() + 1)?;
        self.to.write_all(content)?;
        pad(&mut self.to, content.len())
    }
}

/// To a multiple of four.
fn pad(to: &mut impl Write, written: usize) -> io::Result<()> {
    to.write_all(&[0; 3][..written.wrapping_neg() & 3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_as_cpio_reads_it() {
        let mut archive = Archive::new(Vec::new());
        archive.folder("a").expect("memory takes it");
        archive.file("a/b", b"hello").expect("memory takes it");
        let bytes = archive.finish().expect("memory takes it");
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).expect("it holds nothing but text");
        assert!(text.starts_with("07070100000001000041ed"), "{text}");
        let file = text.find("a/b\0").expect("its name");
        assert_eq!(&text[file..file + 16], "a/b\0\0\0hello\0\0\x0007");
        assert!(text.ends_with("TRAILER!!!\0\0\0\0"), "{text}");
    }
}
