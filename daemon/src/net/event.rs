//! What the network side tells the rest of the daemon.

use std::{net::SocketAddr, time::Duration};

use avalon_protocol::{
    close_code::CloseCode,
    feed::FeedId,
    id::{NodeId, ProjectName},
    wire::Hello,
};

use super::link::PeerLink;

/// Something that happened between this node and another.
#[derive(Debug, Clone)]
pub enum NetEvent {
    /// A node is connected and greeted. Comes again when its connection is replaced while it is up.
    PeerUp {
        /// Its greeting.
        hello: Hello,
        /// The connection.
        link: PeerLink,
    },
    /// A node's last connection ended.
    PeerDown {
        /// The node.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// A peer was reached and one side refused the other. While that goes on it is said once, unless the peer dials.
    Refused {
        /// The address as it is configured, or where the peer comes from.
        address: String,
        /// The node, when its certificate was accepted.
        node: Option<NodeId>,
        /// Why, and what to do.
        reason: String,
        /// The code, unless TLS refused.
        code: Option<CloseCode>,
    },
    /// A peer says how much it has of this node's own feed about a project.
    OwnFeed {
        /// The project.
        project: ProjectName,
        /// The peer.
        peer: NodeId,
        /// How many records.
        next_seq: u64,
    },
    /// A peer has fewer records of a feed than it had, or has them again.
    FellBack {
        /// The peer.
        peer: NodeId,
        /// The feed.
        feed: FeedId,
        /// How many it had, and has; none when it has them again.
        fallen: Option<(u64, u64)>,
    },
    /// A peer sent what is not allowed or does not verify; its connection was closed, and it is kept off for a while.
    Faulty {
        /// The peer.
        node: NodeId,
        /// What it did.
        reason: String,
        /// How often it did something of the kind lately.
        faults: u32,
        /// For how long it is kept off.
        kept_off: Duration,
    },
    /// A feed has two histories; it is not exchanged with this peer any more.
    Fork {
        /// The feed.
        feed: FeedId,
        /// The peer with the other history.
        peer: NodeId,
    },
    /// Two daemons run with one node name, which may be this node's own.
    DuplicateNode {
        /// The name.
        node: NodeId,
        /// Where the second one is.
        address: SocketAddr,
    },
}
