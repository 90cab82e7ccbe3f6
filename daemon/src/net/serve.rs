//! Answering a peer's requests: one stream each, in the order of the wants. The other end is [`fetch`](super::fetch).
//!
//! Every request is authorised by its project, before anything is looked up and for as long as it is answered; what is not
//! allowed looks like what is not there. Small objects follow
//! one another without a pause: the next ones are opened while one is being sent.

use std::{ops::Range, sync::Arc, time::Duration};

use avalon_protocol::{
    block::{BLOCK_BYTES, BlockList},
    close_code::CloseCode,
    id::ProjectName,
    limit::Direction,
    numbers::Answer,
    plan::Priority,
    wire::{
        FetchEncoded, FetchManifests, FetchObjects, Framed as _, ManifestReply, NumberReply, ObjectReply,
        ObjectStatus, PIECES, PieceEncoding, RAW, Renew, RenewAnswer, RenewReply, Request, Want,
    },
};
use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture, stream};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::{sync::SemaphorePermit, time::timeout};

mod leave;
mod proof;

use self::leave::{Asking, Leave};

use super::{
    context::Context,
    guests::Places,
    link::PeerLink,
    paced::Paced,
    peer,
    piece_fit::{body_bytes, is_within, list_values},
    seam::{ObjectSource, OpenObject, Piece, PieceSource, ReadFailed, Small, Terms},
    stream::{Inbound, LeastTaken, Outbound, StreamFault},
    throttle::Flow,
};

/// How long a peer may take to send a request, which is under 200 KiB.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// What a peer must take of its answers at least: about 1 KiB/s, of all of them together. Its disk may be slow, but not for
/// ever: an answer holds memory. An answer that is less urgent than others waits for good reason.
pub(super) const LEAST_TAKEN: LeastTaken = LeastTaken { bytes: 64 << 10, within: Duration::from_secs(60) };

/// Wants that are prepared ahead of the one that is being sent.
const LOOK_AHEAD: usize = 8;

/// An object up to this length is read while it is prepared; with [`LOOK_AHEAD`] it bounds the memory of a request.
const SMALL_BYTES: u64 = 64 << 10;

/// Why an answer ended early.
#[derive(Debug)]
enum AnswerFault {
    Stream(StreamFault),
    /// A file could not be read to its end, after its first bytes were sent.
    Read(ReadFailed),
    /// The request asks for blocks that the object cannot have.
    Range,
    /// The peer lost the right to it meanwhile.
    Taken,
}

/// Answers a peer until its connection ends.
pub(crate) async fn serve(context: Arc<Context>, link: PeerLink) {
    let places = context.guests.of(link.node());
    loop {
        places.turn(&*context.clock).await;
        // How many there are is bounded by QUIC's limit of streams.
        let Ok((send, receive)) = link.channel().quinn().accept_bi().await else { return };
        let (context, link, places) = (Arc::clone(&context), link.clone(), Arc::clone(&places));
        let tasks = context.tasks.clone();
        tasks.spawn("answer a peer's request", async move {
            answer(&context, &link, &places, send, receive).await;
        });
    }
}

impl Places {
    /// Waits for a place for a request.
    async fn take(&self, request: &Request) -> Option<SemaphorePermit<'_>> {
        // A proof takes long, and nobody loads a version with it.
        let urgent = priority(request) >= WAITING_PRIORITY && !matches!(request, Request::Proof(_));
        let places = if urgent { &self.urgent } else { &self.others };
        places.acquire().await.ok()
    }
}

