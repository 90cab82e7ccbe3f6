//! Which files some process has open or mapped, as Linux says in `/proc`.
//!
//! Seen are the processes of this machine that the daemon may look at: all for root, those of its own user else. What is
//! open on other hosts, over NFS or SMB, nobody sees; the times of access speak for those.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use avalon_protocol::rel_path::RelPath;
use avalon_store::fs::FileStat;

/// What was open when somebody looked: paths that lead to the files, by the names of these. Which file it is is asked only
/// for a name that matters: an open file on a dead network mount would keep whoever asks waiting.
#[derive(Debug, Default)]
pub(super) struct OpenFiles(HashMap<OsString, Vec<PathBuf>>);

impl OpenFiles {
    /// Looks at all processes but this one. Blocks.
    pub(super) fn look() -> Self {
        let mut open = Self::default();
        open.look_at(Path::new("/proc"), std::process::id());
        open
    }

    /// Says whether a file is open.
    pub(super) fn contains(&self, path: &RelPath, stat: &FileStat) -> bool {
        let is_it = |at: &PathBuf| {
            fs::metadata(at).is_ok_and(|open| (open.dev(), open.ino()) == (stat.device, stat.inode))
        };
        self.0.get(&OsString::from(path.file_name())).is_some_and(|paths| paths.iter().any(is_it))
    }

    fn look_at(&mut self, proc: &Path, own_pid: u32) {
        for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            if pid.is_some_and(|pid| pid != own_pid) {
                self.look_at_descriptors(&entry.path());
                self.look_at_mappings(&entry.path());
            }
        }
    }

    fn look_at_descriptors(&mut self, process: &Path) {
        for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            // Pipes and sockets have no path.
            let target = fs::read_link(entry.path()).unwrap_or_default();
            if let Some(name) = target.file_name().filter(|_| target.is_absolute()) {
                self.0.entry(name.to_owned()).or_default().push(entry.path());
            }
        }
    }

    /// A file that is mapped may have been closed.
    fn look_at_mappings(&mut self, process: &Path) {
        let text = fs::read_to_string(process.join("maps")).unwrap_or_default();
        let paths: HashSet<&str> = text.lines().filter_map(|line| line.get(line.find('/')?..)).collect();
        for path in paths.into_iter().map(Path::new) {
            if let Some(name) = path.file_name() {
                self.0.entry(name.to_owned()).or_default().push(path.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_file_that_another_process_reads_is_open_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.abc");
        drop(fs::File::create(&path).unwrap());
        let stat = FileStat::from(&fs::metadata(&path).unwrap());
        let is_open = || OpenFiles::look().contains(&"v001/a.abc".parse().unwrap(), &stat);
        let _own = fs::File::open(&path).unwrap();
        assert!(!is_open(), "this process does not count");
        let script = format!("exec 3<'{}'; echo open; read line", path.display());
        let mut reader = Command::new("sh");
        let mut reader =
            reader.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(reader.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(is_open());
        reader.stdin.take().unwrap().write_all(b"\n").unwrap();
        reader.wait().unwrap();
        assert!(!is_open());
    }
}
