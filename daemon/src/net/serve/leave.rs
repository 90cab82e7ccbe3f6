//! Whether a peer may have what it asks for, when it asks and while it is answered.

use avalon_protocol::{access::Action, id::ProjectName, wire::Request};

use super::{Context, PeerLink};

/// Whether a peer may have what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    Given,
    /// It is answered as if nothing of it were here.
    Denied,
}

/// One request, as far as it is about rights.
pub(super) struct Asking<'a> {
    context: &'a Context,
    link: &'a PeerLink,
    needs: Option<(ProjectName, Action)>,
    leave: Leave,
}

impl<'a> Asking<'a> {
    /// Judges a request; nothing is looked up for it before. What is denied is told, whether such a project is here or not.
    pub(super) fn new(context: &'a Context, link: &'a PeerLink, request: &Request) -> Self {
        let needs = request.needs().map(|(project, action)| (project.clone(), action));
        let leave = match &needs {
            Some((project, action)) if !context.allows(link, project, *action) => {
                context.objects.refused(link.node(), project);
                Leave::Denied
            }
            _ => Leave::Given,
        };
        Self { context, link, needs, leave }
    }

    pub(super) fn leave(&self) -> Leave {
        self.leave
    }

    /// Waits until the right is taken by which an answer was begun: what QUIC holds of it ready is not sent then either.
    pub(super) async fn taken(&self) {
        match &self.needs {
            Some((project, action)) if self.leave == Leave::Given => {
                self.context.until_taken(self.link, project, *action).await;
            }
            _ => std::future::pending().await,
        }
    }
}
