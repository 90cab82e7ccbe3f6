//! A peer that is driven by hand: real certificates and a real connection, and whatever a test wants to say on it.

use std::{net::SocketAddr, path::Path, sync::Arc};

use avalon_certs::{ANY_NODE, Identity, client_config};
use avalon_protocol::{
    close_code::CloseCode,
    id::NodeId,
    mode::ProjectMode,
    wire::{
        Control, FRAME_HEADER_BYTES, FrameHeader, Framed as _, Hello, PROTOCOL_MAX, PROTOCOL_MIN, Request,
        ServedProject,
    },
};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream,
    crypto::rustls::QuicClientConfig,
};
use tokio::{runtime::Runtime, time::timeout};

use super::{PATIENCE, now};

/// Longer than any answer that a test waits for.
const MOST_BYTES: usize = 64 << 20;

/// A connection with a daemon.
#[derive(Debug)]
pub struct RawPeer {
    runtime: Runtime,
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    node: NodeId,
    studio: String,
    endpoint: Endpoint,
}

impl RawPeer {
    /// Dials a daemon with an identity, and says nothing yet.
    pub fn dial(identity: &Path, address: &str) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let identity = Identity::load(identity, now()).unwrap();
        let address: SocketAddr = address.parse().unwrap();
        let (endpoint, connection, (send, receive)) = runtime.block_on(async {
            let tls = QuicClientConfig::try_from(Arc::new(client_config(&identity).unwrap())).unwrap();
            let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
            let config = ClientConfig::new(Arc::new(tls));
            let connecting = endpoint.connect_with(config, address, ANY_NODE).unwrap();
            let connection = timeout(PATIENCE, connecting).await.unwrap().unwrap();
            let control = connection.open_bi().await.unwrap();
            (endpoint, connection, control)
        });
        let (node, studio) = (identity.node().clone(), identity.studio().to_string());
        Self { runtime, connection, send, receive, node, studio, endpoint }
    }

    /// Dials and greets; returns the names of the projects that the daemon named.
    pub fn greet(identity: &Path, address: &str, projects: &[&str]) -> (Self, Vec<String>) {
        let mut peer = Self::dial(identity, address);
        let served = |name: &&str| ServedProject { name: name.parse().unwrap(), mode: ProjectMode::OnDemand };
        let hello = Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            features: 0,
            build: "by hand".into(),
            studio: peer.studio.parse().unwrap(),
            node: peer.node.clone(),
            instance: 7,
            projects: projects.iter().map(served).collect(),
        };
        peer.say(&Control::Hello(hello));
        let heard = peer.hear();
        let Control::Hello(hello) = heard else { panic!("{heard:?}") };
        (peer, hello.projects.iter().map(|project| project.name.to_string()).collect())
    }

    /// Says something on the control stream.
    pub fn say(&mut self, message: &Control) {
        let Self { runtime, send, .. } = self;
        runtime.block_on(send.write_all(&message.to_frame())).unwrap();
    }

    /// Waits for a message.
    pub fn hear(&mut self) -> Control {
        let Self { runtime, receive, .. } = self;
        runtime.block_on(async {
            let mut header = [0; FRAME_HEADER_BYTES];
            timeout(PATIENCE, receive.read_exact(&mut header)).await.unwrap().unwrap();
            let header = FrameHeader::parse(header).unwrap();
            let mut payload = vec![0; header.payload_bytes];
            timeout(PATIENCE, receive.read_exact(&mut payload)).await.unwrap().unwrap();
            Control::from_payload(header.kind, &payload).unwrap()
        })
    }

    /// Asks for something, and returns all bytes of the answer.
    pub fn ask(&self, request: &Request) -> Vec<u8> {
        self.runtime.block_on(async {
            let (mut send, mut receive) = self.connection.open_bi().await.unwrap();
            send.write_all(&request.to_frame()).await.unwrap();
            send.finish().unwrap();
            timeout(PATIENCE, receive.read_to_end(MOST_BYTES)).await.unwrap().unwrap()
        })
    }

    /// Waits until the daemon ends the connection, and returns its code and reason.
    pub fn closed(&self) -> (Option<CloseCode>, String) {
        match self.runtime.block_on(async { timeout(PATIENCE, self.connection.closed()).await.unwrap() }) {
            ConnectionError::ApplicationClosed(frame) => {
                let reason = String::from_utf8_lossy(&frame.reason).into_owned();
                (CloseCode::from_code(frame.error_code.into_inner()), reason)
            }
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for RawPeer {
    /// Waits until the daemon has heard that it is gone: it keeps few connections of one node.
    fn drop(&mut self) {
        self.connection.close(0u32.into(), b"");
        let Self { runtime, endpoint, .. } = self;
        runtime.block_on(async { timeout(PATIENCE, endpoint.wait_idle()).await.ok() });
    }
}
