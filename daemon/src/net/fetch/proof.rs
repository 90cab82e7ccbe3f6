//! Asking a peer whether it is good for a copy of a version.

use std::time::Duration;

use avalon_protocol::{
    drop::NotCounted,
    wire::{FetchProof, ProofReply, Request},
};
use tokio::time::Instant;

use super::{FetchError, PeerLink, StreamFault};
use crate::net::seam::Vouched;

/// How long a peer may say that it reads without reading on; it may wait for others that it reads for.
const NO_PROGRESS: Duration = Duration::from_secs(600);

impl PeerLink {
    /// Asks for a proof of possession, and waits as long as the peer reads. Only for a peer that [proves](Self::proves).
    /// Dropping the future cancels the question, and the peer stops reading.
    ///
    /// # Errors
    /// [`FetchError`] when there is no answer.
    pub async fn fetch_proof(&self, ask: FetchProof) -> Result<Result<Vouched, NotCounted>, FetchError> {
        let mut answer = self.ask(&Request::Proof(ask)).await?;
        let (mut read, mut since) = (0, Instant::now());
        loop {
            let vouched = match self.reply(&mut answer).await? {
                ProofReply::Reading { bytes } if bytes > read => {
                    (read, since) = (bytes, Instant::now());
                    continue;
                }
                ProofReply::Reading { .. } if since.elapsed() > NO_PROGRESS => {
                    return Err(self.fault(StreamFault::Stalled));
                }
                ProofReply::Reading { .. } => continue,
                ProofReply::Held { proof, min_copies } => Ok(Vouched { proof, min_copies }),
                ProofReply::Not(why) => Err(why),
            };
            self.check_end(&mut answer).await?;
            return Ok(vouched);
        }
    }
}
