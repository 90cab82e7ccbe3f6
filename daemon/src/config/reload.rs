//! What a changed configuration file can change in a running daemon, and what needs a restart.

use super::Config;

/// The difference between the running configuration and the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Reload {
    /// The configuration to run with: the new one where it can be applied, the old one elsewhere.
    pub config: Config,
    /// What changes now, in words.
    pub applied: Vec<String>,
    /// What changes at the next restart, in words.
    pub needs_restart: Vec<String>,
}

/// Compares the running configuration with a new one.
pub fn compare(running: &Config, new: &Config) -> Reload {
    let mut config = running.clone();
    let (mut applied, mut needs_restart) = (Vec::new(), Vec::new());
    if running.peers != new.peers {
        config.peers.clone_from(&new.peers);
        applied.push("peers".to_owned());
    }
    if running.settle_quiet != new.settle_quiet {
        config.settle_quiet = new.settle_quiet;
        applied.push("settle.quiet".to_owned());
    }
    if running.scan_interval != new.scan_interval {
        config.scan_interval = new.scan_interval;
        applied.push("scan.interval".to_owned());
    }
    if running.network != new.network {
        config.network = new.network;
        applied.push("scan.network_interval, settle.network_quiet".to_owned());
    }
    if running.limits != new.limits {
        config.limits.clone_from(&new.limits);
        applied.push("limits".to_owned());
    }
    if running.hooks != new.hooks {
        config.hooks.clone_from(&new.hooks);
        applied.push("hooks".to_owned());
    }
    if running.log_level != new.log_level {
        config.log_level.clone_from(&new.log_level);
        applied.push("log.level".to_owned());
    }
    if running.shutdown_timeout != new.shutdown_timeout {
        config.shutdown_timeout = new.shutdown_timeout;
        applied.push("node.shutdown_timeout".to_owned());
    }
    for (key, differs) in [
        ("node.state_dir", running.state_dir != new.state_dir),
        ("node.listen", running.listen != new.listen),
        ("node.certificate_validity", running.certificate_validity != new.certificate_validity),
        ("node.max_feed_bytes", running.max_feed_bytes != new.max_feed_bytes),
        ("node.knowledge_max_age", running.knowledge != new.knowledge),
        ("node.socket", running.socket != new.socket || running.socket_group != new.socket_group),
        ("api", running.api != new.api),
        ("audit.keep", running.audit_keep != new.audit_keep),
        ("scrub", running.scrub != new.scrub),
    ] {
        needs_restart.extend(differs.then(|| key.to_owned()));
    }
    compare_projects(running, new, &mut config, &mut applied, &mut needs_restart);
    Reload { config, applied, needs_restart }
}

fn compare_projects(
    running: &Config,
    new: &Config,
    config: &mut Config,
    applied: &mut Vec<String>,
    needs_restart: &mut Vec<String>,
) {
    for project in &new.projects {
        let Some(known) = config.projects.iter_mut().find(|known| known.name == project.name) else {
            needs_restart.push(format!("project {} (new)", project.name));
            continue;
        };
        if known.mode != project.mode {
            known.mode = project.mode;
            applied.push(format!("project {} mode = {}", project.name, project.mode));
        }
        if known.space != project.space {
            known.space = project.space;
            applied.push(format!("project {} quota, keep_free, trash_grace or evict_after", project.name));
        }
        if known != project {
            needs_restart.push(format!("project {} root, template or network", project.name));
        }
    }
    for project in &running.projects {
        if !new.projects.iter().any(|other| other.name == project.name) {
            needs_restart.push(format!("project {} (removed)", project.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn peers_modes_and_times_apply_now_and_addresses_at_a_restart() {
        let parse = |listen: &str, mode: &str, peers: &str| {
            let text = format!(
                "[node]\nstate_dir = \"/s\"\nlisten = \"{listen}\"\n[[project]]\nname = \"a\"\nroot = \"/p\"\n\
                 mode = \"{mode}\"\n{peers}"
            );
            Config::parse(Path::new("x.toml"), &text).unwrap()
        };
        let running = parse("0.0.0.0:1", "mirror", "");
        let new = parse("0.0.0.0:2", "on-demand", "[[peer]]\naddress = \"h:1\"\n");
        let reload = compare(&running, &new);
        assert_eq!(reload.applied, ["peers", "project a mode = on-demand"]);
        assert_eq!(reload.needs_restart, ["node.listen"]);
        assert_eq!(reload.config.listen, running.listen);
        assert_eq!(reload.config.peers, new.peers);
    }
}
