//! A node's identity: its key, its certificate and its studio's authority, as `avalonctl ca issue` left them.
//!
//! Loading checks everything that can be checked without a peer, so that a wrong file is a message at start and not a
//! refused connection at night.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use avalon_protocol::{
    id::{NodeId, StudioName},
    signing::{RecordSigner, Signature},
};
use ring::signature::Ed25519KeyPair;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use crate::{
    certificate::{AuthorityCertificate, CertificateError, NodeCertificate, utc},
    key_file::{CertificateFile, KeyFileError, MalformedFile, PrivateKey},
    trust::StudioTrust,
};

/// The node's private key, within the identity directory.
pub const KEY_FILE: &str = "node.key";
/// The node's certificate, within the identity directory.
pub const CERTIFICATE_FILE: &str = "node.pem";
/// The certificate of the studio's authority, within the identity directory.
pub const AUTHORITY_FILE: &str = "ca.pem";

/// Why a node's identity cannot be used, and what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is no private key.
    #[error("there is no private key {}; issue one with `avalonctl ca issue --dir CA_DIR --node NODE --site SITE --out {}`", path.display(), dir_of(path).display())]
    MissingKey {
        /// Where it should be.
        path: PathBuf,
    },
    /// There is no certificate.
    #[error("there is no certificate {}; issue one with `avalonctl ca issue --dir CA_DIR --node NODE --site SITE --out {}`", path.display(), dir_of(path).display())]
    MissingCertificate {
        /// Where it should be.
        path: PathBuf,
    },
    /// There is no authority's certificate.
    #[error("there is no studio CA certificate {}; copy ca.pem from the directory of the studio CA", path.display())]
    MissingAuthority {
        /// Where it should be.
        path: PathBuf,
    },
    /// Others may read the private key.
    #[error("the private key {} can be read by other users (mode {mode:04o}); run `chmod 600 {}`, and issue a new identity if one of them may have", path.display(), path.display())]
    KeyExposed {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file could not be read.
    #[error("could not read {}; check that the user of avalond may", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM of what it should be.
    #[error("{} is damaged; restore it, or issue a new identity with `avalonctl ca issue`", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: MalformedFile,
    },
    /// The key or the certificate is of another algorithm.
    #[error("{} is not Ed25519; issue a new identity with `avalonctl ca issue`", path.display())]
    NotEd25519 {
        /// The file.
        path: PathBuf,
    },
    /// The certificate's key is another one.
    #[error("the key {} does not belong to the certificate beside it; issue a new identity with `avalonctl ca issue`", path.display())]
    KeyMismatch {
        /// The key's file.
        path: PathBuf,
    },
    /// The certificate names no node.
    #[error("the certificate {} names no node; issue one with `avalonctl ca issue`", path.display())]
    NoName {
        /// The certificate's file.
        path: PathBuf,
    },
    /// The certificate names more than one node.
    #[error("the certificate {} has {found} avalon:// names where exactly one belongs; issue one with `avalonctl ca issue`", path.display())]
    AmbiguousName {
        /// The certificate's file.
        path: PathBuf,
        /// How many names it has.
        found: usize,
    },
    /// Another authority issued the certificate.
    #[error("the certificate {} was not issued by the CA of studio {studio} in {AUTHORITY_FILE} beside it; take both from the same studio CA", path.display())]
    Foreign {
        /// The certificate's file.
        path: PathBuf,
        /// The studio whose authority is beside it.
        studio: StudioName,
    },
    /// The certificate has another defect.
    #[error("the certificate {} cannot be used; issue one with `avalonctl ca issue`", path.display())]
    Unsuitable {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// The certificate beside it is not that of a studio's authority.
    #[error("{} is not the certificate of a studio CA; copy ca.pem from the directory of the studio CA", path.display())]
    NotAuthority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// The certificate's time is over.
    #[error("the certificate of {node} expired on {}; renew it with `avalonctl ca issue --dir CA_DIR --node {} --site {} --out {}`", utc(*expired_at), node.node, node.site, dir.display())]
    Expired {
        /// The node that it names.
        node: NodeId,
        /// When it ended.
        expired_at: SystemTime,
        /// The identity's directory.
        dir: PathBuf,
    },
    /// The certificate's time has not come.
    #[error("the certificate of {node} is not valid before {}; check the clock of this machine and that of the studio CA", utc(*valid_from))]
    NotYetValid {
        /// The node that it names.
        node: NodeId,
        /// When it begins.
        valid_from: SystemTime,
    },
}

