//! The control stream: carries a [`Session`] over QUIC.
//!
//! Receive, decide, act: an input goes to the session, which is pure, and what it wants done is done in its order.
//! Sending, reading and storing go on side by side, and the peer is listened to meanwhile; so two peers with much to tell
//! each other never wait for one another. What is bounded instead: one read and one store at a time, no read while much
//! waits to be sent, and no more listening to a peer that takes none of the answers.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use avalon_protocol::{
    access::Role,
    close_code::CloseCode,
    feed::{FeedHead, FeedId, SealedGroup},
    id::{NodeId, ProjectName},
    session::{Effect, Session},
    wire::{Control, FEATURE_EXTRACT, Hello, PolicyExtract},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use quinn::{ConnectionError, RecvStream, SendStream};
use tokio::sync::{broadcast, broadcast::error::RecvError, watch};
use tokio_util::sync::CancellationToken;

use super::{
    channel::Channel,
    closed::Closed,
    context::Context,
    event::NetEvent,
    guests::Places,
    heads::HeadNews,
    link::PeerLink,
    seam::{GroupsRead, ReadFailed, StoreRefused},
    serve,
    stream::{Inbound, Outbox, StreamFault},
    table::{Direction, Key, Verdict},
};
use crate::clock::{Sleep, sleep_awake};

/// How long a peer may take to greet once TLS is done: one round trip, with losses.
pub(crate) const GREETING_DEADLINE: Duration = Duration::from_secs(5);

/// A frame that has begun must bring so many bytes in as long, until it is whole: as slow as a bad line, and no slower. A
/// frame that is not whole holds memory.
const FRAME_LEAST_BYTES: usize = 64 << 10;
const FRAME_CHECK: Duration = Duration::from_secs(60);

/// Groups are read for the peer only while less than this waits to be sent.
const SEND_AHEAD_BYTES: usize = 1 << 20;

/// A peer for which so many messages wait is not listened to. Honest peers never get there: what they send makes short
/// answers only.
const MAX_UNSENT_MESSAGES: usize = 8192;

/// What a peer reads whose connection is not kept any more.
const STOPS: &str = "the daemon there stops, or does not keep this connection any more";

/// What a peer reads that is to be greeted anew: also when it lost a project, which it then does not hear of.
const GREETS_ANEW: &str = "the projects served here changed";

/// Which connection, and who is at its other end.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) channel: Arc<Channel>,
    pub(crate) node: NodeId,
    /// What its certificate says.
    pub(crate) role: Role,
    pub(crate) key: Key,
    pub(crate) direction: Direction,
    /// Ends the connection, and tells the peer that it may dial again.
    pub(crate) stop: CancellationToken,
}

type Pending<T> = Option<BoxFuture<'static, T>>;
type Stored = (FeedId, Result<FeedHead, StoreRefused>);
type Read = (FeedId, Result<WhatWasRead, ReadFailed>);

/// What is read of a feed for the peer.
enum ToRead {
    /// Groups from this record on.
    From(u64),
    /// What shows a peer with so many records that there are two histories.
    Proof(u64),
}

enum WhatWasRead {
    Groups(GroupsRead),
    Proof(Vec<SealedGroup>),
}

/// Everything that can happen to a connection.
enum Event {
    Stop,
    HelloChanged,
    RightsChanged,
    Late,
    Check,
    Rested,
    Closed(ConnectionError),
    Sent(Result<(), StreamFault>),
    Received(Result<Option<Control>, StreamFault>),
    Read(Read),
    Stored(Stored),
    Advanced(Result<(FeedId, FeedHead), RecvError>),
}

