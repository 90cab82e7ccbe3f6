//! What the configuration file says, before it means anything.

use std::path::{Path, PathBuf};

use avalon_protocol::{
    limit::{Class, Direction},
    mode::ProjectMode,
};
use serde::Deserialize;
use toml::Spanned;

use super::{ConfigError, NetworkMode};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) node: RawNode,
    #[serde(default)]
    pub(super) project: Vec<RawProject>,
    #[serde(default)]
    pub(super) peer: Vec<RawPeer>,
    #[serde(default)]
    pub(super) settle: RawSettle,
    #[serde(default)]
    pub(super) scan: RawScan,
    #[serde(default)]
    pub(super) scrub: RawScrub,
    #[serde(default)]
    pub(super) limit: Vec<RawLimit>,
    #[serde(default)]
    pub(super) hook: Vec<RawHook>,
    #[serde(default)]
    pub(super) api: RawApi,
    #[serde(default)]
    pub(super) audit: RawAudit,
    #[serde(default)]
    pub(super) log: RawLog,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNode {
    pub(super) state_dir: PathBuf,
    pub(super) listen: Option<String>,
    pub(super) socket: Option<PathBuf>,
    pub(super) socket_group: Option<String>,
    pub(super) shutdown_timeout: Option<String>,
    pub(super) certificate_validity: Option<String>,
    pub(super) max_feed_bytes: Option<String>,
    pub(super) knowledge_max_age: Option<String>,
    pub(super) revocation_grace: Option<String>,
    pub(super) serve_when_old: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProject {
    pub(super) name: String,
    pub(super) root: PathBuf,
    pub(super) template: Option<String>,
    #[serde(default)]
    pub(super) templates: Vec<String>,
    #[serde(default)]
    pub(super) mode: ProjectMode,
    #[serde(default)]
    pub(super) partial: bool,
    pub(super) quota: Option<String>,
    pub(super) keep_free: Option<String>,
    pub(super) trash_grace: Option<String>,
    pub(super) evict_after: Option<String>,
    #[serde(default)]
    pub(super) network: NetworkMode,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPeer {
    pub(super) address: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSettle {
    pub(super) quiet: Option<String>,
    pub(super) network_quiet: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawScan {
    pub(super) interval: Option<String>,
    pub(super) network_interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawScrub {
    pub(super) enabled: Option<bool>,
    pub(super) interval: Option<String>,
    pub(super) rate: Option<String>,
    pub(super) when: Option<String>,
    pub(super) repair: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimit {
    pub(super) rate: String,
    pub(super) direction: Option<Direction>,
    pub(super) site: Option<String>,
    pub(super) class: Option<Class>,
    pub(super) when: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHook {
    pub(super) on: Spanned<Vec<String>>,
    pub(super) run: Spanned<Vec<String>>,
    pub(super) timeout: Option<String>,
    #[serde(default)]
    pub(super) r#match: RawHookMatch,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHookMatch {
    pub(super) project: Option<Spanned<OneOrMore>>,
    pub(super) asset: Option<Spanned<OneOrMore>>,
    pub(super) subset: Option<Spanned<OneOrMore>>,
    pub(super) representation: Option<Spanned<OneOrMore>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawApi {
    #[serde(default)]
    pub(super) read_groups: Vec<String>,
    #[serde(default)]
    pub(super) operate_groups: Vec<String>,
    #[serde(default)]
    pub(super) admin_groups: Vec<String>,
    pub(super) listen: Option<String>,
    pub(super) listen_role: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAudit {
    pub(super) keep: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    pub(super) level: Option<String>,
}

/// Reads the text; what serde says of unknown and missing fields is put into the words of a configuration file.
pub(super) fn parse(file: &Path, text: &str) -> Result<RawConfig, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.get(..start).map_or(1, |before| before.matches('\n').count() + 1);
        ConfigError::Syntax { file: file.to_owned(), line, problem: reword(error.message()) }
    })
}

fn reword(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field") {
        let unknown = quoted.next().unwrap_or_default();
        let known: Vec<&str> = quoted.collect();
        let nearest = known.iter().max_by(|a, b| similarity(unknown, a).total_cmp(&similarity(unknown, b)));
        return match nearest {
            Some(nearest) if similarity(unknown, nearest) > 0.6 => {
                format!("unknown key `{unknown}`; did you mean `{nearest}`?")
            }
            _ => format!("unknown key `{unknown}`; valid here: {}", known.join(", ")),
        };
    }
    if message.starts_with("missing field") {
        return format!("missing key `{}`", quoted.next().unwrap_or_default());
    }
    message.replace('\n', " ")
}

fn similarity(one: &str, other: &str) -> f64 {
    strsim::jaro_winkler(one, other)
}
