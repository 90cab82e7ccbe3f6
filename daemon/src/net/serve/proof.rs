//! Answering whether this node is good for a copy of a version.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use avalon_protocol::{
    drop::NotCounted,
    wire::{FetchProof, Framed as _, ProofReply},
};
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{AnswerFault, Context, Leave, Outbound, push};

/// How often the peer hears that it is still read: well below the time after which it gives up.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Reads, says so now and then, and answers. Ends when the peer does not listen any more.
pub(super) async fn send(
    context: &Context,
    leave: Leave,
    slot: &Semaphore,
    ask: &FetchProof,
    out: &mut Outbound,
) -> Result<(), AnswerFault> {
    let reply = match slot.try_acquire() {
        _ if leave == Leave::Denied => ProofReply::Not(NotCounted::NotHeld),
        Err(_) => ProofReply::Not(NotCounted::Busy),
        Ok(_alone) => {
            let stopped = out.stopped();
            tokio::pin!(stopped);
            let read = Arc::new(AtomicU64::new(0));
            let mut proving = context.objects.prove(ask, Arc::clone(&read));
            loop {
                tokio::select! {
                    proved = &mut proving => break match proved {
                        Ok(vouched) => {
                            ProofReply::Held { proof: vouched.proof, min_copies: vouched.min_copies }
                        }
                        Err(why) => ProofReply::Not(why),
                    },
                    fault = &mut stopped => return Err(fault.into()),
                    () = context.clock.sleep(TELL_EVERY) => {
                        let reading = ProofReply::Reading { bytes: read.load(Ordering::Relaxed) };
                        push(out, Bytes::from(reading.to_frame())).await?;
                        out.flush().await?;
                    }
                }
            }
        }
    };
    push(out, Bytes::from(reply.to_frame())).await
}