async fn answer(context: &Context, link: &PeerLink, places: &Places, send: SendStream, receive: RecvStream) {
    let mut inbound = Inbound::patient(receive);
    let mut out = Outbound::new(send, Arc::clone(link.channel().taken()), LEAST_TAKEN);
    let request = match timeout(REQUEST_DEADLINE, inbound.frame::<Request>()).await {
        Ok(Ok(Some(request))) => request,
        Ok(Err(StreamFault::Frame(error))) => {
            tracing::warn!(peer = %link.node(), error = %error, "peer sent a request that is not allowed");
            link.close(CloseCode::Protocol, &error.to_string());
            return;
        }
        // Nothing was asked: a probe, a change of mind, or a peer that is too slow.
        Ok(_) | Err(_) => return out.give_up(VarInt::from_u32(CloseCode::Protocol.code())),
    };
    // Whatever else comes on this half is not wanted, and not kept.
    drop(inbound);
    let Some(place) = places.take(&request).await else { return };
    out.set_priority(priority(&request));
    link.channel().fit_send_window();
    let asking = Asking::new(context, link, &request);
    let answering = async {
        respond(context, link, (request, asking.leave()), places, &mut out).await?;
        Ok(out.finish().await?)
    };
    let answered = tokio::select! {
        answered = answering => answered,
        () = asking.taken() => Err(AnswerFault::Taken),
    };
    match answered {
        Ok(()) => {
            drop(place);
            // The peer may stop listening at the last byte.
            tokio::select! {
                _ = out.stopped() => {}
                () = asking.taken() => out.give_up(VarInt::from_u32(CloseCode::Busy.code())),
            }
        }
        Err(AnswerFault::Range) => {
            link.close(CloseCode::Protocol, "a request for blocks that the object does not have");
        }
        Err(AnswerFault::Read(error)) => {
            let cause = error.source.to_string();
            tracing::warn!(peer = %link.node(), error = %error, cause, "answer given up");
            out.give_up(VarInt::from_u32(CloseCode::Busy.code()));
        }
        Err(AnswerFault::Taken) => {
            tracing::info!(peer = %link.node(), "peer lost the right to what it was being sent; the answer was cut");
            out.give_up(VarInt::from_u32(CloseCode::Busy.code()));
        }
        Err(AnswerFault::Stream(StreamFault::Stalled)) => {
            tracing::warn!(peer = %link.node(), "peer takes next to nothing of an answer; given up");
            out.give_up(VarInt::from_u32(CloseCode::Busy.code()));
        }
        Err(AnswerFault::Stream(fault)) => tracing::debug!(peer = %link.node(), ?fault, "answer not taken"),
    }
}

async fn respond(
    context: &Context,
    link: &PeerLink,
    (request, leave): (Request, Leave),
    places: &Places,
    out: &mut Outbound,
) -> Result<(), AnswerFault> {
    let flow = |class| Flow { direction: Direction::Send, peer: link.node(), class };
    match request {
        Request::Objects(fetch) => {
            let mut out = Paced::new(&context.throttle, flow(Priority::Publish), out);
            send_objects(context, link, (Asked::raw(fetch), leave), &mut out).await
        }
        Request::Encoded(fetch) => {
            let mut out = Paced::new(&context.throttle, flow(fetch.priority), out);
            send_objects(context, link, (Asked::encoded(fetch), leave), &mut out).await
        }
        Request::Manifests(fetch) => send_manifests(context, leave, fetch, out).await,
        Request::Proof(ask) => proof::send(context, leave, &places.proof, &ask, out).await,
        Request::Number(ask) => {
            // Without leave it looks as if the catalog could not be asked.
            let answer = match leave {
                Leave::Given => context.objects.promise(&ask, link.node()).await,
                Leave::Denied => Answer::Unsure,
            };
            push(out, Bytes::from(NumberReply(answer).to_frame())).await
        }
        Request::Renew(renew) => send_renewed(context, link, &renew, out).await,
    }
}

/// The priority of an answer that somebody waits for.
const WAITING_PRIORITY: i32 = 3;

/// How urgent an answer is among those of one connection: QUIC sends all of a higher one first. Manifests are small, and a
/// job cannot begin without.
fn priority(request: &Request) -> i32 {
    match request {
        Request::Manifests(_) | Request::Proof(_) | Request::Number(_) | Request::Renew(_) => 4,
        Request::Encoded(FetchEncoded { priority: Priority::Waiting, .. }) => WAITING_PRIORITY,
        Request::Encoded(FetchEncoded { priority: Priority::Publish, .. }) | Request::Objects(_) => 2,
        Request::Encoded(FetchEncoded { priority: Priority::Backfill, .. }) => 1,
    }
}

/// Lets the issuer answer, if this node is one; the certificate of the connection says who asks.
async fn send_renewed(
    context: &Context,
    link: &PeerLink,
    renew: &Renew,
    out: &mut Outbound,
) -> Result<(), AnswerFault> {
    let refused =
        |reason: &str| RenewAnswer::Reply(RenewReply { certificate: Vec::new(), refused: reason.to_owned() });
    let certificates = peer::certificates(link.channel().quinn());
    let reply = match (&context.issuer, avalon_certs::peer_certificate(&certificates)) {
        (Some(issuer), Ok(facts)) => issuer.renew(&facts, &renew.request).await,
        (Some(_), Err(_)) => refused("the certificate of this connection cannot be read"),
        (None, _) => refused("this node does not issue"),
    };
    out.push(Bytes::from(reply.to_frame())).await.map_err(AnswerFault::Stream)
}

/// What was asked for, in either form.
struct Asked {
    project: ProjectName,
    wants: Vec<(Want, Option<Terms>)>,
}

