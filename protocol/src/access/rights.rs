//! What nodes may do in a project.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Role;

/// Something that a node does in a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Learn that the project exists, and which versions it has.
    See,
    /// Fetch content.
    Pull,
    /// Publish versions.
    Publish,
    /// Take versions out of use and bring them back, and decide about conflicts.
    Retire,
    /// Everything else; in all projects also the studio's policy, invitations and revocations.
    Admin,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::See, Self::Pull, Self::Publish, Self::Retire, Self::Admin];

    /// Returns the word, as it stands in policies and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::See => "see",
            Self::Pull => "pull",
            Self::Publish => "publish",
            Self::Retire => "retire",
            Self::Admin => "admin",
        }
    }

    /// What a grant of it allows: nobody fetches or publishes what they cannot see, and admin is all.
    const fn bits(self) -> u8 {
        match self {
            Self::See => 0b1,
            Self::Pull => 0b11,
            Self::Publish => 0b101,
            Self::Retire => 0b1001,
            Self::Admin => 0b1_1111,
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::See => 0b1,
            Self::Pull => 0b10,
            Self::Publish => 0b100,
            Self::Retire => 0b1000,
            Self::Admin => 0b1_0000,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All that a node may do in a project.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Rights(u8);

impl From<Rights> for u8 {
    fn from(rights: Rights) -> Self {
        rights.0
    }
}

impl TryFrom<u8> for Rights {
    type Error = &'static str;
    /// Takes what grants can add up to, and nothing else: one bit for each action, in their order.
    fn try_from(bits: u8) -> Result<Self, &'static str> {
        let all = Action::ALL.into_iter().filter(|action| bits & action.bit() != 0);
        match Self::of(all) {
            rights if rights.0 == bits => Ok(rights),
            _ => Err("not rights that can be granted"),
        }
    }
}

impl Rights {
    /// Nothing, not even to know of it.
    pub const NONE: Self = Self(0);
    /// Everything.
    pub const ALL: Self = Self(Action::Admin.bits());

    /// Returns what a grant of these actions allows; what they need is part of it.
    pub fn of(actions: impl IntoIterator<Item = Action>) -> Self {
        Self(actions.into_iter().fold(0, |bits, action| bits | action.bits()))
    }

    /// Returns what a role may do where the studio's policy grants nothing to anybody.
    pub fn of_role(role: Role) -> Self {
        match role {
            Role::Admin => Self::ALL,
            Role::Site | Role::Workstation | Role::Farm => {
                Self::of([Action::See, Action::Pull, Action::Publish, Action::Retire])
            }
            Role::Vendor => Self::NONE,
        }
    }

    /// Says whether something is allowed.
    pub const fn allows(self, action: Action) -> bool {
        self.0 & action.bit() != 0
    }

    /// Returns what is in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns what is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns what is in this one and not in the other.
    pub fn beyond(self, other: Self) -> impl Iterator<Item = Action> {
        Action::ALL.into_iter().filter(move |action| self.allows(*action) && !other.allows(*action))
    }

    /// Returns the actions, in order.
    pub fn actions(self) -> impl Iterator<Item = Action> {
        self.beyond(Self::NONE)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.actions().map(Action::as_str).collect();
        f.write_str(if words.is_empty() { "nothing" } else { "" })?;
        f.write_str(&words.join(", "))
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rights({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_allows_what_it_needs_and_admin_allows_all() {
        let allowed = |action| Rights::of([action]).to_string();
        assert_eq!(allowed(Action::See), "see");
        assert_eq!(allowed(Action::Pull), "see, pull");
        assert_eq!(allowed(Action::Publish), "see, publish");
        assert_eq!(allowed(Action::Retire), "see, retire");
        assert_eq!(allowed(Action::Admin), "see, pull, publish, retire, admin");
        assert_eq!(
            (Rights::of([Action::Admin]), Rights::NONE.to_string()),
            (Rights::ALL, "nothing".to_owned())
        );
        for action in Action::ALL {
            assert!(Rights::of([action]).allows(action) && !Rights::NONE.allows(action));
        }
    }

    #[test]
    fn without_grants_a_vendor_may_nothing_and_only_an_admin_everything() {
        for role in Role::ALL {
            let rights = Rights::of_role(role);
            assert_eq!(rights == Rights::NONE, role == Role::Vendor);
            assert_eq!(rights.allows(Action::Admin), role == Role::Admin);
        }
        let lacking: Vec<Action> = Rights::ALL.beyond(Rights::of_role(Role::Farm)).collect();
        assert_eq!(lacking, [Action::Admin]);
        assert_eq!(
            Rights::of([Action::Pull]).or(Rights::of([Action::Retire])).to_string(),
            "see, pull, retire"
        );
    }
}
