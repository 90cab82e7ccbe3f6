//! Renewing this node's own certificate: well before it ends, for a key that is made here, while everything goes on.
//!
//! A node that issues asks itself, others ask one that they are connected with. The new identity is on disk before it is
//! used; connections that stand keep the certificate that they were made with. Feeds change their key with the next group.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use avalon_certs::{Chain, Identity, NodeKey, authority::BACKDATE, peer_certificate};
use avalon_protocol::{
    access::Role,
    control::{Health, Severity},
    wire::RenewAnswer,
};
use thiserror::Error;

use super::StudioIssuer;
use crate::{
    certificate::CertificateEnd,
    core::{Core, blocking},
    log::ErrorChain,
    net::{Net, PeerLink},
    tasks::Tasks,
};

const NOT_RENEWED: &str = "certificate-not-renewed";

/// How often a node looks again at most, and at least.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
const SHORTEST_WAIT: Duration = Duration::from_millis(500);

/// How long a peer may take to certify.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);

/// Why a certificate was not renewed.
#[derive(Debug, Error)]
enum RenewError {
    /// Nobody that issues is connected.
    #[error("no node that issues is connected")]
    Nobody,
    /// A node that issues refuses.
    #[error("{by} does not renew it: {reason}")]
    Refused {
        /// Who.
        by: String,
        /// Why, in its words.
        reason: String,
    },
    /// A node that issues has renewed it too often lately.
    #[error("{by} renews it in {} seconds", wait.as_secs())]
    Later {
        /// Who.
        by: String,
        /// When to ask again.
        wait: Duration,
    },
    /// It did not answer, or what came is of no use here.
    #[error("{what}")]
    Failed {
        /// What went wrong.
        what: String,
    },
}

/// What renews.
#[derive(Debug)]
pub struct Renewal {
    /// What the parts of the daemon share.
    pub core: Arc<Core>,
    /// Whom to ask, and what goes on with the new identity.
    pub net: Net,
    /// Where the identity is.
    pub dir: PathBuf,
    /// The identity that the daemon started with.
    pub identity: Arc<Identity>,
    /// To be told of the new end.
    pub end: CertificateEnd,
    /// What this node issues with, if it may.
    pub issuer: Option<Arc<StudioIssuer>>,
}

