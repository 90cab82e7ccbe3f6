//! A daemon that answers what a test has told it, and a way to run a whole command line against it.

use std::{
    collections::{HashMap, VecDeque},
    ffi::OsString,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use avalon_protocol::control::{
    ApiError, Event, JobKind, JobState, JobStatus, PlanState, PullItem, PullReply,
};
use serde::Serialize;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::{
    app,
    environment::Environment,
    interrupt::Interrupt,
    output::{Captured, Streams},
};

/// An in-process daemon on a socket of its own.
pub(crate) struct FakeDaemon {
    dir: TempDir,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    answers: Mutex<HashMap<String, VecDeque<(u16, String)>>>,
    requests: Mutex<Vec<String>>,
    events: Mutex<VecDeque<String>>,
    /// Event streams stay open as long as this lives.
    held: Mutex<Vec<UnixStream>>,
}

/// How a command line ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) exit: u8,
}

impl Ran {
    /// Returns the lines of stdout as JSON.
    pub(crate) fn json_lines(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the only line of stdout as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns stderr as a JSON error.
    pub(crate) fn error(&self) -> ApiError {
        serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A command line to run.
pub(crate) struct Line {
    pub(crate) args: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
    pub(crate) is_terminal: bool,
    pub(crate) is_interrupted: bool,
}

impl Line {
    pub(crate) fn new(args: &[&str]) -> Self {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        Self { args, environment: Vec::new(), is_terminal: false, is_interrupted: false }
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Ran {
        let captured = Captured { is_terminal: self.is_terminal, ..Captured::default() };
        let (sender, receiver) = mpsc::channel(1);
        if self.is_interrupted {
            sender.try_send(()).unwrap();
        }
        let args = std::iter::once("avalonctl".to_owned()).chain(self.args).map(OsString::from);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let exit = runtime.block_on(app::run(
            args,
            &Environment::of(self.environment),
            &Streams::Captured(captured.clone()),
            &Interrupt::of_channel(receiver),
        ));
        let text = |bytes: &Mutex<Vec<u8>>| String::from_utf8(bytes.lock().unwrap().clone()).unwrap();
        Ran { stdout: text(&captured.stdout), stderr: text(&captured.stderr), exit: exit.code() }
    }
}

/// Runs a command line without a daemon.
pub(crate) fn run(args: &[&str]) -> Ran {
    Line::new(args).run()
}

impl FakeDaemon {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("api.sock")).unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || state.serve(stream.unwrap()));
            }
        });
        Self { dir, state }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    /// Answers a request such as `GET /v1/where`; told several times, each answer is given once and the last for ever.
    pub(crate) fn on(&self, request: &str, answer: &impl Serialize) -> &Self {
        self.answer(request, 200, serde_json::to_string(answer).unwrap())
    }

    /// Answers a request with an error.
    pub(crate) fn refuse(&self, request: &str, error: &ApiError) -> &Self {
        self.answer(request, error.code.http_status(), serde_json::to_string(error).unwrap())
    }

    /// Answers a request with any bytes.
    pub(crate) fn answer(&self, request: &str, status: u16, body: String) -> &Self {
        self.state.answers.lock().unwrap().entry(request.to_owned()).or_default().push_back((status, body));
        self
    }

    /// Sends these events to who connects next, then stays silent.
    pub(crate) fn events(&self, events: &[Event]) -> &Self {
        let line =
            |event: &Event| format!("id: {}\ndata: {}\n\n", event.id, serde_json::to_string(event).unwrap());
        self.state.events.lock().unwrap().push_back(events.iter().map(line).collect());
        self
    }

    /// Returns what was asked so far, as `POST /v1/pull {"refs":..}`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().clone()
    }

    /// Prepares a command line that asks this daemon.
    pub(crate) fn line(&self, args: &[&str]) -> Line {
        let mut line = Line::new(args);
        line.args.extend(["--socket".to_owned(), self.socket().to_str().unwrap().to_owned()]);
        line
    }

    /// Runs a command line that asks this daemon.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.line(args).run()
    }

    /// Runs it as if at a terminal, without colours and progress.
    pub(crate) fn run_at_terminal(&self, args: &[&str]) -> Ran {
        let mut line = self.line(args);
        line.args.extend(["--color".to_owned(), "never".to_owned(), "--no-progress".to_owned()]);
        line.is_terminal = true;
        line.run()
    }
}