/// A node's checked identity.
#[derive(Debug)]
pub struct Identity {
    facts: NodeCertificate,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKey,
    authority: Arc<AuthorityCertificate>,
    signer: Arc<Signer>,
}

impl Identity {
    /// Loads the identity in `dir` and checks that it is whole, private, the studio's and valid at `now`.
    ///
    /// # Errors
    /// [`IdentityError`], whose text says what to do. Only [`IdentityError::NotYetValid`] may pass by waiting.
    pub fn load(dir: &Path, now: SystemTime) -> Result<Self, IdentityError> {
        let [key_path, certificate_path, authority_path] =
            [KEY_FILE, CERTIFICATE_FILE, AUTHORITY_FILE].map(|name| dir.join(name));
        let key = PrivateKey::read(&key_path)
            .map_err(|error| from_file(error, |path| IdentityError::MissingKey { path }))?;
        let certificate = CertificateFile::read(&certificate_path)
            .map_err(|error| from_file(error, |path| IdentityError::MissingCertificate { path }))?
            .der;
        let authority = CertificateFile::read(&authority_path)
            .map_err(|error| from_file(error, |path| IdentityError::MissingAuthority { path }))?
            .der;
        let authority = AuthorityCertificate::parse(authority)
            .map_err(|source| IdentityError::NotAuthority { path: authority_path, source })?;
        let facts =
            authority.issued(&certificate).map_err(|source| from_certificate(source, &certificate_path))?;

        if facts.public_key != key.public_key() {
            return Err(IdentityError::KeyMismatch { path: key_path });
        }
        if now < facts.valid_from {
            return Err(IdentityError::NotYetValid { node: facts.node, valid_from: facts.valid_from });
        }
        if now > facts.expires_at {
            let (node, expired_at) = (facts.node, facts.expires_at);
            return Err(IdentityError::Expired { node, expired_at, dir: dir.to_owned() });
        }
        let signer = Arc::new(Signer { key: key.to_ring(), certificate: certificate.clone() });
        Ok(Self { facts, chain: vec![certificate], key, authority: Arc::new(authority), signer })
    }

    /// Returns the node that this is.
    pub fn node(&self) -> &NodeId {
        &self.facts.node
    }

    /// Returns the studio that it belongs to.
    pub fn studio(&self) -> &StudioName {
        &self.facts.studio
    }

    /// Returns when the certificate ends.
    pub fn expires_at(&self) -> SystemTime {
        self.facts.expires_at
    }

    /// Returns what is shown to peers: the node's certificate.
    pub fn certificate_chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Returns the certificate of the studio's authority.
    pub fn authority(&self) -> &Arc<AuthorityCertificate> {
        &self.authority
    }

    /// Returns the signer of this node's feeds.
    pub fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.signer)
    }

    /// Returns the check of other nodes' feeds.
    pub fn trust(&self) -> StudioTrust {
        StudioTrust::new(Arc::clone(&self.authority))
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        self.key.to_pkcs8().into()
    }
}

/// Signs feeds with the node's own key. Its `Debug` does not show the key.
pub struct Signer {
    key: Ed25519KeyPair,
    certificate: CertificateDer<'static>,
}

impl RecordSigner for Signer {
    #[expect(clippy::expect_used, reason = "an Ed25519 signature has 64 bytes (RFC 8032)")]
    fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.key.sign(message);
        Signature::from_bytes(signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes"))
    }

    fn certificate(&self) -> &[u8] {
        &self.certificate
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(..)")
    }
}

fn from_file(error: KeyFileError, missing: impl FnOnce(PathBuf) -> IdentityError) -> IdentityError {
    match error {
        KeyFileError::Missing { path } => missing(path),
        KeyFileError::Exposed { path, mode } => IdentityError::KeyExposed { path, mode },
        KeyFileError::Unreadable { path, source } => IdentityError::Unreadable { path, source },
        KeyFileError::NotEd25519 { path } => IdentityError::NotEd25519 { path },
        KeyFileError::Malformed { path, source } => IdentityError::Malformed { path, source },
    }
}

fn from_certificate(error: CertificateError, path: &Path) -> IdentityError {
    let path = path.to_owned();
    match error {
        CertificateError::NoName => IdentityError::NoName { path },
        CertificateError::AmbiguousName { found } => IdentityError::AmbiguousName { path, found },
        CertificateError::NotEd25519 => IdentityError::NotEd25519 { path },
        CertificateError::Foreign { studio } | CertificateError::OtherStudio { expected: studio, .. } => {
            IdentityError::Foreign { path, studio }
        }
        source => IdentityError::Unsuitable { path, source },
    }
}

fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SanType};

    use super::*;
    use crate::{
        authority::{BACKDATE, NODE_VALIDITY},
        fixture::{Studio, day_one, node, overwrite, set_mode},
    };

    #[test]
    fn an_issued_identity_loads_and_says_who_it_is() {
        let studio = Studio::new("lantern-films");
        let dir = studio.issue("ws12@london");
        for now in [day_one() - BACKDATE, day_one(), day_one() + NODE_VALIDITY] {
            let identity = Identity::load(&dir, now).unwrap();
            assert_eq!(identity.node(), &node("ws12@london"));
            assert_eq!(identity.studio().as_str(), "lantern-films");
            assert_eq!(identity.expires_at(), day_one() + NODE_VALIDITY);
            assert_eq!(identity.authority().fingerprint(), studio.authority.fingerprint());
        }
    }

    #[test]
    fn missing_files_are_told_apart() {
        let studio = Studio::new("a");
        let dir = studio.issue("ws12@london");
        let without = |name: &str| {
            let (path, aside) = (dir.join(name), dir.join("aside"));
            fs::rename(&path, &aside).unwrap();
            let error = Identity::load(&dir, day_one()).unwrap_err();
            fs::rename(&aside, &path).unwrap();
            error
        };
        let key = without("node.key");
        assert!(matches!(&key, IdentityError::MissingKey { .. }), "{key}");
        assert!(
            key.to_string().ends_with(&format!("--node NODE --site SITE --out {}`", dir.display())),
            "{key}"
        );
        let certificate = without("node.pem");
        assert!(matches!(&certificate, IdentityError::MissingCertificate { .. }), "{certificate}");
        let authority = without("ca.pem");
        assert!(matches!(&authority, IdentityError::MissingAuthority { .. }), "{authority}");
        assert!(Identity::load(&dir, day_one()).is_ok());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_command_that_mends_it() {
        let studio = Studio::new("a");
        let dir = studio.issue("ws12@london");
        let path = dir.join("node.key");
        for mode in [0o640, 0o604, 0o660, 0o610, 0o777] {
            set_mode(&path, mode);
            let error = Identity::load(&dir, day_one()).unwrap_err();
            assert!(
                matches!(&error, IdentityError::KeyExposed { mode: found, .. } if *found == mode),
                "{error}"
            );
            assert!(error.to_string().contains(&format!("run `chmod 600 {}`", path.display())), "{error}");
        }
        set_mode(&path, 0o400);
        assert!(Identity::load(&dir, day_one()).is_ok());
    }

    #[test]
    fn an_expired_certificate_says_when_and_how_to_renew() {
        let studio = Studio::new("a");
        let dir = studio.issue("ws12@london");
        let error = Identity::load(&dir, day_one() + NODE_VALIDITY + Duration::from_secs(1)).unwrap_err();
        let expected = format!(
            "the certificate of ws12@london expired on 2027-04-15 08:00:00 UTC; renew it with \
             `avalonctl ca issue --dir CA_DIR --node ws12 --site london --out {}`",
            dir.display()
        );
        assert_eq!(error.to_string(), expected);
        assert!(matches!(error, IdentityError::Expired { .. }));
    }

    #[test]
    fn a_certificate_of_the_future_blames_the_clock() {
        let studio = Studio::new("a");
        let dir = studio.issue("ws12@london");
        let error = Identity::load(&dir, day_one() - BACKDATE - Duration::from_secs(1)).unwrap_err();
        assert!(matches!(&error, IdentityError::NotYetValid { .. }), "{error}");
        assert!(
            error.to_string().contains("is not valid before 2027-01-15 07:00:00 UTC; check the clock"),
            "{error}"
        );
    }

    #[test]
    fn damaged_files_are_named() {
        let studio = Studio::new("a");
        let good = studio.issue("ws12@london");
        let certificate = fs::read(good.join("node.pem")).unwrap();
        let cases: [(&str, Vec<u8>); 6] = [
            ("node.key", b"garbage".to_vec()),
            ("node.key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec()),
            ("node.pem", Vec::new()),
            ("node.pem", [certificate.clone(), certificate.clone()].concat()),
            ("ca.pem", certificate[..certificate.len() / 2].to_vec()),
            ("ca.pem", vec![b'\n'; 65 * 1024]),
        ];
        for (name, content) in cases {
            let dir = studio.issue("ws13@london");
            overwrite(&dir.join(name), &content);
            let error = Identity::load(&dir, day_one()).unwrap_err();
            assert!(
                matches!(&error, IdentityError::Malformed { path, .. } if path.ends_with(name)),
                "{error:?}"
            );
            fs::remove_dir_all(dir).unwrap();
        }
    }

    #[test]
    fn an_unreadable_file_is_told_from_a_missing_one() {
        let studio = Studio::new("a");
        let dir = studio.issue("ws12@london");
        fs::remove_file(dir.join("node.pem")).unwrap();
        fs::create_dir(dir.join("node.pem")).unwrap();
        let error = Identity::load(&dir, day_one()).unwrap_err();
        assert!(matches!(&error, IdentityError::Unreadable { .. }), "{error:?}");
    }

    #[test]
    fn a_key_of_another_certificate_is_found() {
        let studio = Studio::new("a");
        let (dir, other) = (studio.issue("ws12@london"), studio.issue("ws13@london"));
        overwrite(&dir.join("node.key"), &fs::read(other.join("node.key")).unwrap());
        let error = Identity::load(&dir, day_one()).unwrap_err();
        assert!(matches!(&error, IdentityError::KeyMismatch { .. }), "{error}");
    }

    #[test]
    fn a_certificate_of_another_authority_is_foreign_even_if_the_studio_has_the_same_name() {
        let (studio, double) = (Studio::new("a"), Studio::new("a"));
        let dir = studio.issue("ws12@london");
        overwrite(&dir.join("ca.pem"), &fs::read(double.dir.path().join("ca/ca.pem")).unwrap());
        let error = Identity::load(&dir, day_one()).unwrap_err();
        assert!(matches!(&error, IdentityError::Foreign { .. }), "{error}");
    }

    #[test]
    fn a_nodes_certificate_is_no_authority() {
        let studio = Studio::new("a");
        let dir = studio.issue("ws12@london");
        overwrite(&dir.join("ca.pem"), &fs::read(dir.join("node.pem")).unwrap());
        let error = Identity::load(&dir, day_one()).unwrap_err();
        assert!(matches!(&error, IdentityError::NotAuthority { .. }), "{error}");
    }

    #[test]
    fn a_certificate_must_name_exactly_one_node_and_serve_both_sides() {
        let studio = Studio::new("a");
        let dir = studio.issue("ws12@london");
        let load_odd = |change: fn(&mut rcgen::CertificateParams)| {
            let (certificate, key) = studio.certify_odd(change);
            overwrite(&dir.join("node.pem"), certificate.pem().as_bytes());
            overwrite(&dir.join("node.key"), key.serialize_pem().as_bytes());
            Identity::load(&dir, day_one())
        };
        assert!(load_odd(|_| {}).is_ok());
        let nameless = load_odd(|params| params.subject_alt_names.clear()).unwrap_err();
        assert!(matches!(&nameless, IdentityError::NoName { .. }), "{nameless}");
        let double = load_odd(|params| {
            params.subject_alt_names.push(SanType::URI("avalon://a/london/ws13".try_into().unwrap()));
        })
        .unwrap_err();
        assert!(matches!(&double, IdentityError::AmbiguousName { found: 2, .. }), "{double}");
        let one_sided = load_odd(|params| params.extended_key_usages.truncate(1)).unwrap_err();
        assert!(
            matches!(&one_sided, IdentityError::Unsuitable { source: CertificateError::WrongUsage, .. }),
            "{one_sided}"
        );
    }

    #[test]
    fn only_ed25519_is_taken_as_key_and_in_the_certificate() {
        let studio = Studio::new("a");
        let dir = studio.issue("ws12@london");
        let curve = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        overwrite(&dir.join("node.pem"), studio.certify_key(&curve, |_| {}).pem().as_bytes());
        let error = Identity::load(&dir, day_one()).unwrap_err();
        assert!(
            matches!(&error, IdentityError::NotEd25519 { path } if path.ends_with("node.pem")),
            "{error}"
        );
        overwrite(&dir.join("node.key"), curve.serialize_pem().as_bytes());
        let error = Identity::load(&dir, day_one()).unwrap_err();
        assert!(
            matches!(&error, IdentityError::NotEd25519 { path } if path.ends_with("node.key")),
            "{error}"
        );
    }

    #[test]
    fn debug_does_not_show_the_key() {
        let studio = Studio::new("a");
        let dir = studio.issue("ws12@london");
        let identity = Identity::load(&dir, day_one()).unwrap();
        assert_eq!(format!("{:?}", identity.signer()), "Signer(..)");
        let shown = format!("{identity:?}");
        assert!(shown.contains("key: PrivateKey(..)"), "{shown}");
        let first_bytes = format!("{:?}", &identity.private_key().secret_der()[16..24]);
        assert!(!shown.contains(first_bytes.trim_matches(['[', ']'])), "{shown}");
    }
}