/// Runs one connection's control stream to its end, and says why it ended and whether it was greeted.
pub(crate) async fn run(
    context: Arc<Context>,
    seat: &Seat,
    (send, receive): (SendStream, RecvStream),
) -> (Closed, bool) {
    let advanced = context.advanced.subscribe();
    let (mut hello_changed, mut rights_changed) = (context.hello.subscribe(), context.permissions.changed());
    hello_changed.mark_unchanged();
    rights_changed.mark_unchanged();
    // After the subscriptions, so that nothing falls between.
    let hello = context.greeting(&seat.node, seat.role);
    let heads = context.catalog.heads();
    let forked: Vec<(FeedId, u64)> = heads
        .iter()
        .filter_map(|(feed, _)| Some((feed.clone(), context.catalog.forked_from(feed)?)))
        .collect();
    // A third node may bring what the peer writes while its greeting is on its way.
    let of_peer = heads.iter().filter(|(feed, _)| feed.node == seat.node);
    let peer_had = of_peer.map(|(feed, head)| (feed.clone(), head.next_seq)).collect();
    let (mut session, mut first) = Session::new(hello.clone(), seat.node.clone(), heads);
    first.extend(forked.iter().flat_map(|(feed, from)| session.frozen(feed, *from)));
    let late = sleep_awake(&context.clock, GREETING_DEADLINE);
    let check = sleep_awake(&context.clock, FRAME_CHECK);
    let places = context.guests.of(&seat.node);
    let mut driver = Driver {
        inbound: Inbound::patient(receive),
        outbox: Outbox::new(send),
        reads: VecDeque::new(),
        reading: None,
        storing: None,
        greeted: false,
        context,
        seat,
        session,
        peer_had,
        hello,
        hello_changed,
        rights_changed,
        extract: None,
        advanced,
        late,
        check,
        places,
        rest: None,
        begun: None,
        frames: 0,
    };
    let closed = match driver.carry_out(first).await {
        Ok(()) => driver.run().await,
        Err(closed) => closed,
    };
    (closed, driver.greeted)
}

struct Driver<'a> {
    context: Arc<Context>,
    seat: &'a Seat,
    session: Session,
    /// How many records of the peer's own feeds were here when the connection began: it had them by then.
    peer_had: BTreeMap<FeedId, u64>,
    /// How this side greeted.
    hello: Hello,
    hello_changed: watch::Receiver<Arc<Hello>>,
    rights_changed: watch::Receiver<()>,
    /// What the peer was told of the policy.
    extract: Option<PolicyExtract>,
    advanced: broadcast::Receiver<(FeedId, FeedHead)>,
    late: Sleep,
    check: Sleep,
    places: Arc<Places>,
    /// The peer sends more frames than anybody needs to, and is not listened to for a moment.
    rest: Option<Sleep>,
    /// At the last check: how many frames had come, and how much of the next.
    begun: Option<(u64, usize)>,
    frames: u64,
    inbound: Inbound,
    outbox: Outbox,
    reads: VecDeque<(FeedId, ToRead)>,
    reading: Pending<Read>,
    storing: Pending<Stored>,
    greeted: bool,
}