impl Asked {
    fn raw(fetch: FetchObjects) -> Self {
        Self { project: fetch.project, wants: fetch.wants.into_iter().map(|want| (want, None)).collect() }
    }

    fn encoded(fetch: FetchEncoded) -> Self {
        let terms = Terms { compress: fetch.compress, base: None };
        let mut wants: Vec<_> = fetch.wants.into_iter().map(|want| (want, Some(terms))).collect();
        for base in fetch.bases {
            if let Some((_, Some(terms))) =
                usize::try_from(base.want).ok().and_then(|want| wants.get_mut(want))
            {
                terms.base = Some(base);
            }
        }
        Self { project: fetch.project, wants }
    }
}

/// A want with what is needed to answer it.
struct Prepared {
    want: Want,
    /// An error ends the answer: the peer comes back.
    found: Result<Option<Found>, ReadFailed>,
}

struct Found {
    source: Arc<dyn ObjectSource>,
    list: Option<BlockList>,
    body: Body,
}

enum Body {
    /// As it is, with the first bytes: all of a small object, nothing yet of a large one.
    Raw(Bytes),
    Encoded(Box<dyn PieceSource>),
    /// With a base: encoded when its turn has come, for that takes a thread that may have to wait.
    Later(Terms),
}

async fn send_objects(
    context: &Context,
    link: &PeerLink,
    (asked, leave): (Asked, Leave),
    out: &mut Paced<'_>,
) -> Result<(), AnswerFault> {
    if !asked.wants.iter().all(|(want, _)| is_within(want)) {
        return Err(AnswerFault::Range);
    }
    let project = &asked.project;
    let preparing = stream::iter(asked.wants).map(|(want, terms)| async move {
        let found = match leave {
            Leave::Given => prepare(context, project, &want, terms).await,
            Leave::Denied => Ok(None),
        };
        Prepared { want, found }
    });
    let mut prepared = std::pin::pin!(preparing.buffered(LOOK_AHEAD));
    while let Some(Prepared { want, found }) = prepared.next().await {
        match found.map_err(AnswerFault::Read)? {
            Some(found) => {
                let manifest = found.source.manifest();
                context.objects.served(link.node(), project, manifest, body_bytes(&want));
                send_object(context, &want, found, out).await?;
            }
            None => send_not_found(context, out).await?,
        }
    }
    Ok(())
}

async fn prepare(
    context: &Context,
    project: &ProjectName,
    want: &Want,
    terms: Option<Terms>,
) -> Result<Option<Found>, ReadFailed> {
    let small = match terms {
        _ if want.size > SMALL_BYTES || want.blocks == 0 => Small::No,
        Some(Terms { base: Some(_), .. }) => Small::No,
        Some(Terms { compress: true, .. }) => Small::Compress,
        _ => Small::Read,
    };
    match context.objects.open(project, &want.object, want.size, small).await? {
        Some(OpenObject { source, small: Some(piece) }) => {
            let body = match piece.head.encoding {
                PieceEncoding::Raw => Body::Raw(piece.content),
                _ => Body::Encoded(Box::new(OnePiece(Some(piece)))),
            };
            Ok(Some(Found { source, list: None, body }))
        }
        Some(OpenObject { source, small: None }) => Ok(prepare_source(source, want, terms).await),
        None => Ok(None),
    }
}

/// A small object on its way out.
struct OnePiece(Option<Piece>);

impl PieceSource for OnePiece {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Piece>, ReadFailed>> {
        Box::pin(std::future::ready(Ok(self.0.take())))
    }
}

/// Returns nothing when the content cannot be read.
async fn prepare_source(source: Arc<dyn ObjectSource>, want: &Want, terms: Option<Terms>) -> Option<Found> {
    let list = match list_values(want) {
        0 => None,
        count => Some(source.list().await.filter(|list| list.values().len() as u64 == count)?),
    };
    let bytes = body_bytes(want);
    if let Some(terms) = terms.filter(|_| bytes > 0) {
        if terms.base.is_some() {
            return Some(Found { source, list, body: Body::Later(terms) });
        }
        if let Some(pieces) = source.encode(blocks_of(want), terms).await {
            return Some(Found { source, list, body: Body::Encoded(pieces) });
        }
    }
    let head = if bytes <= SMALL_BYTES { read(&*source, want, 0, bytes).await.ok()? } else { Bytes::new() };
    Some(Found { source, list, body: Body::Raw(head) })
}

/// Reads part of a want's content, `offset` bytes into it.
async fn read(source: &dyn ObjectSource, want: &Want, offset: u64, bytes: u64) -> Result<Bytes, ReadFailed> {
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    if length == 0 {
        return Ok(Bytes::new());
    }
    let read = source.read(want.first_block.saturating_mul(BLOCK_BYTES) + offset, length).await?;
    if read.len() == length {
        Ok(read)
    } else {
        Err(ReadFailed {
            what: format!("object {}", want.object),
            source: "it is shorter than it was".into(),
        })
    }
}

