//! The configuration, in two steps: `raw` is what the file says, [`Config`] is what it means. Nothing is bound, opened
//! or written before the second step has passed; `avalond --check-config` stops there.

mod api;
mod audit;
mod hooks;
mod limits;
mod network;
mod raw;
mod reload;
mod scrub;
mod space;

use std::{
    collections::HashSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use avalon_certs::NODE_VALIDITY;
use avalon_protocol::{
    id::ProjectName,
    limit::Limit,
    limits::MAX_PROJECTS,
    mode::ProjectMode,
    studio::STUDIO_PROJECT,
    template::{DEFAULT_PUBLISH, Template, TemplateError, TemplateSet},
};
use thiserror::Error;

use self::raw::{RawConfig, RawProject};
pub use self::{
    api::{ApiConfig, TcpConfig},
    network::{NetworkConfig, NetworkMode},
    reload::{Reload, compare},
    scrub::ScrubConfig,
    space::SpaceConfig,
};
use crate::{hooks::Hook, knowledge::KnowledgeLimits};

/// Longest path of a Unix socket on Linux, without the closing zero (`sockaddr_un.sun_path`).
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// One group of records has to fit into a feed.
const LEAST_FEED_BYTES: u64 = 1 << 20;

/// The checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where it came from.
    pub file: PathBuf,
    /// Where feeds, manifests, catalog and identity live.
    pub state_dir: PathBuf,
    /// Where peers reach this node.
    pub listen: SocketAddr,
    /// The socket of the local API.
    pub socket: PathBuf,
    /// The Unix group that may use the socket, if it is not the daemon's own.
    pub socket_group: Option<String>,
    /// How long certificates are valid that this node issues, where it may.
    pub certificate_validity: Duration,
    /// How many bytes of one feed of another node are taken.
    pub max_feed_bytes: u64,
    /// How old this node's knowledge of the studio's rights may be.
    pub knowledge: KnowledgeLimits,
    /// How long stopping may take before what hangs is named and left.
    pub shutdown_timeout: Duration,
    /// The projects, in the order of the file.
    pub projects: Vec<ProjectConfig>,
    /// The addresses that are dialled, as `host:port`.
    pub peers: Vec<String>,
    /// How long a version directory must be quiet before it counts as whole.
    pub settle_quiet: Duration,
    /// How often every project is scanned, because network file systems tell of nothing.
    pub scan_interval: Duration,
    /// The same, and what else differs, where other machines write.
    pub network: NetworkConfig,
    /// How files are read again to find damage.
    pub scrub: ScrubConfig,
    /// What content may take of the line.
    pub limits: Vec<Limit>,
    /// Programs that run when something happened.
    pub hooks: Vec<Hook>,
    /// Who may use the local API, and where it is besides the socket.
    pub api: ApiConfig,
    /// How long the audit is kept; for ever without it.
    pub audit_keep: Option<Duration>,
    /// The log filter, as `info` or `avalond=debug`.
    pub log_level: String,
}

/// One project.
#[derive(Debug, Clone)]
pub struct ProjectConfig {
    /// Its name.
    pub name: ProjectName,
    /// Avalon's root; files are at `{root}/{name}/...`.
    pub root: PathBuf,
    /// Where its publishes lie.
    pub templates: Arc<TemplateSet>,
    /// The texts of the templates.
    pub template_texts: Vec<String>,
    /// Whether versions come by themselves.
    pub mode: ProjectMode,
    /// Whether somebody may fetch some frames of a version.
    pub partial: bool,
    /// Whether other machines write there.
    pub network: NetworkMode,
    /// How much room it may take.
    pub space: SpaceConfig,
}

impl PartialEq for ProjectConfig {
    fn eq(&self, other: &Self) -> bool {
        let rest = |one: &Self| (one.mode, one.partial, one.network, one.space);
        (&self.name, &self.root, &self.template_texts) == (&other.name, &other.root, &other.template_texts)
            && rest(self) == rest(other)
    }
}

impl ProjectConfig {
    /// Returns the project's directory.
    pub fn dir(&self) -> PathBuf {
        self.root.join(self.name.as_str())
    }
}

