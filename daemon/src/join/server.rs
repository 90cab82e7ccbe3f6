//! The issuing side of joining: one connection, one stream, four frames, and not a second longer than it takes.

use std::{sync::Arc, time::Duration};

use avalon_certs::join::SeedKeyHash;
use avalon_protocol::{
    close_code::CloseCode,
    wire::{JOIN_VERSION, JoinAsk, JoinRefused, JoinReply},
};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::time::timeout;

use super::{
    StudioIssuer,
    wire::{self, WireFault},
};
use crate::{core::blocking, log::ErrorChain};

/// How long all of it may take: the other side makes a key and checks a certificate, over a bad line.
const DEADLINE: Duration = Duration::from_secs(30);

/// Lets who holds the key of an open invite join; returns when the connection has ended.
pub(super) async fn serve(issuer: Arc<StudioIssuer>, connection: Connection, key: SeedKeyHash) {
    let Ok(_turn) = issuer.joins.try_acquire() else {
        close(&connection, CloseCode::Busy, "too many machines join now");
        return;
    };
    let address = connection.remote_address();
    match timeout(DEADLINE, talk(&issuer, &connection, &key)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(%address, error = %ErrorChain(&error), "a machine did not join");
            close(&connection, CloseCode::Protocol, "joining ended");
        }
        Err(_) => close(&connection, CloseCode::Protocol, "joining took too long"),
    }
}

async fn talk(
    issuer: &Arc<StudioIssuer>,
    connection: &Connection,
    key: &SeedKeyHash,
) -> Result<(), WireFault> {
    let (mut send, mut receive) =
        connection.accept_bi().await.map_err(|error| WireFault::Ended(error.into()))?;
    let reply = answer(issuer, key, &mut send, &mut receive).await?;
    if let JoinReply::Refused(refused) = &reply {
        tracing::warn!(address = %connection.remote_address(), reason = refused.reason, "a machine did not join");
    }
    wire::write(&mut send, &reply).await?;
    // It is finished already when the other side was faster.
    send.finish().ok();
    // The other side closes when it has the answer on its disk, or not at all.
    connection.closed().await;
    Ok(())
}

async fn answer(
    issuer: &Arc<StudioIssuer>,
    key: &SeedKeyHash,
    send: &mut SendStream,
    receive: &mut RecvStream,
) -> Result<JoinReply, WireFault> {
    let refused = |reason: String| Ok(JoinReply::Refused(JoinRefused { reason }));
    match wire::read::<JoinAsk>(receive).await? {
        JoinAsk::Hello(hello) if hello.version == JOIN_VERSION => {}
        JoinAsk::Hello(_) => {
            return refused("the two sides are of versions too far apart; upgrade the older".into());
        }
        JoinAsk::Certify(_) => return refused("the greeting is missing".into()),
    }
    let Some(invite) = issuer.invites.find(key) else {
        return refused("the invite was used, revoked, or has expired; ask for a new one".into());
    };
    wire::write(send, &JoinReply::Offer(issuer.offer(&invite))).await?;
    let JoinAsk::Certify(ask) = wire::read::<JoinAsk>(receive).await? else {
        return refused("a second greeting".into());
    };
    let (issuer, key) = (Arc::clone(issuer), *key);
    match blocking(move || issuer.certify(&key, &ask)).await {
        Ok(joined) => Ok(JoinReply::Joined(joined)),
        Err(error) => {
            tracing::warn!(error = %ErrorChain(&error), "no certificate for a machine that joins");
            refused(error.to_string())
        }
    }
}

fn close(connection: &Connection, code: CloseCode, reason: &str) {
    connection.close(VarInt::from_u32(code.code()), reason.as_bytes());
}
