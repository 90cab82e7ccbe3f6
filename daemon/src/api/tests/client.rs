//! A served fake daemon, and a client that speaks raw HTTP/1.1. Every wait has an end.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use avalon_protocol::control::EventKind;
use futures_util::{FutureExt as _, future::BoxFuture};
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::oneshot,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::Fake;
use crate::{
    api::{
        ApiRoles, Gate, SocketGuard, Stop, bind,
        routes::{Shared, router},
        serve,
        server::serve_router,
    },
    audit::Audit,
    clock::ManualClock,
    config::ApiConfig,
    tasks::Tasks,
};

/// Longer than any answer takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lets the tests' own user do all, and writes nothing.
pub(super) fn gate() -> Gate {
    let roles = Arc::new(ApiRoles::resolve(&ApiConfig::default()).unwrap());
    Gate { roles, token: None, audit: Audit::default() }
}

pub(super) struct Served {
    pub(super) fake: Arc<Fake>,
    pub(super) path: PathBuf,
    pub(super) stop: Stop,
    pub(super) clock: ManualClock,
    ended: oneshot::Receiver<io::Result<()>>,
    _guard: SocketGuard,
    _tasks: Tasks,
    _dir: TempDir,
}

impl Served {
    pub(super) fn start() -> Self {
        Self::start_with(|fake, stop, listener| serve(listener, fake, gate(), stop).boxed())
    }

    /// Starts with streams that show all the time that they live.
    pub(super) fn start_lively() -> Self {
        Self::start_with(|api, stop, listener| {
            let keep_alive = Duration::from_millis(1);
            let shared = Shared { api, stop: stop.token.clone(), keep_alive };
            serve_router(listener, router(shared, gate()), stop).boxed()
        })
    }

    fn start_with(
        serve: impl FnOnce(Arc<Fake>, Stop, UnixListener) -> BoxFuture<'static, io::Result<()>>,
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("api.sock");
        let (listener, guard) = bind(&path, None).unwrap();
        let clock = ManualClock::new();
        let fake = Arc::new(Fake::new(Arc::new(clock.clone())));
        let stop = Stop {
            token: CancellationToken::new(),
            grace: Duration::from_secs(10),
            clock: Arc::new(clock.clone()),
        };
        let (tasks, server) = (Tasks::new(), serve(fake.clone(), stop.clone(), listener));
        let (end, ended) = oneshot::channel();
        tasks.spawn("api", async move {
            end.send(server.await).ok();
        });
        Self { fake, path, stop, clock, ended, _guard: guard, _tasks: tasks, _dir: dir }
    }

    pub(super) async fn connect(&self) -> Client {
        Client::try_connect(&self.path).await.unwrap()
    }

    pub(super) async fn request(&self, method: &str, path: &str, body: &str) -> Answer {
        self.connect().await.request(method, path, body).await
    }

    pub(super) fn emit(&self, code: &str) {
        self.fake.bus.emit(EventKind::Solved { code: code.into() });
    }

    /// Waits until the server has ended.
    pub(super) async fn ended(&mut self) -> io::Result<()> {
        timeout(PATIENCE, &mut self.ended).await.unwrap().unwrap()
    }
}

pub(super) struct Client {
    stream: UnixStream,
    read: String,
    bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

#[derive(Debug)]
pub(super) struct SseEvent {
    pub(super) id: String,
    pub(super) data: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Client {
    pub(super) async fn try_connect(path: &Path) -> io::Result<Self> {
        Ok(Self { stream: UnixStream::connect(path).await?, read: String::new(), bytes: Vec::new() })
    }

    pub(super) async fn request(&mut self, method: &str, path: &str, body: &str) -> Answer {
        self.send(method, path, &[], body).await;
        self.answer().await
    }

    pub(super) async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) {
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: avalond\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let request = format!("{head}\r\n{body}");
        // A server that refuses a body may hang up before it has read all of it.
        timeout(PATIENCE, self.stream.write_all(request.as_bytes())).await.unwrap().ok();
    }

    /// Sends a request and reads only the head of the answer.
    pub(super) async fn open(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(method, path, headers, "").await;
        self.head().await
    }

    /// Reads an answer whose length is given.
    pub(super) async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        let length: usize = head.header("content-length").unwrap_or("0").parse().unwrap();
        while self.read.len() < length {
            assert!(self.more().await, "the answer is cut: {head:?} {}", self.read);
        }
        let body = self.read.drain(..length).collect();
        Answer { body, ..head }
    }

    async fn head(&mut self) -> Answer {
        let head = self.until("\r\n\r\n").await;
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Answer { status, headers: lines.filter_map(header).collect(), body: String::new() }
    }

    /// Reads up to and with `end`.
    pub(super) async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.read.find(end) {
                return self.read.drain(..at + end.len()).collect();
            }
            assert!(self.more().await, "the connection ends before {end:?}: {}", self.read);
        }
    }

    pub(super) async fn event(&mut self) -> SseEvent {
        self.next_event().await.expect("the stream goes on")
    }

    /// Reads the next event of a stream, or none when the stream ends.
    pub(super) async fn next_event(&mut self) -> Option<SseEvent> {
        loop {
            let field = |name: &str| self.read.find(name).map(|at| at + name.len());
            if let (Some(id), Some(data)) = (field("\nid: "), field("\ndata: "))
                && let Some(end) = self.read[id.max(data)..].find("\n\n").map(|at| at + id.max(data))
            {
                let line = |at: usize| self.read[at..].lines().next().unwrap().trim_end().to_owned();
                let event = SseEvent { id: line(id), data: line(data) };
                self.read.drain(..end);
                return Some(event);
            }
            if self.read.ends_with("\r\n0\r\n\r\n") || !self.more().await {
                return None;
            }
        }
    }

    /// What was read and not used.
    pub(super) fn text(&self) -> &str {
        &self.read
    }

    /// Reads on; says whether there was something.
    async fn more(&mut self) -> bool {
        let length = timeout(PATIENCE, self.stream.read_buf(&mut self.bytes)).await.unwrap().unwrap_or(0);
        let text = std::mem::take(&mut self.bytes);
        match String::from_utf8(text) {
            Ok(text) => self.read += &text,
            Err(error) => self.bytes = error.into_bytes(),
        }
        length > 0
    }
}
