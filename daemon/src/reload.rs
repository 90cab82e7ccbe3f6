//! SIGHUP: the configuration is read again, and what can change in a running daemon changes.

use std::sync::Arc;

use avalon_protocol::{
    control::{EventKind, Health, Severity},
    wire::Hello,
};

use crate::{
    app::served,
    config::{Config, compare},
    core::{Core, blocking},
    hooks::HooksHandle,
    log::{ErrorChain, LogHandle},
    net::Net,
    project::Project,
    publish::{publisher::settler_config, settle::SettlerHandle},
    replicate::jobs::ReplicatorHandle,
    service::ServiceNotifier,
};

/// Applies a changed configuration.
#[derive(Debug)]
pub struct Reloader {
    config: Config,
    core: Arc<Core>,
    net: Net,
    replicator: ReplicatorHandle,
    settlers: Vec<(Arc<Project>, SettlerHandle)>,
    log: LogHandle,
    hello: Hello,
    hooks: Option<HooksHandle>,
}

const CONFIG_REFUSED: &str = "config-refused";
const NEEDS_RESTART: &str = "config-needs-restart";

impl Reloader {
    /// Takes the configuration that runs and what it changes.
    pub fn new(
        config: Config,
        core: Arc<Core>,
        net: Net,
        replicator: ReplicatorHandle,
        settlers: Vec<(Arc<Project>, SettlerHandle)>,
        log: LogHandle,
        hello: Hello,
    ) -> Self {
        Self { config, core, net, replicator, settlers, log, hello, hooks: None }
    }

    /// Takes what runs hooks, which change with the file.
    #[must_use]
    pub fn with_hooks(self, hooks: HooksHandle) -> Self {
        Self { hooks: Some(hooks), ..self }
    }

    /// Returns the configuration that runs.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reads the file again. A file that is refused changes nothing, and somebody hears of it.
    pub async fn reload(&mut self, notifier: &ServiceNotifier) {
        notifier.reloading();
        match Config::load(&self.config.file) {
            Ok(new) => {
                self.core.health.clear(CONFIG_REFUSED);
                self.apply(&new).await;
            }
            Err(error) => {
                let message = ErrorChain(&error).to_string();
                tracing::error!(error = message, "the configuration is refused, the old one stays");
                self.core.health.raise(Health {
                    code: CONFIG_REFUSED.into(),
                    severity: Severity::Warning,
                    message: format!("the changed configuration is refused, the old one stays: {message}"),
                    hint: Some("correct the file, try it with avalond --check-config, and reload".into()),
                });
            }
        }
        notifier.ready();
    }

    async fn apply(&mut self, new: &Config) {
        let reload = compare(&self.config, new);
        self.config = reload.config;
        self.net.set_peers(self.config.peers.clone());
        let (core, limits) = (Arc::clone(&self.core), self.config.limits.clone());
        blocking(move || core.limits.configure(&limits)).await;
        if let Some(hooks) = &self.hooks {
            hooks.configure(&self.config.hooks);
        }
        self.hello.projects = served(&self.config);
        self.net.set_hello(self.hello.clone());
        if reload.applied.iter().any(|key| key == "log.level")
            && let Err(error) = self.log.set_level(&self.config.log_level)
        {
            tracing::warn!(error = %ErrorChain(&error), "the log level stays");
        }
        for (project, settler) in &self.settlers {
            let configured = self.config.projects.iter().find(|p| p.name == *project.name());
            if let Some(configured) = configured {
                project.set_mode(configured.mode);
                project.set_space(configured.space);
            }
            settler.configure(settler_config(&self.config)).await.ok();
            self.replicator.look_at(project.name().clone()).await;
        }
        if reload.needs_restart.is_empty() {
            self.core.health.clear(NEEDS_RESTART);
        } else {
            self.core.health.raise(Health {
                code: NEEDS_RESTART.into(),
                severity: Severity::Warning,
                message: format!(
                    "changed in the configuration and not applied: {}",
                    reload.needs_restart.join(", ")
                ),
                hint: Some("restart avalond to apply it".into()),
            });
        }
        tracing::info!(
            applied = reload.applied.join(", "),
            needs_restart = reload.needs_restart.join(", "),
            "configuration read again"
        );
        let mut changes = reload.applied;
        changes.extend(reload.needs_restart.iter().map(|key| format!("{key} (at the next restart)")));
        self.core.events.emit(EventKind::Reloaded { changes });
    }
}
