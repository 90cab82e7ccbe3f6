//! One QUIC connection that remembers why this side closed it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use avalon_protocol::close_code::CloseCode;
use quinn::{Connection, ConnectionError, VarInt};

use super::{
    closed::Closed,
    endpoint::{RECEIVE_WINDOW_BYTES, send_window_bytes},
};
use crate::clock::Clock;

/// How long a connection may take to show that somebody is at its other end: three round trips over a satellite.
const PROBE_LIMIT: Duration = Duration::from_secs(3);

/// How often it is looked at meanwhile.
const PROBE_STEP: Duration = Duration::from_millis(25);

/// A connection with the reason for which this side closed it.
#[derive(Debug)]
pub(crate) struct Channel {
    connection: Connection,
    own_close: OnceLock<Closed>,
    /// How many bytes of answers the peer has taken.
    taken: Arc<AtomicU64>,
    asked: AtomicBool,
    /// Whether everything that the peer has of the studio's feeds is here.
    has_studio: AtomicBool,
}

impl Channel {
    pub(crate) fn new(connection: Connection) -> Self {
        Self {
            connection,
            own_close: OnceLock::new(),
            taken: Arc::default(),
            asked: AtomicBool::new(false),
            has_studio: AtomicBool::new(false),
        }
    }

    pub(crate) fn quinn(&self) -> &Connection {
        &self.connection
    }

    /// Fits how much may be sent and not acknowledged to the path as it is now; to be called for each answer.
    pub(crate) fn fit_send_window(&self) {
        self.connection.set_send_window(send_window_bytes(self.connection.rtt()));
    }

    /// Counts what the peer takes of answers.
    pub(crate) fn taken(&self) -> &Arc<AtomicU64> {
        &self.taken
    }

    /// Lets the peer send content, which it may not before it is asked for some: until then a peer can make this side hold
    /// little. It stays so, for quinn adds what was taken back when it is given again.
    pub(crate) fn expect_content(&self) {
        if !self.asked.swap(true, Ordering::Relaxed) {
            self.connection.set_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES));
        }
    }

    /// Notes whether everything that the peer has of the studio's feeds is here.
    pub(crate) fn set_has_studio(&self, has_studio: bool) {
        self.has_studio.store(has_studio, Ordering::Relaxed);
    }

    pub(crate) fn has_studio(&self) -> bool {
        self.has_studio.load(Ordering::Relaxed)
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Closes the connection; the first reason stays.
    pub(crate) fn close(&self, closed: Closed) -> Closed {
        let code = closed.code().unwrap_or(CloseCode::Shutdown);
        let first = self.own_close.get_or_init(|| closed);
        let reason = if let Closed::ByUs { reason, .. } = first { reason.as_str() } else { "" };
        self.connection.close(VarInt::from_u32(code.code()), reason.as_bytes());
        first.clone()
    }

    /// Says why the connection that quinn gave up with `error` ended.
    pub(crate) fn why(&self, error: ConnectionError) -> Closed {
        match (error, self.own_close.get()) {
            (ConnectionError::LocallyClosed, Some(own)) => own.clone(),
            (error, _) => Closed::from_quinn(error),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Finds out whether the peer is still there: opens a stream and gives it up, which a peer that lives acknowledges
    /// and one that was restarted answers with a reset.
    pub(crate) async fn answers(&self, clock: &dyn Clock) -> bool {
        let acknowledged = || self.connection.stats().frame_rx.acks;
        let before = acknowledged();
        let ask = async {
            if let Ok((mut send, _)) = self.connection.open_bi().await {
                send.reset(VarInt::from_u32(0)).ok();
            }
            std::future::pending::<()>().await;
        };
        let watch = async {
            let steps = PROBE_LIMIT.as_millis() / PROBE_STEP.as_millis();
            for _ in 0..steps {
                clock.sleep(PROBE_STEP).await;
                if !self.is_open() {
                    return false;
                }
                if acknowledged() > before {
                    return true;
                }
            }
            false
        };
        tokio::select! {
            () = ask => false,
            answers = watch => answers,
        }
    }
}
