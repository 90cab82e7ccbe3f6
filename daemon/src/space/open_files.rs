//! Which files some process has open or mapped, as Linux says in `/proc`.
//!
//! Seen are the processes of this machine that the daemon may look at: all for root, those of its own user else. What is
//! open on other hosts, over NFS or SMB, nobody sees; the times of access speak for those.

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt as _, path::Path};

/// The files that were open when somebody looked, by device and inode.
#[derive(Debug, Default)]
pub(super) struct OpenFiles(HashSet<(u64, u64)>);

impl OpenFiles {
    /// Looks at all processes but this one. Blocks.
    pub(super) fn look() -> Self {
        let mut open = Self::default();
        open.look_at(Path::new("/proc"), std::process::id());
        open
    }

    /// Says whether a file is open.
    pub(super) fn contains(&self, device: u64, inode: u64) -> bool {
        self.0.contains(&(device, inode))
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
            // Pipes and sockets have no path; stat of one that has, on a dead network mount, would wait: the path of such a
            // descriptor is looked at only when it is no device or proc file.
            let target = fs::read_link(entry.path()).unwrap_or_default();
            if target.is_absolute()
                && !target.starts_with("/dev")
                && !target.starts_with("/proc")
                && let Ok(metadata) = fs::metadata(entry.path())
                && metadata.is_file()
            {
                self.0.insert((metadata.dev(), metadata.ino()));
            }
        }
    }

    /// A file that is mapped may have been closed. The text has the path; device and inode are asked for anew, because
    /// some file systems write others here.
    fn look_at_mappings(&mut self, process: &Path) {
        let text = fs::read_to_string(process.join("maps")).unwrap_or_default();
        let paths: HashSet<&str> = text.lines().filter_map(|line| line.get(line.find('/')?..)).collect();
        for path in paths.into_iter().filter(|path| !path.starts_with("/dev/")) {
            if let Ok(metadata) = fs::metadata(path) {
                self.0.insert((metadata.dev(), metadata.ino()));
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
        fs::write(&path, b"a").unwrap();
        let stat = fs::metadata(&path).unwrap();
        let is_open = || OpenFiles::look().contains(stat.dev(), stat.ino());
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
