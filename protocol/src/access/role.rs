//! What kind of node a certificate makes of its owner.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

/// The role in a node's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything, also the policy and revocations. Only the studio's CA itself gives it.
    Admin,
    /// A site's server.
    Site,
    /// An artist's machine.
    Workstation,
    /// A machine that renders.
    Farm,
    /// Somebody outside the studio.
    Vendor,
}

/// A text that is no role.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not a role; the roles are admin, site, workstation, farm and vendor")]
pub struct InvalidRole {
    /// The rejected text, shortened to 80 characters.
    pub text: String,
}

impl Role {
    /// All of them, the mightiest first.
    pub const ALL: [Self; 5] = [Self::Admin, Self::Site, Self::Workstation, Self::Farm, Self::Vendor];

    /// What a certificate without a role counts as: those were issued before there were roles, to machines of the studio.
    pub const OF_OLD: Self = Self::Site;

    /// Returns the word, as it stands in certificates, policies and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Site => "site",
            Self::Workstation => "workstation",
            Self::Farm => "farm",
            Self::Vendor => "vendor",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = InvalidRole;
    /// Takes exactly the words of [`Role::as_str`]; another spelling of a role must not mean one.
    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        let known = Self::ALL.into_iter().find(|role| role.as_str() == text);
        known.ok_or_else(|| InvalidRole { text: text.chars().take(80).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_one_word_everywhere() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
            assert_eq!(serde_json::from_str::<Role>(&format!("\"{role}\"")).unwrap(), role);
        }
        for bad in ["", "Admin", "admin ", "ADMIN", "root", "work-station", "admin\0"] {
            assert!(bad.parse::<Role>().is_err(), "{bad:?}");
        }
        let error = "boss".parse::<Role>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"boss\" is not a role; the roles are admin, site, workstation, farm and vendor"
        );
    }
}
