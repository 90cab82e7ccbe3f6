//! Which files a process holds open for writing, as Linux says in `/proc`.
//!
//! It completes the quiet period: a program that computes for minutes between two frames of one file writes nothing then,
//! and is not done. What other users' processes have open is only seen by a daemon that may look at them, and on other
//! systems nothing is; then the other signals decide.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
};

use avalon_protocol::settle::SeenFile;

/// How old an answer may be. Whoever opened a file since then changes something, and that is noticed by other means.
const FRESH_MS: u64 = 250;

/// How often it is looked again for somebody who waits.
const FURTHER_LOOKS: usize = 6;

/// The bits of `flags` in `/proc/PID/fdinfo/FD` that say how a file is open; zero is for reading only.
const ACCESS_MODE: u32 = 0o3;

/// Remembers for a moment what processes have open: the first scan of a large project asks for every version.
#[derive(Debug, Default)]
pub(super) struct Writers {
    seen: Mutex<Option<Seen>>,
}

#[derive(Debug)]
struct Seen {
    at_ms: u64,
    /// Name and inode of every file that is open for writing.
    open: HashSet<(OsString, u64)>,
    /// Whether no process was hidden from us.
    is_all: bool,
}

impl Writers {
    /// Says whether a process holds one of these files open for writing; `None` when the system cannot say. Blocks.
    pub(super) fn hold(&self, files: &[SeenFile], now_ms: u64) -> Option<bool> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let age_ms = seen.as_ref().map(|seen| now_ms.saturating_sub(seen.at_ms));
        // Who has just closed a file and publishes it is not told that it is open.
        let says_yes = |seen: &Option<Seen>| seen.as_ref().is_some_and(|seen| seen.has_any(files));
        if age_ms.is_none_or(|age_ms| age_ms > FRESH_MS) || says_yes(&seen) {
            *seen = look(Path::new("/proc"), std::process::id(), now_ms).ok();
        }
        let seen = seen.as_ref()?;
        if seen.has_any(files) {
            return Some(true);
        }
        seen.is_all.then_some(false)
    }

    /// As [`Writers::hold`], for somebody who waits for the answer: a program that starts another one gives it all its files for a moment,
    /// until the other one runs. `pause` is called before each further look. Blocks.
    pub(super) fn still_hold(
        &self,
        files: &[SeenFile],
        now_ms: u64,
        mut pause: impl FnMut(),
    ) -> Option<bool> {
        let mut answer = self.hold(files, now_ms);
        for _ in 0..FURTHER_LOOKS {
            if answer != Some(true) {
                break;
            }
            pause();
            answer = self.hold(files, now_ms);
        }
        answer
    }
}

impl Seen {
    fn has_any(&self, files: &[SeenFile]) -> bool {
        files.iter().any(|file| self.open.contains(&(file.path.file_name().into(), file.inode)))
    }
}

/// Looks at the open files of all processes but this one.
fn look(proc: &Path, own_pid: u32, now_ms: u64) -> io::Result<Seen> {
    let mut seen = Seen { at_ms: now_ms, open: HashSet::new(), is_all: true };
    for entry in fs::read_dir(proc)? {
        let Ok(entry) = entry else { continue };
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        if pid.is_none_or(|pid| pid == own_pid) {
            continue;
        }
        match open_of(&entry.path(), &mut seen.open) {
            // It ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => seen.is_all = false,
            Ok(()) => {}
        }
    }
    Ok(seen)
}

fn open_of(process: &Path, open: &mut HashSet<(OsString, u64)>) -> io::Result<()> {
    for entry in fs::read_dir(process.join("fd"))? {
        let Ok(entry) = entry else { continue };
        let fd = entry.path();
        // Pipes and sockets have no path. The flags come before stat, which a dead network mount would hold up.
        let Ok(target) = fs::read_link(&fd) else { continue };
        let Some(name) = target.file_name().filter(|_| target.is_absolute()) else { continue };
        if !is_for_writing(&process.join("fdinfo").join(entry.file_name())) {
            continue;
        }
        if let Ok(metadata) = fs::metadata(&fd)
            && metadata.is_file()
        {
            open.insert((name.to_owned(), metadata.ino()));
        }
    }
    Ok(())
}

fn is_for_writing(fdinfo: &Path) -> bool {
    let text = fs::read_to_string(fdinfo).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & ACCESS_MODE != 0)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{BufRead as _, BufReader, Write as _},
        process::{Child, Command, Stdio},
    };

    use avalon_protocol::settle::EndMark;

    use super::*;

    fn seen(path: &Path, inside: &str) -> SeenFile {
        let metadata = fs::metadata(path).unwrap();
        SeenFile {
            path: inside.parse().unwrap(),
            size: metadata.len(),
            mtime_ns: 0,
            ctime_ns: 0,
            inode: metadata.ino(),
            end_mark: EndMark::Unknown,
        }
    }

    /// A process that has opened a file as the shell's redirection says, and ends with its stdin.
    fn holder(redirection: &str, path: &Path) -> Child {
        let script = format!("exec 3{redirection}'{}'; echo open; read line", path.display());
        let mut child = Command::new("sh");
        child.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "open\n");
        child
    }

    fn end(mut child: Child) {
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_file_is_held_while_another_process_has_it_open_for_writing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.abc");
        File::create(&path).unwrap();
        let files = [seen(&path, "tex/a.abc")];
        let writers = Writers::default();
        assert_ne!(writers.hold(&files, 0), Some(true));
        for redirection in [">>", "<>"] {
            let (child, later) = (holder(redirection, &path), Writers::default());
            assert_eq!(later.hold(&files, 0), Some(true), "{redirection}");
            assert_ne!(writers.hold(&files, FRESH_MS), Some(true), "no holds true for a moment");
            end(child);
            assert_ne!(later.hold(&files, 0), Some(true), "yes does not: who closes it may publish at once");
        }
    }

    #[test]
    fn what_a_program_gives_to_another_one_for_a_moment_is_not_held_for_who_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.abc");
        File::create(&path).unwrap();
        let files = [seen(&path, "a.abc")];
        let mut child = Some(holder(">>", &path));
        let mut looks = 0;
        let answer = Writers::default().still_hold(&files, 0, || {
            looks += 1;
            if looks == 2 {
                end(child.take().unwrap());
            }
        });
        assert_ne!(answer, Some(true));
        assert_eq!(looks, 2);
        let child = holder(">>", &path);
        let mut looks = 0;
        assert_eq!(Writers::default().still_hold(&files, 0, || looks += 1), Some(true));
        assert_eq!(looks, FURTHER_LOOKS);
        end(child);
    }

    #[test]
    fn readers_and_this_process_itself_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.abc");
        let _own = File::create(&path).unwrap();
        let child = holder("<", &path);
        assert_ne!(Writers::default().hold(&[seen(&path, "a.abc")], 0), Some(true));
        end(child);
    }
}
