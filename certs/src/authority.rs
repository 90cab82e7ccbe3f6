//! The studio's certificate authority: a directory with a key and a certificate, used by hand and kept offline.
//!
//! It issues to nodes, and lets nodes issue to others ([`crate::issuing`]), so that it stays in its drawer when somebody
//! joins. Its key may lie under a passphrase ([`crate::passphrase`]).

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use avalon_protocol::id::{NodeId, StudioName};
use rcgen::{Issuer, KeyPair};

use crate::{
    certificate::{AuthorityCertificate, Chain},
    identity::{self, AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, NodeKey},
    issuing::{ISSUING_CERTIFICATE_FILE, ISSUING_KEY_FILE},
    key_file::{
        Access, CertificateFile, Existing, KeyFileError, PrivateKey, create_private_directory,
        pem_of_certificate, write_durably,
    },
    passphrase::{Passphrase, PassphraseError},
    request::{CertificateRequest, KeyToCertify},
};

mod book;
mod certify;
mod error;
mod params;

#[cfg(test)]
pub(crate) use self::params::node_params;
pub use self::{
    book::{MadeList, parse_serial},
    certify::{IssueRequest, IssuedCertificate, ListNumber, ToRevoke},
    error::AuthorityError,
};
pub(crate) use self::{
    certify::Certifier,
    params::{Period, issuing_params},
};

/// How long a node's certificate is valid unless asked otherwise: long enough that a machine survives a holiday, short
/// enough that a stolen key ends by itself within a quarter.
pub const NODE_VALIDITY: Duration = Duration::from_secs(90 * DAY_SECONDS);

/// How long a node may issue unless asked otherwise: the drawer is opened once a year.
pub const ISSUING_VALIDITY: Duration = Duration::from_secs(365 * DAY_SECONDS);

/// How long an authority is valid: longer than any production, because replacing it means visiting each machine.
pub const AUTHORITY_VALIDITY: Duration = Duration::from_secs(3652 * DAY_SECONDS);

/// How far certificates are dated back, for machines whose clocks are behind that of the authority.
pub const BACKDATE: Duration = Duration::from_secs(3600);

const DAY_SECONDS: u64 = 24 * 3600;

const CA_KEY_FILE: &str = "ca.key";
const CA_CERTIFICATE_FILE: &str = "ca.pem";

/// A studio's authority, able to issue.
pub struct Authority {
    certificate: AuthorityCertificate,
    pub(crate) issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("studio", self.studio()).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a studio's authority in `dir`: `ca.key` for its owner alone, `ca.pem` for everybody.
    ///
    /// Both are durable when this returns.
    ///
    /// # Errors
    /// [`AuthorityError::AlreadyExists`] when `dir` holds an authority, which is then untouched; otherwise why it could
    /// not be made or written.
    pub fn create(studio: &StudioName, dir: &Path, now: SystemTime) -> Result<Self, AuthorityError> {
        Self::create_under(studio, dir, None, now)
    }

    /// Makes a studio's authority whose key lies under a passphrase, if there is one.
    ///
    /// # Errors
    /// As [`Authority::create`], and [`AuthorityError::Passphrase`].
    pub fn create_under(
        studio: &StudioName,
        dir: &Path,
        passphrase: Option<&Passphrase>,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let (key_path, certificate_path) = (dir.join(CA_KEY_FILE), dir.join(CA_CERTIFICATE_FILE));
        if let Some(path) =
            [&key_path, &certificate_path].into_iter().find(|path| path.symlink_metadata().is_ok())
        {
            return Err(AuthorityError::AlreadyExists { path: path.clone() });
        }
        let key = PrivateKey::generate()
            .map_err(|source| AuthorityError::Make { what: "studio CA's key", source })?;
        let key_pem = key
            .to_pem_under(passphrase)
            .map_err(|source| AuthorityError::Passphrase { dir: dir.to_owned(), source })?;
        let certificate = params::authority_params(studio, now)?
            .self_signed(key.pair())
            .map_err(|source| AuthorityError::Make { what: "studio CA's certificate", source })?;

        let write = |path: &Path, content: &str, access| {
            write_durably(path, content.as_bytes(), access, Existing::Keep).map_err(|error| {
                match error.source.kind() {
                    io::ErrorKind::AlreadyExists => AuthorityError::AlreadyExists { path: path.to_owned() },
                    _ => AuthorityError::Write { what: "the studio CA", source: error },
                }
            })
        };
        create_private_directory(dir)
            .map_err(|source| AuthorityError::Write { what: "the studio CA", source })?;
        write(&key_path, &key_pem, Access::Private)?;
        if let Err(error) = write(&certificate_path, &certificate.pem(), Access::Public) {
            // A key without its certificate is of no use and would only stand in the way of the next attempt.
            std::fs::remove_file(&key_path).ok();
            return Err(error);
        }
        Self::from_parts(key, CertificateFile { der: certificate.into() }, dir)
    }

