//! Asking a node that issues for a certificate for a new key of this node.

use avalon_protocol::wire::{FEATURE_ISSUES, Renew, RenewAnswer, Request};

use super::{FetchError, PeerLink};

impl PeerLink {
    /// Says whether the peer issues for the studio.
    pub fn issues(&self) -> bool {
        self.hello().features & FEATURE_ISSUES != 0
    }

    /// Sends the request for a certificate, and waits for the answer. Only for a peer that [issues](Self::issues).
    ///
    /// # Errors
    /// [`FetchError`] when there is no answer.
    pub async fn renew(&self, request: Vec<u8>) -> Result<RenewAnswer, FetchError> {
        let mut answer = self.ask(&Request::Renew(Renew { request })).await?;
        let reply = self.reply(&mut answer).await?;
        self.check_end(&mut answer).await?;
        Ok(reply)
    }
}
