//! A file of lines of JSON that grows by one line at a time, each on disk before the next, and none of them in part.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::Serialize;

/// The file, open for more lines.
#[derive(Debug)]
pub(crate) struct AppendLog {
    file: File,
    /// Of its whole lines, in bytes.
    length: u64,
}

impl AppendLog {
    /// Opens or makes the file at `path`, with its folders, and gives its lines. A last line that a killed program left
    /// incomplete is cut off. Whoever shares a folder may have put a link there: what it leads to is not touched.
    ///
    /// # Errors
    /// Whatever the file system answers, and where it is a link.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<u8>)> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
            let reason = "it is a link, and must be a file: put the file itself in its place";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        text.truncate(text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        let mut log = Self {
            file,
            length: text.len() as u64,
        };
        log.cut()?;
        Ok((log, text))
    }

    /// Adds a line and sees that it is on disk. Where that fails, a full disk for example, nothing of it remains.
    ///
    /// # Errors
    /// Whatever the file system answers.
    pub fn append(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut json = serde_json::to_vec(line)?;
        json.push(b'\n');
        // Once more, for what an earlier failure could not cut off.
        self.cut()?;
        let written = self.file.write_all(&json).and_then(|()| self.file.sync_data());
        if written.is_err() {
            let _ = self.cut();
        } else {
            self.length += json.len() as u64;
        }
        written
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length)).map(drop)
    }
}

/// The lines of a log with their numbers, from 1.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let lines = text.split(|byte| *byte == b'\n').zip(1..);
    lines
        .filter(|(line, _)| !line.is_empty())
        .map(|(line, number)| (number, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_short_is_not_continued() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/log.jsonl");
        let (mut log, text) = AppendLog::open(&path).expect("new");
        assert!(text.is_empty());
        log.append(&1).expect("a line");
        // As a full disk leaves it, once below the open log and once before it is opened.
        let cut_short = || {
            let mut file = OpenOptions::new().append(true).open(&path).expect("a log");
            file.write_all(b"{\"a\":").expect("a part of a line");
        };
        cut_short();
        log.append(&2).expect("a line");
        drop(log);
        cut_short();
        let (mut log, text) = AppendLog::open(&path).expect("there");
        assert_eq!(lines(&text).collect::<Vec<_>>(), [(1, &b"1"[..]), (2, &b"2"[..])]);
        log.append(&3).expect("a line");
        assert_eq!(fs::read(&path).expect("a log"), b"1\n2\n3\n");
    }

    #[cfg(unix)]
    #[test]
    fn the_file_behind_a_link_is_not_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let (secret, link) = (folder.path().join("secret"), folder.path().join("log.jsonl"));
        fs::write(&secret, "no line").expect("written");
        std::os::unix::fs::symlink(&secret, &link).expect("a link");
        assert!(AppendLog::open(&link).is_err());
        assert_eq!(fs::read(&secret).expect("there"), b"no line");
    }
}
