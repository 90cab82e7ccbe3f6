//! The daemon's local API over its Unix socket: one connection per request, one per event stream.
//!
//! No task is spawned: the connection is driven by whoever waits for what comes over it.

use std::{
    future::{Future, poll_fn},
    io,
    path::{Path, PathBuf},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use avalon_protocol::control::{ApiError, ErrorCode, Event, route};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::{net::UnixStream, time::timeout};

use crate::{
    sse::{Message, Parser},
    upload::FileBody,
};

/// What is sent with a request.
type Content = UnsyncBoxBody<Bytes, io::Error>;

fn content(bytes: Vec<u8>) -> Content {
    Full::from(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// How long a question may take; answers come from the catalog in milliseconds, so this is a daemon that hangs.
/// Requests that do work (publish, verify) have no limit.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The longest answer that is read: about a million versions or files.
const MAX_ANSWER_BYTES: usize = 512 * 1024 * 1024;

/// Why a daemon was not asked, or did not answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no connection.
    #[error("no daemon answers at {}", socket.display())]
    Connect {
        /// The daemon's socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the daemon at {} broke off the answer to {target}", socket.display())]
    Broken {
        /// The daemon's socket.
        socket: PathBuf,
        /// What was asked.
        target: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// It takes too long.
    #[error("the daemon at {} has not answered {target} for {} s", socket.display(), ANSWER_LIMIT.as_secs())]
    Silent {
        /// The daemon's socket.
        socket: PathBuf,
        /// What was asked.
        target: String,
    },
    /// The daemon answered that it failed.
    #[error("{0}")]
    Refused(ApiError),
    /// The daemon failed without saying why.
    #[error("the daemon answered {target} with HTTP status {status}")]
    Status {
        /// What was asked.
        target: String,
        /// What it answered.
        status: StatusCode,
    },
    /// The answer is not what belongs there.
    #[error("the daemon's answer to {target} cannot be read")]
    Answer {
        /// What was asked.
        target: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The answer does not end.
    #[error("the daemon's answer to {target} is longer than {MAX_ANSWER_BYTES} bytes")]
    TooLong {
        /// What was asked.
        target: String,
    },
    /// The question cannot be put into HTTP.
    #[error("{target} cannot be asked")]
    Question {
        /// What was to be asked.
        target: String,
        /// Why.
        #[source]
        source: hyper::http::Error,
    },
    /// The file that is to be sent cannot be read.
    #[error("the file for {target} cannot be read")]
    File {
        /// What was to be asked.
        target: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The question cannot be put into JSON.
    #[error("the request to {target} cannot be written")]
    Body {
        /// What was to be asked.
        target: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl ClientError {
    /// Says whether the daemon is not there (any more), so that trying again may help.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Broken { .. } | Self::Silent { .. })
    }

    /// Returns the code that the daemon answered with, if it answered with an error.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => Some(error.code),
            _ => None,
        }
    }
}

/// A daemon, by its socket. Nothing is connected until something is asked.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Names the daemon at a socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Returns the socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for something; pairs whose value is `None` are left out of the query.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] has the daemon's own words.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, Option<&str>)],
    ) -> Result<T, ClientError> {
        let target = with_query(path, query);
        let answer = timeout(ANSWER_LIMIT, self.exchange(Method::GET, &target, content(Vec::new())));
        answer
            .await
            .map_err(|_| ClientError::Silent { socket: self.socket.clone(), target: target.clone() })?
    }

    /// Has something done, however long it takes.
    ///
    /// # Errors
    /// [`ClientError`], as for [`Self::get`].
    pub async fn post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body)
            .map_err(|source| ClientError::Body { target: path.to_owned(), source })?;
        self.exchange(Method::POST, path, content(body)).await
    }

    /// Has something removed or cancelled.
    ///
    /// # Errors
    /// [`ClientError`], as for [`Self::get`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.exchange(Method::DELETE, path, content(Vec::new())).await
    }

    /// Sends a file, however long it is, and waits for what comes of it.
    ///
    /// # Errors
    /// [`ClientError`], as for [`Self::get`].
    pub async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        file: std::fs::File,
    ) -> Result<T, ClientError> {
        let file =
            FileBody::new(file).map_err(|source| ClientError::File { target: path.to_owned(), source })?;
        self.exchange(Method::POST, path, file.boxed_unsync()).await
    }

    /// Asks for something that comes piece by piece, however long it is.
    ///
    /// # Errors
    /// [`ClientError`], as for [`Self::get`].
    pub async fn download(&self, path: &str) -> Result<Download, ClientError> {
        let (link, (status, incoming)) = self.request(Method::GET, path, content(Vec::new())).await?;
        let mut body = Body { link, incoming, target: path.to_owned() };
        if !status.is_success() {
            return Err(body.failure(&self.socket, status).await);
        }
        Ok(Download { body, socket: self.socket.clone() })
    }

    /// Opens the event stream: those after number `since` first, or only new ones without it.
    ///
    /// When this returns, the daemon has subscribed us: nothing that happens from now on is missed.
    ///
    /// # Errors
    /// [`ClientError`], as for [`Self::get`].
    pub async fn events(&self, since: Option<u64>) -> Result<EventStream, ClientError> {
        let since = since.map(|number| number.to_string());
        let target = with_query(route::EVENTS, &[("since", since.as_deref())]);
        let (link, response) = self.request(Method::GET, &target, content(Vec::new())).await?;
        let mut body = Body { link, incoming: response.1, target };
        if !response.0.is_success() {
            return Err(body.failure(&self.socket, response.0).await);
        }
        Ok(EventStream { body, socket: self.socket.clone(), parser: Parser::default() })
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        content: Content,
    ) -> Result<T, ClientError> {
        let (link, (status, incoming)) = self.request(method, target, content).await?;
        let mut body = Body { link, incoming, target: target.to_owned() };
        if !status.is_success() {
            return Err(body.failure(&self.socket, status).await);
        }
        let bytes = body.read(&self.socket).await?;
        serde_json::from_slice(&bytes)
            .map_err(|source| ClientError::Answer { target: target.to_owned(), source })
    }

    async fn request(
        &self,
        method: Method,
        target: &str,
        content: Content,
    ) -> Result<(Link, (StatusCode, Incoming)), ClientError> {
        let broken =
            |source| ClientError::Broken { socket: self.socket.clone(), target: target.to_owned(), source };
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Connect { socket: self.socket.clone(), source })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(content)
            .map_err(|source| ClientError::Question { target: target.to_owned(), source })?;
        let response = sender.send_request(request);
        let mut link = Link { connection: Some(Box::pin(connection)), _sender: None };
        let response: Response<Incoming> = link.drive(response).await.map_err(broken)?;
        link._sender = Some(sender);
        let (head, incoming) = response.into_parts();
        Ok((link, (head.status, incoming)))
    }
}

