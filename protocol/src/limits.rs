//! Bounds on what crosses the wire and what is stored, each with its reason. Lengths are checked before memory is taken.

/// Longest control frame: a group of records with the manifests that it names. Two per peer are in memory at most.
pub const MAX_FRAME_BYTES: usize = 4 << 20;
/// How many bytes of groups and manifests a sender puts into one `Records` frame before it starts the next; leaves
/// room in [`MAX_FRAME_BYTES`] for one group that is over.
pub const RECORDS_FRAME_TARGET_BYTES: usize = 1 << 20;
/// Most groups, and most manifests, in one `Records` frame; more of them do not fit into what a sender puts into one.
pub const MAX_FRAME_ITEMS: usize = 16_384;
/// Longest body of one commit group in a feed.
pub const MAX_GROUP_BYTES: usize = 1 << 20;
/// Most records in one commit group.
pub const MAX_GROUP_RECORDS: usize = 256;
/// Longest payload of one record; the largest is a certificate.
pub const MAX_RECORD_BYTES: usize = 64 << 10;

/// The largest list of revoked certificates in a record: about 1,200 of them, and it fits into one record.
pub const MAX_CRL_BYTES: usize = 48 << 10;

/// How many lists of revoked certificates are looked at, the newest first: the newest whose author could say so counts.
pub const MAX_CRLS_KEPT: usize = 16;
/// Longest manifest in canonical bytes: 200,000 files with long names. A version with more is several representations
/// too many; reference workloads have 6,000.
pub const MAX_MANIFEST_BYTES: usize = 32 << 20;
/// Most files in one version, for the same reason.
pub const MAX_MANIFEST_FILES: usize = 200_000;
/// A manifest up to this size travels with the record that names it and saves a round trip.
pub const INLINE_MANIFEST_BYTES: usize = 128 << 10;
/// Most representations of one version: a file names its own by 16 bits.
pub const MAX_REPRESENTATIONS: usize = 65_536;
/// Largest object: 8 TiB, whose block list is 256 MiB.
pub const MAX_OBJECT_BYTES: u64 = 8 << 40;
/// Most pairs of metadata in a manifest, and the longest key and value in bytes.
pub const MAX_METADATA_PAIRS: usize = 256;
/// Longest metadata key or value, comment, author or input in bytes.
pub const MAX_TEXT_BYTES: usize = 16 << 10;
/// Longest policy document: some hundred rules with their comments, and what a record has room for.
pub const MAX_POLICY_BYTES: usize = 48 << 10;
/// Longest author and longest comment of a policy, and of what somebody decides about a version; with the document of a
/// policy they fit into one record.
pub const MAX_POLICY_NOTE_BYTES: usize = 4 << 10;
/// Most generations that one resolution of a conflict gives a new number; a person decided about each.
pub const MAX_MOVED: usize = 256;
/// Most inputs named by a manifest.
pub const MAX_INPUTS: usize = 100_000;
/// Most objects asked for in one request; a request of them is under 200 KiB.
pub const MAX_WANTS: usize = 4096;
/// Most blocks in one piece of an encoded answer: enough for zstd to see what moved, and what a receiver decodes at once.
pub const MAX_PIECE_BLOCKS: u64 = 8;
/// Longest part of a base that one piece refers to: three times a piece, so that content may have moved by one either way.
pub const MAX_BASE_WINDOW_BYTES: u64 = 24 << 20;
/// Most manifests asked for in one request.
pub const MAX_MANIFEST_WANTS: usize = 256;
/// Most projects that a node serves and names in its greeting.
pub const MAX_PROJECTS: usize = 1024;
/// Most feeds of one project: as many nodes as a studio of 25 people replaces in years.
pub const MAX_FEEDS: usize = 4096;
