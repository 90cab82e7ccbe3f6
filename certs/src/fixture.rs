//! A studio in a temporary directory, at a time that never moves.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use avalon_protocol::id::NodeId;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};

use crate::{
    authority::{Authority, NODE_VALIDITY, node_params},
    identity::Identity,
    key_file::{Access, Existing, write_durably},
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
        self.authority.issue_into(&node(id), NODE_VALIDITY, &out, day_one()).unwrap();
        out
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
        let mut params =
            node_params(self.authority.studio(), &node("ws12@london"), day_one(), day_one() + NODE_VALIDITY)
                .unwrap();
        change(&mut params);
        params.signed_by(key, &self.authority.issuer).unwrap()
    }
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
