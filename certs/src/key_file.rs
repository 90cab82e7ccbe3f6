//! Private keys and certificates as files: PEM in, PEM out, nobody else's eyes.
//!
//! A key file that others can read is refused, not repaired: it may have been read. Writing is durable: a temporary
//! file, its fsync, a rename or link, the fsync of the directory.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use avalon_protocol::signing::PublicKey;
use rcgen::{KeyPair, PKCS_ED25519};
use ring::{
    rand::{self, SystemRandom},
    signature::Ed25519KeyPair,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer,
    pem::{self, PemObject},
};
use thiserror::Error;

use crate::{
    certificate::Chain,
    passphrase::{self, Passphrase, PassphraseError},
};

/// The largest file that is read; a key or a certificate in PEM has about 1 KiB.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The permission bits that a key file must not have.
const OTHERS: u32 = 0o077;

/// Why a key or a certificate could not be read from its file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// There is no such file.
    #[error("there is no {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read.
    #[error("could not read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read the private key.
    #[error("{} can be read by other users (mode {mode:04o}); run `chmod 600 {}`, and replace the key if one of them may have", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key is of another algorithm.
    #[error("the key in {} is not an Ed25519 key", path.display())]
    NotEd25519 {
        /// The file.
        path: PathBuf,
    },
    /// The content is not what it should be.
    #[error("{} is damaged", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: MalformedFile,
    },
}

/// What is wrong with the content of a key or certificate file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MalformedFile {
    /// Larger than any key or certificate.
    #[error("it has more than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    /// Not PEM, or PEM of something else.
    #[error("it is not PEM of the expected kind")]
    Pem {
        /// What the reader said.
        #[source]
        source: pem::Error,
    },
    /// Not as many certificates as belong there.
    #[error("it holds {found} certificates, which is not how many belong there")]
    Count {
        /// How many it holds.
        found: usize,
    },
    /// PEM of a private key whose bytes are not a key.
    #[error("its private key cannot be read")]
    Key {
        /// What the reader said.
        #[source]
        source: rcgen::Error,
    },
}

/// A file or directory of keys that could not be written.
#[derive(Debug, Error)]
#[error("could not {action} {}", path.display())]
pub struct WriteError {
    /// What was tried.
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// An Ed25519 private key. It is never printed.
pub(crate) struct PrivateKey {
    pair: KeyPair,
}

impl PrivateKey {
    /// Makes a key from the system's randomness.
    pub(crate) fn generate() -> Result<Self, rcgen::Error> {
        Ok(Self { pair: KeyPair::generate_for(&PKCS_ED25519)? })
    }

    /// Derives a key from 32 secret bytes (RFC 8032: they are the private key; RFC 8410, section 7: its form).
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Result<Self, rcgen::Error> {
        /// A sequence of 46 bytes: version 0, the algorithm, and an octet string of an octet string of 32 bytes.
        const HEAD: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
        let der = PrivatePkcs8KeyDer::from([HEAD.as_slice(), seed].concat());
        Ok(Self { pair: KeyPair::try_from(&der)? })
    }

    /// Reads a key, after checking that only its owner can.
    pub(crate) fn read(path: &Path) -> Result<Self, KeyFileError> {
        let content = read_file(path, Access::Private)?;
        let key = PrivateKeyDer::from_pem_slice(&content).map_err(|source| pem_problem(path, source))?;
        let PrivateKeyDer::Pkcs8(key) = key else {
            // The other labels are those of RSA and of NIST curves.
            return Err(KeyFileError::NotEd25519 { path: path.to_owned() });
        };
        let pair =
            KeyPair::try_from(&key).map_err(|source| malformed(path, MalformedFile::Key { source }))?;
        if pair.algorithm() == &PKCS_ED25519 {
            Ok(Self { pair })
        } else {
            Err(KeyFileError::NotEd25519 { path: path.to_owned() })
        }
    }

    /// Says whether a key lies under a passphrase, after checking that only its owner can read it.
    pub(crate) fn is_encrypted(path: &Path) -> Result<bool, KeyFileError> {
        Ok(passphrase::is_encrypted(&read_file(path, Access::Private)?))
    }

    /// Reads a key that lies under a passphrase.
    pub(crate) fn read_under(
        path: &Path,
        passphrase: &Passphrase,
    ) -> Result<Result<Self, PassphraseError>, KeyFileError> {
        let content = read_file(path, Access::Private)?;
        Ok(passphrase::decrypt(&content, passphrase).and_then(|key| {
            // What a wrong passphrase makes of it is no key, even where its padding is right.
            let pair = KeyPair::try_from(&key).map_err(|_| PassphraseError::Wrong)?;
            if pair.algorithm() == &PKCS_ED25519 {
                Ok(Self { pair })
            } else {
                Err(PassphraseError::Malformed)
            }
        }))
    }

    /// Writes it as PEM, under a passphrase if there is one.
    pub(crate) fn to_pem_under(&self, passphrase: Option<&Passphrase>) -> Result<String, PassphraseError> {
        match passphrase {
            Some(passphrase) => passphrase::encrypt(&self.to_pkcs8(), passphrase),
            None => Ok(self.to_pem()),
        }
    }