impl State {
    fn serve(&self, mut stream: UnixStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap() == 0 {
                return;
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body).unwrap();
        let request = head[0].strip_suffix(" HTTP/1.1").unwrap();
        let text = format!("{request} {}", String::from_utf8(body).unwrap());
        self.requests.lock().unwrap().push(text.trim_end().to_owned());

        let name = request.split('?').next().unwrap();
        if name == "GET /v1/events" {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: hello\n\n";
            let events = self.events.lock().unwrap().pop_front().unwrap_or_default();
            stream.write_all(format!("{head}{events}").as_bytes()).unwrap();
            self.held.lock().unwrap().push(stream);
            return;
        }
        let (status, body) = self.next_answer(name);
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}");
        // A reader may be gone already: a test's business.
        stream.write_all(answer.as_bytes()).ok();
    }

    fn next_answer(&self, name: &str) -> (u16, String) {
        let mut answers = self.answers.lock().unwrap();
        match answers.get_mut(name) {
            Some(answers) if answers.len() > 1 => answers.pop_front().unwrap(),
            Some(answers) => answers.front().unwrap().clone(),
            None => (404, format!("no answer for {name}")),
        }
    }
}

/// Makes a version of a pull: `robot/modelDefault@v002` of 5 files and 2 GiB, of which a quarter is here.
pub(crate) fn item(state: PlanState, job: Option<&str>) -> PullItem {
    let here = state == PlanState::Here;
    PullItem {
        reference: "lantern:robot/modelDefault@v002".into(),
        state,
        job: job.map(str::to_owned),
        manifest: "m2".into(),
        path: Some("/srv/projects/lantern/assets/robot/publish/modelDefault/v002".into()),
        files: 5,
        bytes: 2 << 30,
        bytes_here: if here { 2 << 30 } else { 512 << 20 },
        sources: if state == PlanState::Fetch { vec!["montreal".into()] } else { Vec::new() },
        holders: vec!["montreal".into()],
        reason: (state == PlanState::Forbidden).then(|| "rule rigs (line 3)".into()),
    }
}

/// Makes the answer to a pull.
pub(crate) fn pull_reply(items: &[PullItem]) -> PullReply {
    PullReply { versions: items.to_vec(), ..PullReply::default() }
}

/// Makes the job of an item.
pub(crate) fn job(item: &PullItem, state: JobState) -> JobStatus {
    let is_done = state == JobState::Done;
    JobStatus {
        id: item.job.clone().unwrap(),
        kind: JobKind::Pull,
        reference: item.reference.clone(),
        manifest: item.manifest.clone(),
        state,
        reason: None,
        error: None,
        files_total: item.files,
        files_present: if is_done { item.files } else { 2 },
        bytes_total: item.bytes,
        bytes_present: if is_done { item.bytes } else { 1 << 30 },
        bytes_received: 1536 << 20,
        bytes_local: 512 << 20,
        bytes_delta: 256 << 20,
        bytes_compressed: 0,
        bytes_raw: 1280 << 20,
        bytes_per_second: 104_857_600.0,
        eta_seconds: Some(10.2),
        seconds: 13.1,
        sources: vec!["montreal".into()],
        path: item.path.clone(),
        class: None,
        prio: None,
        frames: None,
        position: None,
    }
}

/// Makes an event.
pub(crate) fn event(id: u64, kind: avalon_protocol::control::EventKind) -> Event {
    Event { id, time: "2026-11-22T10:00:00Z".into(), kind }
}