/// Why a configuration is refused; each names the file.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML, or a key or value is wrong.
    #[error("{}:{line}: {problem}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, with the nearest valid key.
        problem: String,
    },
    /// A value has a meaning that cannot be.
    #[error("{}: {key}: {problem}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The key, as `project.lantern.root`.
        key: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A template cannot be inverted.
    #[error("{}: project.{project}.template cannot be used", file.display())]
    Template {
        /// The file.
        file: PathBuf,
        /// The project.
        project: ProjectName,
        /// Why.
        #[source]
        source: TemplateError,
    },
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`] names file, line and key.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        Self::parse(file, &text)
    }

    /// Checks the text of a configuration; `file` is for messages.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let raw = raw::parse(file, text)?;
        Checker { file, text }.config(raw)
    }
}

struct Checker<'a> {
    file: &'a Path,
    /// For the lines of what is wrong.
    text: &'a str,
}

impl Checker<'_> {
    fn value(&self, key: impl Into<String>, problem: impl Into<String>) -> ConfigError {
        ConfigError::Value { file: self.file.to_owned(), key: key.into(), problem: problem.into() }
    }

    fn config(&self, raw: RawConfig) -> Result<Config, ConfigError> {
        let node = raw.node;
        let listen = node.listen.as_deref().unwrap_or("0.0.0.0:4700");
        let listen = listen.parse().map_err(|_| {
            self.value("node.listen", format!("{listen:?} is not an address and port such as 0.0.0.0:4700"))
        })?;
        let socket = self.socket(node.socket)?;
        let projects = self.projects(raw.project)?;
        let peers = raw.peer.into_iter().map(|peer| self.peer(peer.address)).collect::<Result<_, _>>()?;
        let scan_interval = self.duration("scan.interval", raw.scan.interval, "10m")?;
        Ok(Config {
            file: self.file.to_owned(),
            state_dir: self.absolute("node.state_dir", node.state_dir)?,
            listen,
            socket,
            socket_group: node.socket_group,
            certificate_validity: self.validity(node.certificate_validity)?,
            max_feed_bytes: self.max_feed_bytes(node.max_feed_bytes.as_deref())?,
            knowledge: self.knowledge(node.knowledge_max_age, node.revocation_grace, node.serve_when_old)?,
            shutdown_timeout: self.duration("node.shutdown_timeout", node.shutdown_timeout, "30s")?,
            projects,
            peers,
            settle_quiet: self.duration("settle.quiet", raw.settle.quiet, "5s")?,
            scan_interval,
            network: self.network(raw.scan.network_interval, raw.settle.network_quiet, scan_interval)?,
            scrub: self.scrub(raw.scrub)?,
            limits: self.limits(raw.limit)?,
            hooks: self.hooks(raw.hook)?,
            api: self.api(raw.api)?,
            audit_keep: self.audit(raw.audit)?,
            log_level: self.log_level(raw.log.level)?,
        })
    }

    fn validity(&self, text: Option<String>) -> Result<Duration, ConfigError> {
        let Some(text) = text else { return Ok(NODE_VALIDITY) };
        let key = "node.certificate_validity";
        let validity = self.span(key.into(), &text)?;
        if validity < Duration::from_secs(1) || validity > 4 * NODE_VALIDITY {
            return Err(self.value(key, format!("{text:?} is not between a second and 360 days")));
        }
        Ok(validity)
    }

    fn max_feed_bytes(&self, text: Option<&str>) -> Result<u64, ConfigError> {
        let (key, text) = ("node.max_feed_bytes", text.unwrap_or("4GiB"));
        let bytes = self.bytes(key.into(), text)?;
        if bytes < LEAST_FEED_BYTES {
            return Err(self.value(key, format!("{text:?} is less than 1MiB, which is one group of records")));
        }
        Ok(bytes)
    }

    fn knowledge(
        &self,
        max_age: Option<String>,
        grace: Option<String>,
        serves: Option<bool>,
    ) -> Result<KnowledgeLimits, ConfigError> {
        let span =
            |key: &str, text: Option<String>| text.map(|text| self.span(key.into(), &text)).transpose();
        let max_age = span("node.knowledge_max_age", max_age)?;
        let grace_key = "node.revocation_grace";
        let grace = span(grace_key, grace)?;
        if grace.is_some() && max_age.is_none() {
            return Err(self.value(grace_key, "it counts from node.knowledge_max_age, which is not set"));
        }
        if serves.is_some() && grace.is_none() {
            let key = "node.serve_when_old";
            return Err(self.value(key, "it holds when node.revocation_grace is over, which is not set"));
        }
        Ok(KnowledgeLimits { max_age, grace, serves_when_old: serves.unwrap_or(true) })
    }

    fn log_level(&self, level: Option<String>) -> Result<String, ConfigError> {
        let level = level.unwrap_or_else(|| "info".into());
        match crate::log::check_level(&level) {
            Ok(()) => Ok(level),
            Err(error) => Err(self.value("log.level", crate::log::ErrorChain(&error).to_string())),
        }
    }

    fn absolute(&self, key: &str, path: PathBuf) -> Result<PathBuf, ConfigError> {
        if path.is_absolute() {
            Ok(path)
        } else {
            Err(self.value(key, format!("{} must be an absolute path", path.display())))
        }
    }

    fn socket(&self, socket: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
        let socket = socket.unwrap_or_else(|| PathBuf::from("/run/avalond/api.sock"));
        let socket = self.absolute("node.socket", socket)?;
        let bytes = socket.as_os_str().len();
        if bytes > MAX_SOCKET_PATH_BYTES {
            let problem = format!(
                "{} has {bytes} bytes, a Unix socket's path at most {MAX_SOCKET_PATH_BYTES}; use a shorter \
                 directory, such as /run/avalond",
                socket.display()
            );
            return Err(self.value("node.socket", problem));
        }
        Ok(socket)
    }

    fn duration(&self, key: &str, text: Option<String>, default: &str) -> Result<Duration, ConfigError> {
        let text = text.unwrap_or_else(|| default.to_owned());
        let parsed: Result<jiff::SignedDuration, _> = text.parse();
        parsed.ok().and_then(|duration| Duration::try_from(duration).ok()).ok_or_else(|| {
            self.value(key, format!("{text:?} is not a duration such as \"5s\", \"300ms\" or \"10m\""))
        })
    }

    fn peer(&self, address: String) -> Result<String, ConfigError> {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        match port.map(|(_, port)| port.parse::<u16>()) {
            Some(Ok(port)) if port != 0 => Ok(address),
            _ => Err(self.value(
                "peer.address",
                format!("{address:?} is not host:port, such as mtl.example.net:4700"),
            )),
        }
    }

    fn projects(&self, raw: Vec<RawProject>) -> Result<Vec<ProjectConfig>, ConfigError> {
        // A greeting names one more: the studio's own.
        if raw.len() >= MAX_PROJECTS {
            let problem = format!("{} projects, at most {} are possible", raw.len(), MAX_PROJECTS - 1);
            return Err(self.value("project", problem));
        }
        let mut names = HashSet::new();
        let mut projects = Vec::with_capacity(raw.len());
        for project in raw {
            let project = self.project(project)?;
            if !names.insert(project.name.as_str().to_lowercase()) {
                let problem = "the project stands twice in the file; names that differ in case only are one";
                return Err(self.value(format!("project.{}.name", project.name), problem));
            }
            projects.push(project);
        }
        Ok(projects)
    }

    fn project(&self, raw: RawProject) -> Result<ProjectConfig, ConfigError> {
        let name: ProjectName =
            raw.name.parse().map_err(|error| self.value("project.name", format!("{error}")))?;
        if name.is_reserved() {
            let problem =
                format!("{STUDIO_PROJECT} is where nodes keep what concerns the studio; choose another name");
            return Err(self.value(format!("project.{name}.name"), problem));
        }
        let mut texts = raw.templates;
        texts.extend(raw.template);
        if texts.is_empty() {
            texts.push(DEFAULT_PUBLISH.to_owned());
        }
        let refused =
            |source| ConfigError::Template { file: self.file.to_owned(), project: name.clone(), source };
        let templates = texts.iter().map(|text| Template::parse(text)).collect::<Result<Vec<_>, _>>();
        let templates = TemplateSet::new(templates.map_err(refused)?)
            .map_err(|error| self.value(format!("project.{name}.templates"), error.to_string()))?;
        let space = self.space(&name, [raw.quota, raw.keep_free], [raw.trash_grace, raw.evict_after])?;
        Ok(ProjectConfig {
            space,
            root: self.absolute(&format!("project.{name}.root"), raw.root)?,
            templates: Arc::new(templates),
            template_texts: texts,
            mode: raw.mode,
            partial: raw.partial,
            network: raw.network,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "[node]\nstate_dir = \"/var/lib/avalond\"\n";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("avalond.toml"), text)
    }

    fn check_refused(text: &str, expected: &str) {
        let error = parse(text).unwrap_err();
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            message = format!("{message}: {source}");
        }
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn the_example_of_the_documentation_is_read() {
        let config = parse(
            "[node]\nstate_dir = \"/var/lib/avalond\"\nlisten = \"0.0.0.0:4700\"\n\
             socket = \"/run/avalond/api.sock\"\n[[project]]\nname = \"lantern\"\nroot = \"/srv/projects\"\n\
             mode = \"mirror\"\n[[peer]]\naddress = \"mtl.example.net:4700\"\n[settle]\nquiet = \"300ms\"\n",
        )
        .unwrap();
        assert_eq!(config.projects[0].dir(), Path::new("/srv/projects/lantern"));
        assert_eq!(config.projects[0].mode, ProjectMode::Mirror);
        assert_eq!(config.settle_quiet, Duration::from_millis(300));
        assert_eq!(config.peers, ["mtl.example.net:4700"]);
    }

    #[test]
    fn defaults_are_on_demand_and_avalons_own_template() {
        let config = parse(&format!("{MINIMAL}[[project]]\nname = \"a\"\nroot = \"/p\"\n")).unwrap();
        assert_eq!(config.projects[0].mode, ProjectMode::OnDemand);
        assert_eq!(config.projects[0].template_texts, [DEFAULT_PUBLISH]);
        assert_eq!(config.listen.port(), 4700);
    }

    #[test]
    fn an_unknown_key_names_file_line_key_and_the_nearest_valid_one() {
        check_refused(
            &format!("{MINIMAL}lissten = \"0.0.0.0:1\"\n"),
            "avalond.toml:3: unknown key `lissten`; did you mean `listen`?",
        );
        check_refused(
            &format!("{MINIMAL}[[projct]]\nname = \"x\"\n"),
            "unknown key `projct`; did you mean `project`?",
        );
    }

    #[test]
    fn how_old_knowledge_may_be_is_read_and_off_unless_it_stands_there() {
        let limits = |more: &str| parse(&format!("{MINIMAL}{more}")).unwrap().knowledge;
        let day = Duration::from_hours(24);
        let off = KnowledgeLimits { max_age: None, grace: None, serves_when_old: true };
        assert_eq!(limits(""), off);
        let warns = KnowledgeLimits { max_age: Some(day), ..off };
        assert_eq!(limits("knowledge_max_age = \"1d\"\n"), warns);
        let refuses = KnowledgeLimits { grace: Some(2 * day), serves_when_old: false, ..warns };
        let text = "knowledge_max_age = \"1d\"\nrevocation_grace = \"48h\"\nserve_when_old = false\n";
        assert_eq!(limits(text), refuses);
    }

    #[test]
    fn wrong_values_say_what_would_be_right() {
        check_refused("[node]\n", "avalond.toml:1: missing key `state_dir`");
        check_refused("[node]\nstate_dir = 5\n", "avalond.toml:2:");
        check_refused("[node]\nstate_dir = \"x\"\n", "node.state_dir: x must be an absolute path");
        check_refused(&format!("{MINIMAL}listen = \"here\"\n"), "not an address and port");
        check_refused(&format!("{MINIMAL}max_feed_bytes = \"1kB\"\n"), "is less than 1MiB");
        check_refused(
            &format!("{MINIMAL}max_feed_bytes = \"much\"\n"),
            "node.max_feed_bytes: \"much\" is not an amount",
        );
        check_refused(
            &format!("{MINIMAL}revocation_grace = \"1d\"\n"),
            "node.revocation_grace: it counts from node.knowledge_max_age, which is not set",
        );
        check_refused(
            &format!("{MINIMAL}knowledge_max_age = \"1d\"\nserve_when_old = false\n"),
            "node.serve_when_old: it holds when node.revocation_grace is over, which is not set",
        );
        check_refused(&format!("{MINIMAL}knowledge_max_age = \"old\"\n"), "node.knowledge_max_age: ");
        check_refused(&format!("{MINIMAL}[[peer]]\naddress = \"host\"\n"), "not host:port");
        check_refused(&format!("{MINIMAL}[settle]\nquiet = \"soon\"\n"), "not a duration");
        check_refused(&format!("{MINIMAL}[log]\nlevel = \"inof\"\n"), "log.level");
        check_refused(&format!("{MINIMAL}socket = \"/{}\"\n", "x".repeat(120)), "has 121 bytes");
        check_refused(
            &format!("{MINIMAL}[[project]]\nname = \"a b\"\nroot = \"/p\"\n"),
            "not a valid project name",
        );
        check_refused(
            &format!(
                "{MINIMAL}[[project]]\nname = \"a\"\nroot = \"/p\"\n[[project]]\nname = \"A\"\nroot = \"/q\"\n"
            ),
            "stands twice",
        );
        check_refused(
            &format!("{MINIMAL}[[project]]\nname = \"a\"\nroot = \"/p\"\nmode = \"mirrored\"\n"),
            "mirror",
        );
        for name in ["_studio", "_Studio"] {
            check_refused(
                &format!("{MINIMAL}[[project]]\nname = \"{name}\"\nroot = \"/p\"\n"),
                &format!("project.{name}.name: _studio is where nodes keep what concerns the studio"),
            );
        }
        let many = (0..1024).map(|n| format!("[[project]]\nname = \"p{n}\"\nroot = \"/p\"\n"));
        check_refused(&format!("{MINIMAL}{}", many.collect::<String>()), "at most 1023");
        check_refused(
            &format!(
                "{MINIMAL}[[project]]\nname = \"a\"\nroot = \"/p\"\ntemplate = \"{{root}}/{{project}}/x.{{representation}}\"\n"
            ),
            "project.a.template cannot be used",
        );
    }
}
