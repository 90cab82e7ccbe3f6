//! The local API, asked by hand: HTTP/1.1 over a Unix socket, one connection for each request.

use std::{
    io::{self, BufRead, BufReader, Read, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use avalon_protocol::control::{
    ApiError, InfoReply, JobStatus, ListReply, PolicyReply, PublishItem, PublishReply, PublishRequest,
    PullReply, PullRequest, StatusReply, WhereItem, WhereReply, route,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{PATIENCE, PROJECT, events::Events};

/// Why a request got no answer.
#[derive(Debug)]
pub enum ApiFailure {
    /// Nobody listens, or the connection broke.
    Unreachable(io::Error),
    /// The daemon said no.
    Refused(ApiError),
}

/// A daemon's API.
#[derive(Debug, Clone)]
pub struct Api {
    socket: PathBuf,
}

impl Api {
    /// Takes the socket.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Asks.
    pub fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ApiFailure> {
        self.ask("GET", target, "")
    }

    /// Asks for something to be done.
    pub fn post<T: DeserializeOwned>(&self, target: &str, body: &impl Serialize) -> Result<T, ApiFailure> {
        self.ask("POST", target, &serde_json::to_string(body).unwrap())
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, target: &str, body: &str) -> Result<T, ApiFailure> {
        let answer = self.open(method, target, body).and_then(|mut answer| {
            let mut bytes = Vec::new();
            answer.body.read_to_end(&mut bytes)?;
            Ok((answer.status, bytes))
        });
        let (status, bytes) = answer.map_err(ApiFailure::Unreachable)?;
        let text = String::from_utf8_lossy(&bytes);
        let parsed = |error| panic!("{method} {target}: {error} in {text}");
        if status == 200 {
            Ok(serde_json::from_slice(&bytes).unwrap_or_else(parsed))
        } else {
            Err(ApiFailure::Refused(
                serde_json::from_slice(&bytes)
                    .unwrap_or_else(|error| panic!("{method} {target}: {status}, {error} in {text}")),
            ))
        }
    }

    fn open(&self, method: &str, target: &str, body: &str) -> io::Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nHost: avalond\r\nConnection: close\r\nContent-Type: \
             application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        Answer::read(stream)
    }

    /// Follows the events after number `since`; 0 for all that are kept.
    pub fn events(&self, since: u64) -> Events {
        let target = format!("{}?since={since}", route::EVENTS);
        let answer = self.open("GET", &target, "").unwrap();
        assert_eq!(answer.status, 200);
        Events::follow(answer.body)
    }

    /// Returns how the daemon is.
    pub fn status(&self) -> StatusReply {
        self.get(route::STATUS).unwrap()
    }

    /// Returns all versions.
    pub fn list(&self) -> ListReply {
        self.get(&format!("{}?project={PROJECT}", route::VERSIONS)).unwrap()
    }

    /// Returns where the versions are that a reference names.
    pub fn locate(&self, reference: &str) -> Result<WhereReply, ApiFailure> {
        self.get(&format!("{}?ref={}", route::WHERE, encode(reference)))
    }

    /// Returns where one version is; nothing when it is not known.
    pub fn locate_one(&self, reference: &str) -> Option<WhereItem> {
        match self.locate(reference) {
            Ok(mut reply) => {
                assert_eq!(reply.versions.len(), 1, "{reply:?}");
                reply.versions.pop()
            }
            Err(ApiFailure::Refused(_)) => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Returns all about a version.
    pub fn info(&self, reference: &str) -> Result<InfoReply, ApiFailure> {
        self.get(&format!("{}?ref={}", route::INFO, encode(reference)))
    }

    /// Publishes one version directory.
    pub fn publish(&self, path: &Path) -> PublishItem {
        let request = PublishRequest {
            paths: vec![path.to_str().unwrap().to_owned()],
            comment: "from a test".into(),
            author: "anna".into(),
            inputs: Vec::new(),
            metadata: Default::default(),
        };
        let mut reply: PublishReply = self.post(route::PUBLISH, &request).unwrap();
        assert_eq!(reply.versions.len(), 1, "{reply:?}");
        reply.versions.pop().unwrap()
    }

    /// Starts to pull.
    pub fn pull(&self, reference: &str) -> Result<PullReply, ApiFailure> {
        let refs = vec![reference.to_owned()];
        let request = PullRequest { refs, project: None, dry_run: false, with_inputs: false, frames: None };
        self.post(route::PULL, &request)
    }

    /// Returns one job; nothing when it is not known.
    pub fn job(&self, id: &str) -> Option<JobStatus> {
        self.get(&format!("{}/{id}", route::JOBS)).ok()
    }

    /// Returns all jobs.
    pub fn jobs(&self) -> Vec<JobStatus> {
        self.get(route::JOBS).unwrap()
    }

    /// Returns the job of a version; the only one there was.
    pub fn job_of(&self, reference: &str) -> JobStatus {
        let mut jobs = self.jobs().into_iter().filter(|job| job.reference == reference);
        jobs.next().unwrap_or_else(|| panic!("there was no job for {reference}"))
    }

    /// Returns the policy that stands; nothing before there is one.
    pub fn policy(&self) -> Option<PolicyReply> {
        match self.get(route::POLICY) {
            Ok(reply) => Some(reply),
            Err(ApiFailure::Refused(_)) => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Says whether something is wrong with this code.
    pub fn has_health(&self, code: &str) -> bool {
        self.status().health.iter().any(|health| health.code == code)
    }
}

fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

struct Answer {
    status: u16,
    body: Box<dyn BufRead + Send>,
}

impl Answer {
    fn read(stream: UnixStream) -> io::Result<Self> {
        let mut reader = BufReader::new(stream);
        let status = line(&mut reader)?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("no status line"))?;
        let (mut length, mut chunked) = (None, false);
        loop {
            let header = line(&mut reader)?.to_ascii_lowercase();
            match header.split_once(": ") {
                None => break,
                Some(("content-length", value)) => length = value.parse::<u64>().ok(),
                Some(("transfer-encoding", value)) => chunked = value == "chunked",
                Some(_) => {}
            }
        }
        let body: Box<dyn BufRead + Send> = match length {
            Some(length) => Box::new(reader.take(length)),
            None if chunked => Box::new(BufReader::new(Chunks { reader, left: 0 })),
            None => Box::new(reader),
        };
        Ok(Self { status, body })
    }
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

/// A body in chunks, of which each is read on to its end before the next.
struct Chunks {
    reader: BufReader<UnixStream>,
    left: u64,
}

impl Read for Chunks {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let size = line(&mut self.reader)?;
            self.left = u64::from_str_radix(&size, 16).map_err(|_| io::Error::other("not a chunk"))?;
            if self.left == 0 {
                return Ok(0);
            }
        }
        let length = (&mut self.reader).take(self.left).read(out)?;
        self.left -= length as u64;
        if self.left == 0 {
            line(&mut self.reader)?;
        }
        Ok(length)
    }
}
