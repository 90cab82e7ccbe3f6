//! Names and numbers of the studio's world: who (node, site), what (project, asset, subset, version).
//!
//! Every id is a newtype with a private field. `FromStr` is the way in, its error keeps the rejected text;
//! `Display` is the full canonical form. Serde goes through the same checks, so an id that came from a peer is as
//! valid as one that was typed.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a text is not a valid id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not a valid {what}: {rule}")]
pub struct InvalidId {
    /// The kind of id that was wanted.
    pub what: &'static str,
    /// The rejected text, shortened to 80 characters.
    pub text: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

impl InvalidId {
    pub(crate) fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        Self { what, text: text.chars().take(80).collect(), rule }
    }
}

/// Declares a text newtype whose only way in is a check.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the canonical text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidId::new($what, text, $rule))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// A DNS label: the names of studios, sites and nodes stand in certificates.
fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
}

/// Avalon's own rule for names is `^[a-zA-Z0-9_.]*$`; we add `-`, which studios use in project names, and refuse
/// what a file system would not take as one visible component.
pub(crate) fn is_avalon_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=128).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && bytes.first() != Some(&b'.')
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'.')
}

text_id!(
    /// A studio: one certificate authority, the trust boundary.
    StudioName, "studio name", is_dns_label, "1 to 63 of a-z, 0-9 and '-', not at either end"
);
text_id!(
    /// A place, such as `london` or `home-anna`.
    SiteName, "site name", is_dns_label, "1 to 63 of a-z, 0-9 and '-', not at either end"
);
text_id!(
    /// The name of one daemon within its site, such as `ws12`.
    NodeName, "node name", is_dns_label, "1 to 63 of a-z, 0-9 and '-', not at either end"
);
text_id!(
    /// An Avalon project, such as `lantern`; also the name of its folder beneath the root.
    ProjectName, "project name", is_avalon_name,
    "1 to 128 of a-z, A-Z, 0-9, '_', '.' and '-', not starting with '.' or '-' nor ending with '.'"
);
text_id!(
    /// An Avalon silo, such as `assets` or `film`.
    SiloName, "silo name", is_avalon_name,
    "1 to 128 of a-z, A-Z, 0-9, '_', '.' and '-', not starting with '.' or '-' nor ending with '.'"
);
text_id!(
    /// An Avalon asset or shot, unique within its project, such as `robot` or `sh010`.
    AssetName, "asset name", is_avalon_name,
    "1 to 128 of a-z, A-Z, 0-9, '_', '.' and '-', not starting with '.' or '-' nor ending with '.'"
);
text_id!(
    /// An Avalon subset of an asset, such as `modelDefault`.
    SubsetName, "subset name", is_avalon_name,
    "1 to 128 of a-z, A-Z, 0-9, '_', '.' and '-', not starting with '.' or '-' nor ending with '.'"
);
text_id!(
    /// An Avalon representation of a version, such as `abc` or `exr`.
    RepresentationName, "representation name", is_avalon_name,
    "1 to 128 of a-z, A-Z, 0-9, '_', '.' and '-', not starting with '.' or '-' nor ending with '.'"
);

/// One daemon at one site, written `ws12@london`; the identity that its certificate carries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId {
    /// The site that the node stands at.
    pub site: SiteName,
    /// The node's name, unique within the studio together with the site.
    pub node: NodeName,
}

impl NodeId {
    /// Joins a node's name and its site.
    pub fn new(node: NodeName, site: SiteName) -> Self {
        Self { site, node }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.node, self.site)
    }
}

impl FromStr for NodeId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (node, site) =
            text.split_once('@').ok_or_else(|| InvalidId::new("node id", text, "written as node@site"))?;
        Ok(Self::new(node.parse()?, site.parse()?))
    }
}

impl TryFrom<String> for NodeId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.to_string()
    }
}

/// Which version of a subset: a number, or the one mutable pointer that OpenPype calls `hero`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum VersionSlot {
    /// A numbered, immutable version: 0 to 999,999.
    Number(u32),
    /// The `hero` directory, which follows a version.
    Hero,
}

impl VersionSlot {
    /// The highest version number that is accepted; six digits are more than any production has used.
    pub const MAX_NUMBER: u32 = 999_999;
}

impl fmt::Display for VersionSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "v{number:03}"),
            Self::Hero => f.write_str("hero"),
        }
    }
}

impl FromStr for VersionSlot {
    type Err = InvalidId;
    /// Accepts `v012`, `12` and `hero`.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text == "hero" {
            return Ok(Self::Hero);
        }
        let digits = text.strip_prefix('v').unwrap_or(text);
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        match digits.parse::<u32>() {
            Ok(number) if plain && number <= Self::MAX_NUMBER => Ok(Self::Number(number)),
            _ => Err(InvalidId::new("version", text, "a number up to 999999 as v012 or 12, or hero")),
        }
    }
}

impl TryFrom<String> for VersionSlot {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<VersionSlot> for String {
    fn from(slot: VersionSlot) -> Self {
        slot.to_string()
    }
}

/// One version of one subset in one project; all generations of it share this id.
///
/// Written `lantern:robot/modelDefault@v002`. The silo and hierarchy are not part of it: an Avalon asset's name is
/// unique within its project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionId {
    /// The project.
    pub project: ProjectName,
    /// The asset within the project.
    pub asset: AssetName,
    /// The subset of the asset.
    pub subset: SubsetName,
    /// Which version of the subset.
    pub slot: VersionSlot,
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}@{}", self.project, self.asset, self.subset, self.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_accept_what_avalon_accepts_and_refuse_what_a_disk_would_not_take() {
        for good in ["Bruce_01", "sh010", "a.b", "robot-2", "X"] {
            assert!(good.parse::<AssetName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "é", "-rf", "dot.", &"x".repeat(129)] {
            assert!(bad.parse::<AssetName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn node_id_is_written_node_at_site_and_reads_back() {
        let id: NodeId = "ws12@london".parse().unwrap();
        assert_eq!((id.node.as_str(), id.site.as_str()), ("ws12", "london"));
        assert_eq!(id.to_string(), "ws12@london");
        for bad in ["ws12", "@london", "WS12@london", "a@b@c", "-a@b"] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn version_slot_reads_all_spellings_and_prints_one() {
        for (text, shown) in [("v012", "v012"), ("12", "v012"), ("v1234", "v1234"), ("hero", "hero")] {
            assert_eq!(text.parse::<VersionSlot>().unwrap().to_string(), shown);
        }
        for bad in ["", "v", "vv1", "-1", "+1", "1000000", "latest", "v1 "] {
            assert!(bad.parse::<VersionSlot>().is_err(), "{bad}");
        }
    }

    #[test]
    fn error_names_the_kind_the_text_and_the_rule() {
        let error = "Ws 1".parse::<NodeName>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"Ws 1\" is not a valid node name: 1 to 63 of a-z, 0-9 and '-', not at either end"
        );
    }
}