    #[expect(
        clippy::expect_used,
        reason = "every constructor checks for Ed25519, whose public keys have 32 bytes"
    )]
    pub(crate) fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(
            self.pair.public_key_raw().try_into().expect("an Ed25519 public key has 32 bytes"),
        )
    }

    #[expect(
        clippy::expect_used,
        reason = "the same bytes were accepted by the same function of ring in rcgen"
    )]
    pub(crate) fn to_ring(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(self.pair.serialized_der())
            .expect("the key was accepted when it was read")
    }

    pub(crate) fn to_pkcs8(&self) -> PrivatePkcs8KeyDer<'static> {
        self.pair.serialize_der().into()
    }

    pub(crate) fn to_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }

    pub(crate) fn into_pair(self) -> KeyPair {
        self.pair
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// A file of certificates.
#[derive(Debug)]
pub(crate) struct CertificateFile {
    pub(crate) der: CertificateDer<'static>,
}

impl CertificateFile {
    /// Reads the one certificate in a file.
    pub(crate) fn read(path: &Path) -> Result<Self, KeyFileError> {
        let mut found = Self::read_some(path)?;
        match (found.len(), found.pop()) {
            (1, Some(der)) => Ok(Self { der }),
            (found, _) => Err(malformed(path, MalformedFile::Count { found })),
        }
    }

    /// Reads a node's certificate, and that of the node which issued it if it follows.
    pub(crate) fn read_chain(path: &Path) -> Result<Chain, KeyFileError> {
        let found = Self::read_some(path)?;
        Chain::from_certificates(&found)
            .map_err(|_| malformed(path, MalformedFile::Count { found: found.len() }))
    }

    /// Reads all certificates of a file, in their order.
    pub(crate) fn read_some(path: &Path) -> Result<Vec<CertificateDer<'static>>, KeyFileError> {
        let content = read_file(path, Access::Public)?;
        CertificateDer::pem_slice_iter(&content)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| pem_problem(path, source))
    }
}

/// Writes a certificate as PEM.
pub(crate) fn pem_of_certificate(der: &CertificateDer<'_>) -> String {
    // It fails for what is longer than memory.
    pkcs8::der::pem::encode_string("CERTIFICATE", pkcs8::LineEnding::LF, der).unwrap_or_default()
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Its owner: mode 0600.
    Private,
    /// Everybody: mode 0644.
    Public,
}

impl Access {
    const fn mode(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Public => 0o644,
        }
    }
}

/// What to do when the file exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Fail with [`io::ErrorKind::AlreadyExists`] and leave it alone, also in a race.
    Keep,
    /// Replace it at once and whole.
    Replace,
}

pub(crate) fn read_file(path: &Path, access: Access) -> Result<Vec<u8>, KeyFileError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing { path: path.to_owned() },
        _ => KeyFileError::Unreadable { path: path.to_owned(), source },
    };
    let file = File::open(path).map_err(unreadable)?;
    // The mode of the open file, not of the path: nobody can exchange it between the check and the read.
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    if access == Access::Private && mode & OTHERS != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
    }
    let mut content = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(malformed(path, MalformedFile::TooLarge));
    }
    Ok(content)
}

fn pem_problem(path: &Path, source: pem::Error) -> KeyFileError {
    malformed(path, MalformedFile::Pem { source })
}

fn malformed(path: &Path, source: MalformedFile) -> KeyFileError {
    KeyFileError::Malformed { path: path.to_owned(), source }
}

/// Writes a file so that after a crash it is there whole or not at all.
pub(crate) fn write_durably(
    path: &Path,
    content: &[u8],
    access: Access,
    existing: Existing,
) -> Result<(), WriteError> {
    let failed = |source| WriteError { action: "write", path: path.to_owned(), source };
    let temporary = temporary_beside(path).map_err(failed)?;
    let written = write_new(&temporary, content, access)
        .and_then(|()| match existing {
            // A link, unlike a rename, fails when the name is taken.
            Existing::Keep => fs::hard_link(&temporary, path),
            Existing::Replace => fs::rename(&temporary, path),
        })
        .map_err(failed);
    if existing == Existing::Keep || written.is_err() {
        // The link is a second name for the same file; a failed write leaves nothing behind.
        let removed = fs::remove_file(&temporary);
        if let (Ok(()), Err(source)) = (&written, removed) {
            return Err(WriteError { action: "remove", path: temporary, source });
        }
    }
    written?;
    sync_directory(parent_of(path))
}

/// Writes a file that everybody may read, such as a certificate, whole or not at all; one that is there is replaced.
///
/// # Errors
/// [`WriteError`].
pub fn write_public(path: &Path, content: &[u8]) -> Result<(), WriteError> {
    write_durably(path, content, Access::Public, Existing::Replace)
}

fn write_new(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    // Set, not only asked for at creation: the umask must not decide who can read a certificate.
    file.set_permissions(Permissions::from_mode(access.mode()))?;
    file.sync_all()
}

/// Names a file in the same directory that nobody else uses, nor left behind in a crash.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let random: [u8; 8] = rand::generate(&SystemRandom::new())
        .map_err(|_| io::Error::other("the system's random number generator failed"))?
        .expose();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(parent_of(path).join(format!(".{name}.{:016x}.tmp", u64::from_be_bytes(random))))
}

pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Creates a directory with mode 0700, and its parents as usual; an existing one keeps its mode.
pub(crate) fn create_private_directory(path: &Path) -> Result<(), WriteError> {
    let error = |source| WriteError { action: "create", path: path.to_owned(), source };
    let parent = parent_of(path);
    fs::create_dir_all(parent).map_err(error)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_directory(parent),
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(source) => Err(error(source)),
    }
}

pub(crate) fn sync_directory(path: &Path) -> Result<(), WriteError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|source| WriteError {
        action: "sync",
        path: path.to_owned(),
        source,
    })
}
