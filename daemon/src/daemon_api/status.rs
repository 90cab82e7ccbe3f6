//! `status`: how the daemon is.

use avalon_protocol::control::{MountStatus, ProjectStatus, StatusReply};

use super::DaemonApi;
use crate::{core::blocking, project::Project, publish::settle::Mount};

impl DaemonApi {
    pub(super) async fn status_reply(&self) -> StatusReply {
        let core = &self.core;
        let mut projects = Vec::with_capacity(core.projects.len());
        for project in core.projects.values() {
            projects.push(self.project_status(project).await);
        }
        let uptime = core.clock.monotonic().saturating_sub(self.started);
        let expires = jiff::Timestamp::try_from(self.certificate_expires.now());
        StatusReply {
            schema: "avalonctl.status/1".into(),
            node: core.me.node.to_string(),
            site: core.me.site.to_string(),
            studio: core.studio.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: uptime.as_secs_f64(),
            listen: self.net.local_addr().to_string(),
            certificate_expires: expires.map(|time| time.to_string()).unwrap_or_default(),
            knowledge_age_seconds: core.knowledge.age().as_secs_f64(),
            peers: self.net.peers(),
            jobs: self.replicator.board.active(),
            health: core.health.items(),
            projects,
            scrub: Some(self.scrubber.status()),
        }
    }

    async fn project_status(&self, project: &Project) -> ProjectStatus {
        let (state, detail) = project.state();
        let waits =
            || "waits for the catalog, which is built anew; what it has is not counted yet".to_owned();
        let detail = detail.or_else(|| (!self.core.ledger.is_ready()).then(waits));
        let (ledger, name) = (self.core.ledger.clone(), project.name().clone());
        // A status says that the catalog is being rebuilt; it does not wait for it.
        let versions = match ledger.is_ready() {
            true => blocking(move || ledger.version_count(&name)).await.unwrap_or_default(),
            false => 0,
        };
        ProjectStatus {
            name: project.name().to_string(),
            path: project.path().display().to_string(),
            mode: project.mode(),
            state,
            detail,
            versions,
            pending: project.pending(),
            space: self.space_status(project).await,
            mount: self.mount_status(project),
        }
    }

    fn mount_status(&self, project: &Project) -> Option<MountStatus> {
        let (_, settler) = self.settlers.iter().find(|(other, _)| other.name() == project.name())?;
        let health = settler.health();
        let health = health.borrow();
        let (kind, certain) = match health.mount {
            Mount::Local => return None,
            Mount::Network(kind) => (Some(kind), true),
            Mount::Unknown(kind) => (Some(kind), false),
            Mount::Configured => (None, true),
        };
        Some(MountStatus {
            kind: kind.map(str::to_owned),
            certain,
            found_within_seconds: health.last_scan.as_ref().map(|_| health.found_within.as_secs_f64()),
        })
    }
}
