//! A file system in user space that has an empty directory, or that never answers, or that shows a directory of this machine
//! (its part `tree`): what a network file system looks like to a daemon, and what one looks like whose server is away.
//!
//! The layouts are those of `linux/fuse.h`, protocol 7.31.

mod tree;

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::PathBuf,
    thread,
};

/// The length of the header of a request, and of an answer.
const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;

/// The kernel refuses a reader with less room than it may need.
const READ_BYTES: usize = 256 << 10;

/// A file system that is not mounted yet. It is there until every process that has the device closes it.
#[derive(Debug)]
pub struct Fuse(File);

impl Fuse {
    /// Opens the device; says aloud when that is not possible.
    pub fn open() -> Option<Self> {
        match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
            Ok(device) => Some(Self(device)),
            Err(error) => {
                println!("SKIPPED: /dev/fuse cannot be opened: {error}");
                None
            }
        }
    }

    /// Returns the device for the process that mounts it.
    pub fn device(&self) -> File {
        self.0.try_clone().unwrap()
    }

    /// Returns the line of shell that mounts it, for a shell with the device as its standard input.
    pub fn mount(dir: &str) -> String {
        format!("mount -t fuse -o fd=0,rootmode=40000,user_id=0,group_id=0 avalon-test {dir}")
    }

    /// Answers in a thread until it is unmounted.
    pub fn serve(self) {
        self.serve_with(answer);
    }

    /// Shows a directory of this machine, in a thread until it is unmounted. What changes in it is told to nobody, and the kernel
    /// may remember sizes and times for an hour.
    pub fn serve_tree(self, dir: PathBuf) {
        let mut shown = tree::Shown::new(dir);
        self.serve_with(move |request| shown.answer(request));
    }

    fn serve_with(self, mut answer: impl FnMut(&[u8]) -> Option<Vec<u8>> + Send + 'static) {
        thread::spawn(move || {
            let mut request = vec![0; READ_BYTES];
            loop {
                match (&self.0).read(&mut request) {
                    Ok(length) => {
                        if let Some(answer) = answer(&request[..length]) {
                            // A request that was interrupted wants no answer.
                            (&self.0).write_all(&answer).ok();
                        }
                    }
                    // It is not mounted yet.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => thread::yield_now(),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // ENOENT: the request was interrupted before it was read.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(_) => return,
                }
            }
        });
    }
}

/// Returns the answer to a request; some have none.
fn answer(request: &[u8]) -> Option<Vec<u8>> {
    let opcode = u32::from_le_bytes(request[4..8].try_into().unwrap());
    let (error, body) = match opcode {
        // FORGET, INTERRUPT, BATCH_FORGET
        2 | 36 | 42 => return None,
        // LOOKUP: there is no such name.
        1 => (-2, Vec::new()),
        // GETATTR
        3 => (0, attributes()),
        // STATFS
        17 => (0, statistics()),
        // INIT: with the kernel's own wishes for reading ahead.
        26 => (0, greeting(&request[IN_HEADER + 8..IN_HEADER + 12])),
        // OPENDIR
        27 => (0, vec![0; 16]),
        // RELEASEDIR
        29 => (0, Vec::new()),
        // Nothing else: ENOSYS.
        _ => (-38, Vec::new()),
    };
    Some(framed(request, error, &body))
}

fn framed(request: &[u8], error: i32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(OUT_HEADER + body.len()).unwrap();
    let mut answer = length.to_le_bytes().to_vec();
    answer.extend(i32::to_le_bytes(error));
    answer.extend(&request[8..16]);
    answer.extend(body);
    answer
}

/// `struct fuse_init_out`
fn greeting(max_readahead: &[u8]) -> Vec<u8> {
    let mut body = [7u32, 31].map(u32::to_le_bytes).concat();
    body.extend(max_readahead);
    body.extend([0; 8]);
    body.extend(4096u32.to_le_bytes());
    body.extend(1u32.to_le_bytes());
    body.resize(64, 0);
    body
}

/// `struct fuse_attr_out`: a directory of root.
fn attributes() -> Vec<u8> {
    let mut body = vec![0; 104];
    body[16..24].copy_from_slice(&1u64.to_le_bytes());
    body[76..80].copy_from_slice(&0o40_755u32.to_le_bytes());
    body[80..84].copy_from_slice(&2u32.to_le_bytes());
    body
}

/// `struct fuse_statfs_out`: room enough.
fn statistics() -> Vec<u8> {
    let mut body = [1u64 << 20; 5].map(u64::to_le_bytes).concat();
    body.extend([4096u32, 255, 4096].map(u32::to_le_bytes).concat());
    body.resize(80, 0);
    body
}
