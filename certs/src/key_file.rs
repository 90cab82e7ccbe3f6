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
    /// Not one certificate.
    #[error("it holds {found} certificates where exactly one belongs")]
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

    /// Reads a key, after checking that only its owner can.
    ///
    /// A later passphrase belongs here: encrypted PKCS#8 has a PEM label of its own.
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

/// A certificate and its text.
#[derive(Debug)]
pub(crate) struct CertificateFile {
    pub(crate) der: CertificateDer<'static>,
    /// The PEM section alone, without anything else that stands in the file: it is copied to nodes.
    pub(crate) pem: String,
}

impl CertificateFile {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";

    /// Reads the one certificate in a file.
    pub(crate) fn read(path: &Path) -> Result<Self, KeyFileError> {
        let content = read_file(path, Access::Public)?;
        let mut certificates = CertificateDer::pem_slice_iter(&content)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| pem_problem(path, source))?;
        let found = certificates.len();
        let text = String::from_utf8_lossy(&content);
        let section = text.split_once(Self::BEGIN).and_then(|(_, rest)| rest.split_once(Self::END));
        match (certificates.pop(), section) {
            (Some(der), Some((body, _))) if found == 1 => {
                Ok(Self { der, pem: format!("{}{body}{}\n", Self::BEGIN, Self::END) })
            }
            _ => Err(malformed(path, MalformedFile::Count { found })),
        }
    }
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

fn read_file(path: &Path, access: Access) -> Result<Vec<u8>, KeyFileError> {
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

fn parent_of(path: &Path) -> &Path {
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

fn sync_directory(path: &Path) -> Result<(), WriteError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|source| WriteError {
        action: "sync",
        path: path.to_owned(),
        source,
    })
}
