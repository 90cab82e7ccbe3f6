//! A studio in a temporary directory, at a time that never moves.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use avalon_protocol::{access::Role, id::NodeId};
use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_ED25519};

use crate::{
    authority::{
        Authority, AuthorityError, IssueRequest, IssuedCertificate, NODE_VALIDITY, Period, node_params,
    },
    identity::{Identity, NodeKey},
    issuing::IssuingAuthority,
    key_file::{Access, Existing, write_durably},
    request::CertificateRequest,
};

/// 15 January 2027, 08:00 UTC.
pub(crate) fn day_one() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(crate) struct Studio {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) authority: Authority,
}

impl Studio {
    pub(crate) fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(&name.parse().unwrap(), &dir.path().join("ca"), day_one()).unwrap();
        Self { dir, authority }
    }

    /// Issues an identity and returns its directory.
    pub(crate) fn issue(&self, id: &str) -> PathBuf {
        let out = self.dir.path().join(id);
        self.authority.issue_into(&what(id), &out, day_one()).unwrap();
        out
    }

    /// Lets a node issue for a year, and returns what it does that with.
    pub(crate) fn delegate(&self, id: &str) -> IssuingAuthority {
        let out = self.dir.path().join(format!("issuing-{id}"));
        self.authority.delegate_into(&node(id), 4 * NODE_VALIDITY, &out, day_one()).unwrap();
        IssuingAuthority::open(&out).unwrap().unwrap()
    }

    /// Makes an identity that an issuing node certified.
    pub(crate) fn delegated_identity(&self, issuer: &IssuingAuthority, id: &str) -> Identity {
        let (key, out) = (NodeKey::generate().unwrap(), self.dir.path().join(format!("by-delegate-{id}")));
        let issued = issuer.sign(&request(&key), &what(id), day_one()).unwrap();
        crate::identity::install(&out, &key, &issued.chain, issuer.authority().der().clone(), day_one())
            .unwrap();
        Identity::load(&out, day_one()).unwrap()
    }

    pub(crate) fn identity(&self, id: &str) -> Identity {
        Identity::load(&self.issue(id), day_one()).unwrap()
    }

    /// Certifies `ws12@london` after `change`, as no version of this program would.
    pub(crate) fn certify_odd(
        &self,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        (self.certify_key(&key, change), key)
    }

    pub(crate) fn certify_key(
        &self,
        key: &KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> rcgen::Certificate {
        certify_by(&self.authority, &self.authority.issuer, key, change)
    }
}

/// Certifies `ws12@london` after `change`, by any key.
pub(crate) fn certify_by(
    authority: &Authority,
    issuer: &Issuer<'static, KeyPair>,
    key: &KeyPair,
    change: impl FnOnce(&mut CertificateParams),
) -> rcgen::Certificate {
    let period = Period::backdated(day_one(), day_one() + NODE_VALIDITY);
    let mut params =
        node_params(authority.studio(), &node("ws12@london"), Role::Workstation, period).unwrap();
    change(&mut params);
    params.signed_by(key, issuer).unwrap()
}

pub(crate) fn what(id: &str) -> IssueRequest {
    IssueRequest { node: node(id), role: Role::Workstation, validity: NODE_VALIDITY }
}

pub(crate) fn request(key: &NodeKey) -> CertificateRequest {
    CertificateRequest::parse(key.request(&node("somebody@anywhere")).unwrap().der()).unwrap()
}

/// Signs for a new key.
pub(crate) fn sign(
    authority: &Authority,
    what: &IssueRequest,
    now: SystemTime,
) -> Result<IssuedCertificate, AuthorityError> {
    authority.sign(&request(&NodeKey::generate().unwrap()), what, now)
}

pub(crate) fn node(id: &str) -> NodeId {
    id.parse().unwrap()
}

pub(crate) fn overwrite(path: &Path, content: &[u8]) {
    write_durably(path, content, Access::Private, Existing::Replace).unwrap();
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}