impl Renewal {
    /// Starts the task that renews when it is time.
    pub fn start(self, tasks: &Tasks) {
        // Only the studio's CA itself makes admins; who looks after one is warned before its certificate ends.
        if self.identity.role() == Role::Admin {
            return;
        }
        let stop = tasks.token();
        tasks.spawn("renewal", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.run() => {}
            }
        });
    }

    async fn run(mut self) {
        let mut wait = self.until_due();
        loop {
            self.core.clock.sleep(wait).await;
            if !self.until_due().is_zero() {
                wait = self.until_due();
                continue;
            }
            // It may be cut off anywhere when the daemon stops: what is on disk is one identity or the other, and the next start
            // goes on with that.
            match self.renew().await {
                Ok(()) => {
                    self.core.health.clear(NOT_RENEWED);
                    wait = self.until_due();
                }
                Err(error) => {
                    self.tell(&error);
                    wait = match error {
                        RenewError::Later { wait, .. } => wait.clamp(SHORTEST_WAIT, LONGEST_WAIT),
                        _ => self.wait_after_failure(),
                    };
                }
            }
        }
    }

    fn until_due(&self) -> Duration {
        let due = due_at(self.identity.valid_from(), self.identity.expires_at());
        due.duration_since(self.core.clock.now()).unwrap_or_default().min(LONGEST_WAIT)
    }

    /// A twentieth of what is left: often enough to succeed before the end, whatever the length.
    fn wait_after_failure(&self) -> Duration {
        let left = self.identity.expires_at().duration_since(self.core.clock.now()).unwrap_or_default();
        (left / 20).clamp(SHORTEST_WAIT, LONGEST_WAIT)
    }

    async fn renew(&mut self) -> Result<(), RenewError> {
        let failed = |what: String| RenewError::Failed { what };
        let key = NodeKey::generate().map_err(|error| failed(error.to_string()))?;
        let request = key.request(self.identity.node()).map_err(|error| failed(error.to_string()))?;
        let certificate = self.certify(request.der()).await?;
        let chain =
            Chain::from_bytes(&certificate).map_err(|error| failed(ErrorChain(&error).to_string()))?;
        let (identity, dir, now) = (Arc::clone(&self.identity), self.dir.clone(), self.core.clock.now());
        let renewed = blocking(move || identity.renewed(&dir, key, &chain, now)).await;
        let renewed = renewed.map_err(|error| failed(ErrorChain(&error).to_string()))?;
        self.net.set_identity(&renewed).map_err(|error| failed(ErrorChain(&error).to_string()))?;
        self.core.ledger.set_signer(renewed.signer());
        self.end.set(renewed.valid_from(), renewed.expires_at());
        self.identity = Arc::new(renewed);
        let expires = jiff::Timestamp::try_from(self.identity.expires_at()).unwrap_or_default();
        tracing::info!(%expires, "the certificate of this node was renewed");
        Ok(())
    }

    /// Has a request certified by whoever can.
    async fn certify(&self, request: &[u8]) -> Result<Vec<u8>, RenewError> {
        if let Some(issuer) = self.issuer.clone() {
            let own = peer_certificate(self.identity.certificate_chain());
            let own = own.map_err(|error| RenewError::Failed { what: error.to_string() })?;
            let (by, request) = (self.core.me.to_string(), request.to_vec());
            return blocking(move || issuer.renew_own(&own, &request))
                .await
                .map_err(|reason| RenewError::Refused { by, reason });
        }
        let mut links: Vec<PeerLink> = self.net.links().into_iter().filter(PeerLink::issues).collect();
        // Those at the same site first: they are reached when the line is cut.
        links.sort_by_key(|link| link.node().site != self.core.me.site);
        let mut last = RenewError::Nobody;
        for link in links {
            match self.ask(&link, request).await {
                Ok(certificate) => return Ok(certificate),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask(&self, link: &PeerLink, request: &[u8]) -> Result<Vec<u8>, RenewError> {
        let by = link.node().to_string();
        let answer = tokio::select! {
            answer = link.renew(request.to_vec()) => answer,
            () = self.core.clock.sleep(ANSWER_DEADLINE) => {
                return Err(RenewError::Failed { what: format!("{by} takes too long to renew it") });
            }
        };
        match answer {
            Ok(RenewAnswer::Reply(reply)) if !reply.certificate.is_empty() => Ok(reply.certificate),
            Ok(RenewAnswer::Reply(reply)) => {
                Err(RenewError::Refused { by, reason: reply.refused.chars().take(300).collect() })
            }
            Ok(RenewAnswer::Later(later)) => {
                Err(RenewError::Later { by, wait: Duration::from_secs(later.wait_s.into()) })
            }
            Err(error) => Err(RenewError::Failed { what: format!("{by}: {}", ErrorChain(&error)) }),
        }
    }

    fn tell(&self, error: &RenewError) {
        // Nobody there is normal at a site whose line is cut; the end of the certificate has warnings of its own.
        if matches!(error, RenewError::Nobody | RenewError::Later { .. }) {
            tracing::debug!(error = %ErrorChain(error), "the certificate of this node was not renewed");
            return;
        }
        tracing::warn!(error = %ErrorChain(error), "the certificate of this node was not renewed");
        self.core.health.raise(Health {
            code: NOT_RENEWED.into(),
            severity: Severity::Warning,
            message: format!("the certificate of this node was not renewed: {}", ErrorChain(error)),
            hint: Some("it is tried again; or issue one with avalonctl ca issue and restart avalond".into()),
        });
    }
}

/// Returns when a certificate is to be renewed: when a third of its time is left.
fn due_at(valid_from: SystemTime, expires_at: SystemTime) -> SystemTime {
    // It is dated back for machines whose clocks are behind.
    let issued_at = valid_from.checked_add(BACKDATE).unwrap_or(valid_from);
    let validity = expires_at.duration_since(issued_at).unwrap_or_default();
    expires_at.checked_sub(validity / 3).unwrap_or(expires_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_due_when_a_third_of_its_time_is_left() {
        let issued = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let from = issued - BACKDATE;
        for seconds in [6, 3600, 90 * 24 * 3600] {
            let validity = Duration::from_secs(seconds);
            assert_eq!(due_at(from, issued + validity), issued + validity * 2 / 3);
        }
        // One whose issuer's clock was behind is due at its end at the latest.
        assert_eq!(due_at(from, issued - Duration::from_secs(1)), issued - Duration::from_secs(1));
    }
}
