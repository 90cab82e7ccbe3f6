//! `reserve`: a version number that nobody else publishes under.

use avalon_protocol::{
    access::Action,
    control::{ApiError, ErrorCode, ReserveReply, ReserveRequest},
    id::{VersionId, VersionSlot},
    reference::VersionSelector,
};

use super::DaemonApi;
use crate::{
    log::ErrorChain,
    numbers::{ReserveFailed, Reserved},
};

impl DaemonApi {
    pub(super) async fn reserve_reply(&self, request: ReserveRequest) -> Result<ReserveReply, ApiError> {
        let reference = self.parse(&request.reference)?;
        let bad = |message: String| {
            ApiError::new(ErrorCode::BadReference, message)
                .with_hint("name one subset: avalonctl reserve robot/modelDefault")
        };
        let project = self.project_of(&reference, request.project.as_deref())?;
        let name = |text: &str| bad(format!("{text:?} in {:?} is not one name", request.reference));
        let asset = reference.asset.as_str().parse().map_err(|_| name(reference.asset.as_str()))?;
        let subset = reference.subset.as_str().parse().map_err(|_| name(reference.subset.as_str()))?;
        let slot = match reference.version {
            VersionSelector::Latest => VersionSlot::Number(1),
            VersionSelector::Slot(slot @ VersionSlot::Number(_)) => slot,
            VersionSelector::Slot(VersionSlot::Hero) | VersionSelector::All => {
                return Err(bad(format!("{:?} does not name a number", request.reference)));
            }
        };
        let version = VersionId { project, asset, subset, slot };
        self.core.check_may(&version.project, Action::Publish)?;
        self.until_catalog().await;
        let reserved = match reference.version {
            VersionSelector::Slot(_) => self.core.take_number(&version).await,
            _ => self.core.take_next_number(&version, 1).await,
        };
        let Reserved { version } = reserved.map_err(|error| failed(&error))?;
        let VersionSlot::Number(number) = version.slot else {
            return Err(ApiError::new(ErrorCode::Internal, format!("{version} has no number")));
        };
        Ok(ReserveReply { schema: "avalonctl.reserve/1".into(), reference: version.to_string(), number })
    }
}

fn failed(error: &ReserveFailed) -> ApiError {
    let (code, hint) = match error {
        ReserveFailed::NoVoters => (
            ErrorCode::BadRequest,
            "name one node of each site under [numbers] voters in the policy; without, sites that publish the same number \
             are found and told: avalonctl conflicts"
                .to_owned(),
        ),
        ReserveFailed::NoQuorum { .. } => (
            ErrorCode::NoQuorum,
            "try again when more sites are connected: avalonctl status; publishing works all the same".to_owned(),
        ),
        ReserveFailed::Taken { next, .. } => {
            (ErrorCode::NumberTaken, format!("ask for the next: v{next:03} may be free"))
        }
        ReserveFailed::Other(_) => (ErrorCode::Internal, "try again".to_owned()),
    };
    ApiError::new(code, ErrorChain(error).to_string()).with_hint(hint)
}