impl Driver<'_> {
    async fn run(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.start_read() {
                return closed;
            }
            let event = self.next().await;
            let acted = match self.decide(event) {
                Ok(effects) => self.carry_out(effects).await,
                Err(closed) => Err(closed),
            };
            if let Err(closed) = acted {
                return closed;
            }
        }
    }

    /// Waits for what happens next; each branch is cancel-safe.
    async fn next(&mut self) -> Event {
        let listens = self.listens();
        let event = tokio::select! {
            () = self.seat.stop.cancelled() => Event::Stop,
            error = self.seat.channel.quinn().closed() => Event::Closed(error),
            _ = self.hello_changed.changed() => Event::HelloChanged,
            Ok(()) = self.rights_changed.changed() => Event::RightsChanged,
            () = &mut self.late, if !self.greeted => Event::Late,
            () = &mut self.check => Event::Check,
            () = passed(&mut self.rest) => Event::Rested,
            sent = self.outbox.progress() => Event::Sent(sent),
            read = finished(&mut self.reading) => Event::Read(read),
            stored = finished(&mut self.storing) => Event::Stored(stored),
            received = self.inbound.frame(), if listens => Event::Received(received),
            advanced = self.advanced.recv() => Event::Advanced(advanced),
        };
        // Nobody is late whose frame is there and was not looked at.
        if matches!(event, Event::Late | Event::Check)
            && listens
            && let Some(received) = self.inbound.frame().now_or_never()
        {
            self.check_again();
            return Event::Received(received);
        }
        event
    }

    fn listens(&self) -> bool {
        self.rest.is_none() && self.storing.is_none() && self.outbox.messages() < MAX_UNSENT_MESSAGES
    }

    fn check_again(&mut self) {
        self.check = sleep_awake(&self.context.clock, FRAME_CHECK);
    }

    fn start_read(&mut self) -> Result<(), Closed> {
        if self.reading.is_some() || self.outbox.bytes() >= SEND_AHEAD_BYTES {
            return Ok(());
        }
        if let Some((feed, what)) = self.reads.pop_front() {
            self.check_sees(&feed.project)?;
            let catalog = Arc::clone(&self.context.catalog);
            self.reading = Some(Box::pin(async move {
                let read = match what {
                    ToRead::From(seq) => catalog.read_groups(&feed, seq).await.map(WhatWasRead::Groups),
                    ToRead::Proof(seq) => catalog.read_proof(&feed, seq).await.map(WhatWasRead::Proof),
                };
                (feed, read)
            }));
        }
        Ok(())
    }

    /// Returns what the peer is to be told of the policy, when it takes that and it is news.
    fn tell_extract(&mut self) -> Option<Effect> {
        let Seat { node, role, .. } = self.seat;
        let takes = self.session.peer().is_some_and(|hello| hello.features & FEATURE_EXTRACT != 0);
        if !takes || self.context.may_see(node, *role, &ProjectName::studio()) {
            return None;
        }
        let extract =
            self.context.permissions.extract(node, *role).filter(|e| self.extract.as_ref() != Some(e))?;
        self.extract = Some(extract.clone());
        Some(Effect::Send(Control::Extract(extract)))
    }

    /// Ends a connection on which a project was named that the peer may not see any more.
    fn check_sees(&self, project: &ProjectName) -> Result<(), Closed> {
        match self.context.may_see(&self.seat.node, self.seat.role, project) {
            true => Ok(()),
            false => Err(Closed::by_us(CloseCode::Shutdown, GREETS_ANEW)),
        }
    }

    fn decide(&mut self, event: Event) -> Result<Vec<Effect>, Closed> {
        match event {
            Event::Stop => Err(Closed::by_us(CloseCode::Shutdown, STOPS)),
            Event::HelloChanged => Err(Closed::by_us(CloseCode::Shutdown, GREETS_ANEW)),
            Event::RightsChanged => {
                match self.context.greeting(&self.seat.node, self.seat.role) == self.hello {
                    true => Ok(self.tell_extract().into_iter().collect()),
                    false => Err(Closed::by_us(CloseCode::Shutdown, GREETS_ANEW)),
                }
            }
            Event::Late => Err(Closed::by_us(CloseCode::Protocol, "no greeting in time")),
            Event::Closed(error) => Err(self.seat.channel.why(error)),
            Event::Sent(sent) => sent.map(|()| Vec::new()).map_err(|fault| self.fault(fault)),
            Event::Check => self.check_progress(),
            Event::Rested => Ok(Vec::new()),
            Event::Received(Ok(Some(message))) => {
                self.frames += 1;
                let rest = self.places.frame(&*self.context.clock);
                self.rest = (!rest.is_zero()).then(|| self.context.clock.sleep(rest));
                Ok(self.session.received(message))
            }
            Event::Received(Ok(None)) => Err(self.fault(StreamFault::Ended)),
            Event::Received(Err(fault)) => Err(self.fault(fault)),
            Event::Read((feed, Ok(WhatWasRead::Groups(read)))) => {
                Ok(self.session.groups_read(&feed, read.next_seq, read.groups, read.manifests))
            }
            Event::Read((feed, Ok(WhatWasRead::Proof(groups)))) => Ok(self.session.proof_read(&feed, groups)),
            Event::Read((feed, Err(error))) => {
                let cause = error.source.to_string();
                tracing::error!(%feed, error = %error, cause, "feed cannot be read");
                Err(Closed::by_us(CloseCode::Busy, "a feed cannot be read here"))
            }
            Event::Stored((feed, stored)) => self.stored(&feed, stored),
            Event::Advanced(Ok((feed, head))) => {
                let mut effects = self.session.advanced(&feed, head);
                if let Some(from) = self.context.catalog.forked_from(&feed) {
                    effects.extend(self.session.frozen(&feed, from));
                }
                Ok(effects)
            }
            Event::Advanced(Err(RecvError::Lagged(_))) => {
                let heads = self.context.catalog.heads();
                Ok(heads.into_iter().flat_map(|(feed, head)| self.session.advanced(&feed, head)).collect())
            }
            Event::Advanced(Err(RecvError::Closed)) => Err(Closed::by_us(CloseCode::Shutdown, STOPS)),
        }
    }

    /// Ends the connection when a frame does not get on.
    fn check_progress(&mut self) -> Result<Vec<Effect>, Closed> {
        self.check_again();
        let now = (self.frames, self.inbound.begun_bytes());
        // What is not listened to cannot get on.
        let listens = self.listens();
        let begun = std::mem::replace(&mut self.begun, (listens && now.1 > 0).then_some(now));
        match begun {
            Some((frames, bytes)) if frames == now.0 && listens && now.1 - bytes < FRAME_LEAST_BYTES => {
                Err(Closed::by_us(CloseCode::Protocol, "a frame came too slowly"))
            }
            _ => Ok(Vec::new()),
        }
    }

    fn stored(
        &mut self,
        feed: &FeedId,
        stored: Result<FeedHead, StoreRefused>,
    ) -> Result<Vec<Effect>, Closed> {
        let peer = &self.seat.node;
        match stored {
            Ok(head) => Ok(self.session.groups_stored(feed, head)),
            Err(StoreRefused::Fork) => Ok(self.session.groups_forked(feed)),
            Err(StoreRefused::Full) => {
                self.session.groups_too_many(feed);
                Ok(Vec::new())
            }
            Err(StoreRefused::Refused { reason }) => {
                tracing::warn!(%peer, %feed, reason, "records of a peer refused");
                Err(Closed::by_us(CloseCode::Feed, reason))
            }
            Err(StoreRefused::Busy { reason }) => {
                tracing::warn!(%peer, %feed, reason, "records of a peer not stored");
                Err(Closed::by_us(CloseCode::Busy, "records cannot be stored here now"))
            }
        }
    }

    async fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), Closed> {
        for effect in effects {
            match effect {
                Effect::Send(message) => {
                    message.project().map_or(Ok(()), |project| self.check_sees(project))?;
                    self.outbox.push(&message);
                }
                Effect::Ready(hello) => {
                    self.admit(hello).await?;
                    if let Some(Effect::Send(extract)) = self.tell_extract() {
                        self.outbox.push(&extract);
                    }
                }
                Effect::Extract(extract) => {
                    self.context.permissions.told(extract, &self.seat.node, self.seat.role);
                }
                Effect::ReadGroups { feed, from_seq } => self.reads.push_back((feed, ToRead::From(from_seq))),
                Effect::ProveFork { feed, peer_has } => self.reads.push_back((feed, ToRead::Proof(peer_has))),
                Effect::OwnFeed { project, next_seq } => {
                    let peer = self.seat.node.clone();
                    self.context.registry.emit(NetEvent::OwnFeed { project, peer, next_seq }).await;
                }
                // What it says of feeds that nobody knows it can make up.
                Effect::PeerHead { feed, head } if self.session.has(&feed) => {
                    if let Some(event) = self.head_news(feed, head) {
                        self.context.registry.emit(event).await;
                    }
                }
                Effect::PeerHead { .. } => {}
                Effect::StoreGroups(records) => {
                    let (catalog, node) = (Arc::clone(&self.context.catalog), self.seat.node.clone());
                    let feed = records.feed.clone();
                    self.storing = Some(Box::pin(async move { (feed, catalog.store(records, &node).await) }));
                }
                Effect::Fork(feed) => {
                    let peer = self.seat.node.clone();
                    let is_proved = self.context.catalog.forked_from(&feed).is_some();
                    if is_proved || self.context.heads.may_claim(&peer, &feed) {
                        self.context.registry.emit(NetEvent::Fork { feed, peer }).await;
                    }
                }
                Effect::Close { code, reason } => {
                    if code == CloseCode::DuplicateNode {
                        tell_duplicate(&self.context, self.seat).await;
                    }
                    return Err(Closed::by_us(code, reason));
                }
            }
        }
        self.seat.channel.set_has_studio(self.session.has_all_of(&ProjectName::studio()));
        Ok(())
    }

    /// Returns what people should hear of how far a peer's copy of a feed goes.
    fn head_news(&self, feed: FeedId, head: FeedHead) -> Option<NetEvent> {
        let peer = self.seat.node.clone();
        let had = self.peer_had.get(&feed).copied().unwrap_or(0);
        let fallen = match self.context.heads.heard(&peer, &feed, head.next_seq, had)? {
            HeadNews::FellBack { had, has } => Some((had, has)),
            HeadNews::CaughtUp => None,
        };
        Some(NetEvent::FellBack { peer, feed, fallen })
    }

    /// Takes the connection into use, unless there is a better one with this peer.
    async fn admit(&mut self, hello: Hello) -> Result<(), Closed> {
        let context = Arc::clone(&self.context);
        let link = PeerLink::new(
            &self.hello,
            (hello, self.seat.role),
            Arc::clone(&self.seat.channel),
            Arc::clone(&context.metrics),
            Arc::clone(&context.throttle),
        );
        loop {
            match context.registry.greet(self.seat.key, link.hello(), &link).await {
                Verdict::Kept { superseded } => {
                    for old in superseded {
                        old.close(CloseCode::DuplicateConnection, "both sides dialled");
                    }
                    break;
                }
                Verdict::Surplus => {
                    return Err(Closed::by_us(CloseCode::DuplicateConnection, "connected already"));
                }
                Verdict::OtherInstance { existing } => {
                    if existing.channel().answers(&*context.clock).await {
                        // A daemon that was killed twice in a row: this greeting is what is left of the first time.
                        if !self.seat.channel.answers(&*context.clock).await {
                            return Err(Closed::lost("the peer was restarted"));
                        }
                        tell_duplicate(&context, self.seat).await;
                        let reason = format!("another daemon is connected as {}", self.seat.node);
                        return Err(Closed::by_us(CloseCode::DuplicateNode, reason));
                    }
                    existing.close(CloseCode::Shutdown, "the daemon was restarted");
                }
            }
        }
        self.greeted = true;
        context.metrics.connections.add(1);
        let (tasks, serving) = (context.tasks.clone(), serve::serve(context, link));
        tasks.spawn("serve a peer", serving);
        Ok(())
    }

    fn fault(&self, fault: StreamFault) -> Closed {
        match fault {
            StreamFault::Lost(error) => self.seat.channel.why(error),
            StreamFault::Frame(error) => Closed::by_us(CloseCode::Protocol, error.to_string()),
            StreamFault::GivenUp(_) | StreamFault::Ended | StreamFault::Stalled => {
                Closed::by_us(CloseCode::Protocol, "the control stream ended")
            }
        }
    }
}

/// Tells that the daemon at the other end has the name of another one.
async fn tell_duplicate(context: &Context, seat: &Seat) {
    let (node, address) = (seat.node.clone(), seat.channel.remote());
    context.registry.emit(NetEvent::DuplicateNode { node, address }).await;
}

/// Waits for a time to pass and clears its place; waits for ever when there is none.
async fn passed(rest: &mut Option<Sleep>) {
    let Some(sleep) = rest.as_mut() else { return std::future::pending().await };
    sleep.await;
    *rest = None;
}

/// Waits for work that is under way and clears its place; waits for ever when there is none.
async fn finished<T>(pending: &mut Pending<T>) -> T {
    let Some(work) = pending.as_mut() else { return std::future::pending().await };
    let value = work.await;
    *pending = None;
    value
}