fn blocks_of(want: &Want) -> Range<u64> {
    want.first_block..want.first_block.saturating_add(want.blocks)
}

async fn send_object(
    context: &Context,
    want: &Want,
    found: Found,
    out: &mut Paced<'_>,
) -> Result<(), AnswerFault> {
    let Found { source, list, body } = found;
    let head = match body {
        Body::Encoded(pieces) => return send_pieces(context, list, pieces, out).await,
        Body::Later(terms) => match source.encode(blocks_of(want), terms).await {
            Some(pieces) => return send_pieces(context, list, pieces, out).await,
            None => Bytes::new(),
        },
        Body::Raw(head) => head,
    };
    let total = body_bytes(want);
    // What cannot be read at all is not there; only later must the answer be given up.
    let head = if head.is_empty() {
        match read(&*source, want, 0, total.min(BLOCK_BYTES)).await {
            Ok(head) => head,
            Err(_) => return send_not_found(context, out).await,
        }
    } else {
        head
    };
    send_found(list, (RAW, total), out).await?;
    let mut sent = 0;
    let mut piece = head;
    loop {
        sent += piece.len() as u64;
        context.metrics.bytes_served.add(piece.len() as u64);
        if sent >= total {
            out.content(piece).await?;
            break;
        }
        // The disk reads on while the network takes what was read.
        let next = read(&*source, want, sent, (total - sent).min(BLOCK_BYTES));
        let (pushed, next) = tokio::join!(out.content(piece), next);
        pushed?;
        piece = next.map_err(AnswerFault::Read)?;
    }
    context.metrics.objects_served.add(1);
    Ok(())
}

/// Sends what precedes the content: the reply, and the block list if there is one.
async fn send_found(
    list: Option<BlockList>,
    (encoding, body_bytes): (u16, u64),
    out: &mut Paced<'_>,
) -> Result<(), AnswerFault> {
    let list_values = list.as_ref().map_or(0, |list| list.values().len() as u64);
    let reply = ObjectReply { status: ObjectStatus::Found, list_values, body_bytes, encoding };
    out.frame(Bytes::from(reply.to_frame())).await?;
    match list {
        Some(list) => Ok(out.frame(Bytes::copy_from_slice(list.values().as_flattened())).await?),
        None => Ok(()),
    }
}

async fn send_pieces(
    context: &Context,
    list: Option<BlockList>,
    mut pieces: Box<dyn PieceSource>,
    out: &mut Paced<'_>,
) -> Result<(), AnswerFault> {
    send_found(list, (PIECES, 0), out).await?;
    let mut next = pieces.next().await.map_err(AnswerFault::Read)?;
    while let Some(Piece { head, content }) = next {
        context.metrics.bytes_served.add(content.len() as u64);
        out.frame(Bytes::from(head.to_frame())).await?;
        // The next piece is encoded while the network takes this one.
        let (pushed, encoded) = tokio::join!(out.content(content), pieces.next());
        pushed?;
        next = encoded.map_err(AnswerFault::Read)?;
    }
    context.metrics.objects_served.add(1);
    Ok(())
}

async fn send_not_found(context: &Context, out: &mut Paced<'_>) -> Result<(), AnswerFault> {
    context.metrics.objects_refused.add(1);
    let reply = ObjectReply { status: ObjectStatus::NotFound, list_values: 0, body_bytes: 0, encoding: RAW };
    Ok(out.frame(Bytes::from(reply.to_frame())).await?)
}

async fn send_manifests(
    context: &Context,
    leave: Leave,
    fetch: FetchManifests,
    out: &mut Outbound,
) -> Result<(), AnswerFault> {
    for id in &fetch.manifests {
        let bytes = match leave {
            Leave::Given => context.catalog.manifest_bytes(&fetch.project, id).await,
            Leave::Denied => None,
        };
        let bytes = Bytes::from(bytes.unwrap_or_default());
        context.metrics.manifests_served.add(u64::from(!bytes.is_empty()));
        push(out, Bytes::from(ManifestReply { bytes: bytes.len() as u64 }.to_frame())).await?;
        push(out, bytes).await?;
    }
    Ok(())
}

impl From<StreamFault> for AnswerFault {
    fn from(fault: StreamFault) -> Self {
        Self::Stream(fault)
    }
}

async fn push(out: &mut Outbound, bytes: Bytes) -> Result<(), AnswerFault> {
    Ok(out.push(bytes).await?)
}