/// The work of a connection, which ends with it.
type Driver = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

/// A connection that somebody waits on.
struct Link {
    connection: Option<Driver>,
    /// Kept so that the connection does not count as given up.
    _sender: Option<SendRequest<Content>>,
}

impl Link {
    /// Waits for `wanted` while the connection does its work. Cancel-safe if `wanted` is.
    async fn drive<F: Future>(&mut self, wanted: F) -> F::Output {
        let mut wanted = pin!(wanted);
        poll_fn(|context| {
            self.poll(context);
            wanted.as_mut().poll(context)
        })
        .await
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        // How it ends is told by the body or the response, with the same error.
        if let Some(connection) = &mut self.connection
            && let Poll::Ready(_end) = connection.as_mut().poll(context)
        {
            self.connection = None;
        }
    }
}

/// The body of an answer.
struct Body {
    link: Link,
    incoming: Incoming,
    target: String,
}

impl Body {
    /// Returns the next piece, or `None` at the end. Cancel-safe.
    async fn next(&mut self, socket: &Path) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = self.link.drive(self.incoming.frame()).await.transpose();
            let frame = frame.map_err(|source| ClientError::Broken {
                socket: socket.to_owned(),
                target: self.target.clone(),
                source,
            })?;
            match frame.map(hyper::body::Frame::into_data) {
                None => return Ok(None),
                Some(Ok(data)) => return Ok(Some(data)),
                Some(Err(_trailers)) => {}
            }
        }
    }

    async fn read(&mut self, socket: &Path) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(data) = self.next(socket).await? {
            if bytes.len() + data.len() > MAX_ANSWER_BYTES {
                return Err(ClientError::TooLong { target: self.target.clone() });
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    }

    async fn failure(&mut self, socket: &Path, status: StatusCode) -> ClientError {
        match self.read(socket).await.map(|bytes| serde_json::from_slice(&bytes)) {
            Ok(Ok(error)) => ClientError::Refused(error),
            Ok(Err(_)) => ClientError::Status { target: self.target.clone(), status },
            Err(error) => error,
        }
    }
}

/// An answer that comes piece by piece.
pub struct Download {
    body: Body,
    socket: PathBuf,
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Download {
    /// Returns the next piece, or `None` when all has come. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError::Broken`] when the daemon ended it before its end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        self.body.next(&self.socket).await
    }
}

/// What happens in the daemon, as it happens.
pub struct EventStream {
    body: Body,
    socket: PathBuf,
    parser: Parser,
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl EventStream {
    /// Returns the next message, or `None` when the daemon ended the stream. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError::Broken`] when the daemon is gone.
    pub async fn next(&mut self) -> Result<Option<Message>, ClientError> {
        loop {
            if let Some(message) = self.parser.pop() {
                return Ok(Some(message));
            }
            match self.body.next(&self.socket).await? {
                Some(data) => self.parser.feed(&data),
                None => return Ok(None),
            }
        }
    }

    /// Returns the next event that this version knows, or `None` when the daemon ended the stream. Cancel-safe.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn next_event(&mut self) -> Result<Option<Event>, ClientError> {
        while let Some(message) = self.next().await? {
            if let Some(event) = message.decode() {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}

fn with_query(path: &str, query: &[(&str, Option<&str>)]) -> String {
    let mut target = path.to_owned();
    let mut separator = '?';
    for (name, value) in query {
        if let Some(value) = value {
            target.push(separator);
            target.push_str(name);
            target.push('=');
            target.push_str(&percent_encode(value));
            separator = '&';
        }
    }
    target
}

/// Encodes a text as one value of a query or one part of a path.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_encoded_and_absent_ones_left_out() {
        let query = [("ref", Some("a:b/c@v1 &é*")), ("project", None), ("x", Some("1"))];
        assert_eq!(with_query("/v1/where", &query), "/v1/where?ref=a%3Ab%2Fc%40v1%20%26%C3%A9%2A&x=1");
        assert_eq!(with_query("/v1/status", &[]), "/v1/status");
    }
}
