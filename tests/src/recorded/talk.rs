//! A peer that says exactly what it is told to.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use avalon_certs::{ANY_NODE, Identity, client_config};
use avalon_protocol::wire::{FRAME_HEADER_BYTES, FrameHeader};
use quinn::{
    Connection, ConnectionError, Endpoint, RecvStream, SendStream, crypto::rustls::QuicClientConfig,
};
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

use crate::daemons::{PATIENCE, now};

/// A connection with a node, and its control stream.
#[derive(Debug)]
pub struct Talk {
    connection: Connection,
    control: SendStream,
    hears: RecvStream,
    _endpoint: Endpoint,
    // Last: what is above lives in it.
    runtime: Runtime,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The code that the node gave.
    pub code: u64,
    /// And its reason.
    pub reason: String,
}

impl Talk {
    /// Dials with an identity.
    pub fn dial(identity: &Path, address: &str) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (endpoint, connection, control, hears) = runtime.block_on(async {
            let identity = Identity::load(identity, now()).unwrap();
            let tls = QuicClientConfig::try_from(Arc::new(client_config(&identity).unwrap())).unwrap();
            let mut config = quinn::ClientConfig::new(Arc::new(tls));
            let mut transport = quinn::TransportConfig::default();
            transport.keep_alive_interval(Some(Duration::from_secs(5)));
            config.transport_config(Arc::new(transport));
            let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let connecting = endpoint.connect_with(config, address.parse().unwrap(), ANY_NODE).unwrap();
            let connection = timeout(PATIENCE, connecting).await.unwrap().unwrap();
            let (control, hears) = connection.open_bi().await.unwrap();
            (endpoint, connection, control, hears)
        });
        Self { connection, control, hears, _endpoint: endpoint, runtime }
    }

    /// Says frames on the control stream.
    pub fn say(&mut self, frames: &[Vec<u8>]) {
        self.runtime.block_on(async {
            for frame in frames {
                self.control.write_all(frame).await.unwrap();
            }
        });
    }

    /// Hears the next frame of the control stream.
    pub fn hear(&mut self) -> Vec<u8> {
        let hears = &mut self.hears;
        self.runtime.block_on(async {
            timeout(PATIENCE, async {
                let mut header = [0; FRAME_HEADER_BYTES];
                hears.read_exact(&mut header).await.unwrap();
                let mut payload = vec![0; FrameHeader::parse(header).unwrap().payload_bytes];
                hears.read_exact(&mut payload).await.unwrap();
                [&header[..], &payload].concat()
            })
            .await
            .unwrap()
        })
    }

    /// Asks on a stream of its own, and returns all that comes.
    pub fn ask(&self, request: &[u8]) -> Vec<u8> {
        self.runtime.block_on(async {
            let (mut send, mut receive) = self.connection.open_bi().await.unwrap();
            send.write_all(request).await.unwrap();
            send.finish().unwrap();
            timeout(PATIENCE, receive.read_to_end(64 << 20)).await.unwrap().unwrap()
        })
    }

    /// Waits until the node closes the connection.
    pub fn ended(self) -> Ended {
        let error =
            self.runtime.block_on(async { timeout(PATIENCE, self.connection.closed()).await }).unwrap();
        let ConnectionError::ApplicationClosed(close) = error else { panic!("{error}") };
        let reason = String::from_utf8_lossy(&close.reason).into_owned();
        Ended { code: close.error_code.into_inner(), reason }
    }
}
