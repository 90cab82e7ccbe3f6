//! A limit on the memory of daemons: a control group of the first version, which the machine must have and only root can make.

use std::{fs, io, path::PathBuf};

/// A group with a limit; gone when it is dropped, by when its processes must have ended.
#[derive(Debug)]
pub struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    /// Makes a group whose processes have so much memory together, page cache included.
    ///
    /// # Errors
    /// Without control groups of the first version, or without root.
    #[expect(clippy::disallowed_methods, reason = "this is a knob of the kernel and no file")]
    pub fn new(limit_mib: u64) -> io::Result<Self> {
        let dir = PathBuf::from(format!("/sys/fs/cgroup/memory/avalon-tests-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let group = Self { dir };
        fs::write(group.dir.join("memory.limit_in_bytes"), format!("{}", limit_mib << 20))?;
        Ok(group)
    }

    /// Returns what enters the group and becomes the program that follows.
    pub fn launcher(&self) -> Vec<String> {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", self.dir.display());
        ["sh".to_owned(), "-c".to_owned(), enter].into()
    }

    /// Returns the most that was used, page cache included, and how often the limit was met.
    pub fn peak(&self) -> (u64, u64) {
        let read = |name: &str| {
            let text = fs::read_to_string(self.dir.join(name)).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        (read("memory.max_usage_in_bytes"), read("memory.failcnt"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.dir) {
            eprintln!("{} stays: {error}", self.dir.display());
        }
    }
}