    /// Opens the authority in `dir`, whose key lies under no passphrase.
    ///
    /// # Errors
    /// As [`Authority::open_under`].
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        Self::open_under(dir, None)
    }

    /// Opens the authority in `dir`. A passphrase that is not needed is not looked at.
    ///
    /// # Errors
    /// [`AuthorityError::Open`] when a file is missing, damaged or open to other users; [`AuthorityError::KeyMismatch`]
    /// and [`AuthorityError::NotAuthority`] when the files are not those of one authority;
    /// [`AuthorityError::NeedsPassphrase`] and [`AuthorityError::WrongPassphrase`].
    pub fn open_under(dir: &Path, passphrase: Option<&Passphrase>) -> Result<Self, AuthorityError> {
        let failed = |source| AuthorityError::Open { dir: dir.to_owned(), source };
        let key = read_key(dir, passphrase)?;
        let certificate = CertificateFile::read(&dir.join(CA_CERTIFICATE_FILE)).map_err(failed)?;
        Self::from_parts(key, certificate, dir)
    }

    /// Reads the certificate of the authority in `dir`, without its key.
    ///
    /// # Errors
    /// [`AuthorityError::Open`] and [`AuthorityError::NotAuthority`].
    pub fn certificate_in(dir: &Path) -> Result<AuthorityCertificate, AuthorityError> {
        let path = dir.join(CA_CERTIFICATE_FILE);
        let file = CertificateFile::read(&path)
            .map_err(|source| AuthorityError::Open { dir: dir.to_owned(), source })?;
        AuthorityCertificate::parse(file.der).map_err(|source| AuthorityError::NotAuthority { path, source })
    }

    /// Says whether the key of the authority in `dir` lies under a passphrase.
    ///
    /// # Errors
    /// [`AuthorityError::Open`].
    pub fn is_encrypted(dir: &Path) -> Result<bool, AuthorityError> {
        PrivateKey::is_encrypted(&dir.join(CA_KEY_FILE))
            .map_err(|source| AuthorityError::Open { dir: dir.to_owned(), source })
    }

    /// Puts the key of the authority in `dir` under another passphrase, or under none.
    ///
    /// # Errors
    /// As [`Authority::open_under`], and [`AuthorityError::Write`], after which the old passphrase holds.
    pub fn change_passphrase(
        dir: &Path,
        old: Option<&Passphrase>,
        new: Option<&Passphrase>,
    ) -> Result<(), AuthorityError> {
        // Opened whole: what is written again must be the key of this studio.
        Self::open_under(dir, old)?;
        let pem = read_key(dir, old)?.to_pem_under(new);
        let pem = pem.map_err(|source| AuthorityError::Passphrase { dir: dir.to_owned(), source })?;
        write_durably(&dir.join(CA_KEY_FILE), pem.as_bytes(), Access::Private, Existing::Replace)
            .map_err(|source| AuthorityError::Write { what: "the studio CA's key", source })
    }

    fn from_parts(key: PrivateKey, file: CertificateFile, dir: &Path) -> Result<Self, AuthorityError> {
        let certificate = AuthorityCertificate::parse(file.der)
            .map_err(|source| AuthorityError::NotAuthority { path: dir.join(CA_CERTIFICATE_FILE), source })?;
        if *certificate.public_key() != key.public_key() {
            return Err(AuthorityError::KeyMismatch { dir: dir.to_owned() });
        }
        let issuer = Issuer::from_ca_cert_der(certificate.der(), key.into_pair())
            .map_err(|source| AuthorityError::Make { what: "issuer from the studio CA", source })?;
        Ok(Self { certificate, issuer, dir: dir.to_owned() })
    }

    /// Returns the studio that it speaks for.
    pub fn studio(&self) -> &StudioName {
        self.certificate.studio()
    }

    /// Returns the authority's certificate.
    pub fn certificate(&self) -> &AuthorityCertificate {
        &self.certificate
    }

    /// Returns the SHA-256 of the authority's certificate, to be compared by people: 32 pairs of hex digits with colons.
    pub fn fingerprint(&self) -> String {
        self.certificate.fingerprint()
    }

    /// Certifies the key of a checked request. Its wish for a name does not count; `what` says it all.
    ///
    /// # Errors
    /// [`AuthorityError::Validity`], [`AuthorityError::Expired`] and [`AuthorityError::Clock`] when the times do not
    /// fit; otherwise why it could not be made.
    pub fn sign(
        &self,
        request: &CertificateRequest,
        what: &IssueRequest,
        now: SystemTime,
    ) -> Result<IssuedCertificate, AuthorityError> {
        let key = KeyToCertify(request.public_key());
        let made = self.certifier(now)?.certify(what, &key, now)?;
        let chain = Chain::new(made.der().clone(), None);
        // What every peer will check is checked once here, where somebody is looking.
        let facts = self
            .certificate
            .prove(&chain)
            .map_err(|source| AuthorityError::SelfCheck { node: what.node.clone(), source })?
            .node;
        book::note(&self.dir, &facts.serial, &facts.node, facts.role.as_str())?;
        Ok(IssuedCertificate { chain, facts })
    }

    /// Issues to a node and saves `node.key`, `node.pem` and `ca.pem` durably in `out`, the `identity` directory of its
    /// state.
    ///
    /// An identity of the same node is renewed with a new key; after a crash there is the old or the new one.
    ///
    /// # Errors
    /// As [`Authority::sign`]; [`AuthorityError::OtherIdentity`] and [`AuthorityError::UnknownIdentity`] when `out`
    /// holds what must not be overwritten; [`AuthorityError::Write`].
    pub fn issue_into(
        &self,
        what: &IssueRequest,
        out: &Path,
        now: SystemTime,
    ) -> Result<IssuedCertificate, AuthorityError> {
        self.check_replaceable(&what.node, out)?;
        let make = |source| AuthorityError::Make { what: "node's key", source };
        let key = NodeKey::generate().map_err(make)?;
        let request = CertificateRequest::parse(key.request(&what.node).map_err(make)?.der())
            .map_err(|source| AuthorityError::Request { source })?;
        let issued = self.sign(&request, what, now)?;
        identity::save(out, &key, &issued.chain, &self.certificate)
            .map_err(|source| AuthorityError::Write { what: "the node's identity", source })?;
        Ok(issued)
    }

    /// Lets a node issue: saves `issuing.key` and `issuing.pem` in `out`, the `identity` directory of its state, and
    /// `ca.pem` where there is none. Returns when that ends.
    ///
    /// # Errors
    /// As [`Authority::issue_into`]; [`AuthorityError::NotDelegating`] when this authority was made to issue to nodes alone,
    /// [`AuthorityError::OtherAuthority`] when `out` is of another studio.
    pub fn delegate_into(
        &self,
        node: &NodeId,
        validity: Duration,
        out: &Path,
        now: SystemTime,
    ) -> Result<SystemTime, AuthorityError> {
        self.check_replaceable(node, out)?;
        self.check_same_authority(out)?;
        if !self.certificate.delegates() {
            return Err(AuthorityError::NotDelegating { studio: self.studio().clone() });
        }
        certify::check_validity(validity)?;
        params::since_epoch(now)?;
        let ends = self.certifier(now)?.ends;
        let to = now.checked_add(validity).ok_or(AuthorityError::Clock)?.min(ends);
        let make = |what| move |source| AuthorityError::Make { what, source };
        let key = PrivateKey::generate().map_err(make("issuing key"))?;
        let made = issuing_params(self.studio(), node, Period::backdated(now, to))?
            .signed_by(key.pair(), &self.issuer)
            .map_err(make("issuing certificate"))?;
        let facts = self.certificate.issuing(made.der());
        let facts = facts.map_err(|source| AuthorityError::SelfCheck { node: node.clone(), source })?;

        book::note(&self.dir, &facts.serial, node, "issuing")?;
        let failed = |source| AuthorityError::Write { what: "the issuing key", source };
        create_private_directory(out).map_err(failed)?;
        let save = |name: &str, content: &str, access| {
            write_durably(&out.join(name), content.as_bytes(), access, Existing::Replace).map_err(failed)
        };
        save(AUTHORITY_FILE, &pem_of_certificate(self.certificate.der()), Access::Public)?;
        // The key last: without it the certificate is of no use, and the other way round.
        save(ISSUING_CERTIFICATE_FILE, &made.pem(), Access::Public)?;
        save(ISSUING_KEY_FILE, &key.to_pem(), Access::Private)?;
        Ok(facts.expires_at)
    }

    /// Makes a list of revoked certificates of this authority's own, in DER.
    ///
    /// # Errors
    /// [`AuthorityError::Clock`], [`AuthorityError::Expired`] and [`AuthorityError::Make`].
    pub fn revocation_list(
        &self,
        revoked: &[ToRevoke],
        list: ListNumber,
        now: SystemTime,
    ) -> Result<Vec<u8>, AuthorityError> {
        self.certifier(now)?.list(revoked, list, now)
    }

    fn certifier(&self, now: SystemTime) -> Result<Certifier<'_>, AuthorityError> {
        let ends = self.certificate.expires_at();
        if now >= ends {
            return Err(AuthorityError::Expired { studio: self.studio().clone(), expired_at: ends });
        }
        Ok(Certifier { studio: self.studio(), issuer: &self.issuer, from: UNIX_EPOCH, ends })
    }

    fn check_replaceable(&self, node: &NodeId, out: &Path) -> Result<(), AuthorityError> {
        let unknown = || AuthorityError::UnknownIdentity { dir: out.to_owned() };
        let chain = match CertificateFile::read_chain(&out.join(CERTIFICATE_FILE)) {
            Ok(chain) => chain,
            Err(KeyFileError::Missing { .. }) if out.join(KEY_FILE).symlink_metadata().is_err() => {
                return Ok(());
            }
            Err(_) => return Err(unknown()),
        };
        let (studio, found) = crate::certificate::node_of_certificate(chain.leaf()).map_err(|_| unknown())?;
        if studio == *self.studio() && found == *node {
            Ok(())
        } else {
            Err(AuthorityError::OtherIdentity { dir: out.to_owned(), found, studio })
        }
    }

    fn check_same_authority(&self, out: &Path) -> Result<(), AuthorityError> {
        match CertificateFile::read(&out.join(AUTHORITY_FILE)) {
            Err(KeyFileError::Missing { .. }) => Ok(()),
            Ok(file) if file.der == *self.certificate.der() => Ok(()),
            _ => Err(AuthorityError::OtherAuthority { dir: out.to_owned() }),
        }
    }
}

fn read_key(dir: &Path, passphrase: Option<&Passphrase>) -> Result<PrivateKey, AuthorityError> {
    let path = dir.join(CA_KEY_FILE);
    let failed = |source| AuthorityError::Open { dir: dir.to_owned(), source };
    if !PrivateKey::is_encrypted(&path).map_err(failed)? {
        return PrivateKey::read(&path).map_err(failed);
    }
    let dir = || dir.to_owned();
    let passphrase = passphrase.ok_or_else(|| AuthorityError::NeedsPassphrase { dir: dir() })?;
    match PrivateKey::read_under(&path, passphrase).map_err(failed)? {
        Ok(key) => Ok(key),
        Err(PassphraseError::Wrong) => Err(AuthorityError::WrongPassphrase { dir: dir() }),
        Err(source) => Err(AuthorityError::Passphrase { dir: dir(), source }),
    }
}

#[cfg(test)]
mod tests;
