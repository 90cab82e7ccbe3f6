//! Asking a peer to promise a number.

use avalon_protocol::{
    numbers::Answer,
    wire::{AskNumber, NumberReply, Request},
};

use super::{FetchError, PeerLink};

impl PeerLink {
    /// Asks for a number. Only for a peer that [promises](Self::promises_numbers). Dropping the future cancels the question; the
    /// peer may have promised it all the same, which a later question finds.
    ///
    /// # Errors
    /// [`FetchError`] when there is no answer.
    pub async fn ask_number(&self, ask: AskNumber) -> Result<Answer, FetchError> {
        let mut answer = self.ask(&Request::Number(ask)).await?;
        let NumberReply(said) = self.reply(&mut answer).await?;
        self.check_end(&mut answer).await?;
        Ok(said)
    }
}
