//! `avalonctl ingest PATH --as REF`: material from outside becomes a version.
//!
//! The command copies, not the daemon: it may read what its user may read, and what it writes belongs to them, as if they had
//! published by hand. It cannot write in the daemon's `.avalon`, so the version is put together in a hidden directory beside
//! its place, on the same file system, and gets its name when all is there and verified. Then it is published explicitly.

mod material;
mod sums;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use avalon_protocol::{
    control::{ApiError, DestinationReply, ErrorCode, PublishReply, PublishRequest, route},
    exit_code::ExitCode,
    reference::Reference,
    rel_path::RelPath,
    settle::collisions,
};
use clap::Args;
use serde::Serialize;

use self::material::Material;
use crate::{
    command::publish::{key_value, send},
    context::{Context, said},
    copying::{self, failed},
    escape::escape,
    failure::Failure,
    measure::{count, size},
};

/// How the name of a directory begins in which a version is put together: hidden, so that nobody takes it for one.
const STAGE: &str = ".avalon-ingest-";

/// Arguments of `ingest`.
#[derive(Debug, Args)]
pub(crate) struct IngestArgs {
    /// A directory, or one file.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Which version it becomes; without a number the next one.
    #[arg(long = "as", value_name = "REF")]
    reference: String,
    /// The representation that it is: files of a directory then lie in the directory that the template names for it, as
    /// sequences do. Without it they lie in the version directory as they are; a single file is of its extension.
    #[arg(long, value_name = "NAME")]
    representation: Option<String>,
    /// The silo of an asset of which nothing is published yet.
    #[arg(long, value_name = "NAME")]
    silo: Option<String>,
    /// What there is to say about it.
    #[arg(short = 'm', long, default_value = "", hide_default_value = true)]
    comment: String,
    /// Who publishes; by default you.
    #[arg(long, default_value = "", hide_default_value = true)]
    author: String,
    /// What else to keep, such as family=plate. May be repeated.
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = key_value)]
    metadata: Vec<(String, String)>,
    /// Say what would be made, and do nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Summary<'a> {
    schema: &'static str,
    #[serde(rename = "ref")]
    reference: &'a str,
    path: &'a str,
    files: u64,
    bytes: u64,
    /// Files that are what checksums say that came with them.
    verified: u64,
    checksums: &'a [String],
    dry_run: bool,
    published: Option<&'a PublishReply>,
}

/// Ingests.
pub(crate) async fn run(context: &Context<'_>, args: IngestArgs) -> Result<ExitCode, Failure> {
    args.reference.parse::<Reference>()?;
    let path =
        std::path::absolute(&args.path).map_err(|error| Failure::Said(failed("read", &args.path, &error)))?;
    let material = Material::look(&path).map_err(Failure::Said)?;
    let representation = representation(&args, &path)?;
    let query = [
        ("ref", Some(args.reference.as_str())),
        ("project", context.project.as_deref()),
        ("silo", args.silo.as_deref()),
        ("representation", representation.as_deref()),
    ];
    let place: DestinationReply = context.client.get(route::DESTINATION, &query).await?;
    let files = placed(&material, &place, path.is_file()).map_err(Failure::Said)?;
    tell(context, &material, &place);
    tell_left_over(context, &place);
    let verified =
        if args.dry_run { 0 } else { assemble(&files, &material, &place).map_err(Failure::Said)? };
    let mut summary = Summary {
        schema: "avalonctl.ingest/1",
        reference: &place.reference,
        path: &place.path,
        files: files.len() as u64,
        bytes: material.bytes,
        verified,
        checksums: &material.sum_files,
        dry_run: args.dry_run,
        published: None,
    };
    if args.dry_run {
        if context.output.is_json() {
            context.output.json(&summary);
        } else {
            context.output.data(&format!("{}\t{}", escape(&place.reference), escape(&place.path)));
        }
        return Ok(ExitCode::Ok);
    }
    if verified > 0 {
        let of = count(files.len() as u64, "file");
        context
            .output
            .talk(&format!("{verified} of {of} are what {} says", escape(&material.sum_files.join(", "))));
    }
    let mut metadata = BTreeMap::from_iter(args.metadata);
    metadata.insert("ingested_from".to_owned(), path.display().to_string());
    if verified > 0 {
        metadata.insert(
            "ingested_verified".to_owned(),
            format!("{verified} by {}", material.sum_files.join(", ")),
        );
    }
    let request = PublishRequest {
        paths: vec![place.path.clone()],
        comment: args.comment,
        author: args.author,
        inputs: Vec::new(),
        metadata,
    };
    let (reply, exit) = send(context, &request, !context.output.is_json()).await?;
    summary.published = Some(&reply);
    if context.output.is_json() {
        context.output.json(&summary);
    }
    Ok(exit)
}

/// Returns the representation that was given, or that a single file has by its extension.
fn representation(args: &IngestArgs, path: &Path) -> Result<Option<String>, Failure> {
    if args.representation.is_some() || !path.is_file() {
        return Ok(args.representation.clone());
    }
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension {
        Some(extension) => Ok(Some(extension.to_lowercase())),
        None => Err(said(
            ErrorCode::BadPath,
            format!("{} has no extension to tell its representation by", path.display()),
            "name it with --representation",
        )),
    }
}

/// Returns where each file goes within the version directory.
fn placed(
    material: &Material,
    place: &DestinationReply,
    is_lone: bool,
) -> Result<Vec<(PathBuf, RelPath, String)>, ApiError> {
    let entry: Option<RelPath> = place.entry.as_deref().and_then(|entry| entry.parse().ok());
    let target = |inside: &RelPath| match &entry {
        Some(entry) if is_lone => Ok(entry.clone()),
        Some(entry) => entry.join(inside),
        None => Ok(inside.clone()),
    };
    let all = material.files.iter().map(|(from, inside)| {
        let to = target(inside).map_err(|error| {
            ApiError::new(ErrorCode::BadPath, error.to_string()).with_hint("use shorter names")
        })?;
        Ok((from.clone(), to, inside.to_string()))
    });
    let all: Vec<(PathBuf, RelPath, String)> = all.collect::<Result<_, _>>()?;
    // What cannot be published must not take a number.
    if let Some(problem) = collisions(all.iter().map(|(_, to, _)| to)).first() {
        return Err(ApiError::new(ErrorCode::BadPath, problem.to_string())
            .with_hint("the material cannot be on every system so: rename one, or ingest it apart"));
    }
    Ok(all)
}

fn tell(context: &Context<'_>, material: &Material, place: &DestinationReply) {
    let (files, bytes) = (count(material.files.len() as u64, "file"), size(material.bytes));
    context.output.talk(&format!("{files}, {bytes} as {}", escape(&place.reference)));
    if material.litter > 0 {
        context
            .output
            .talk(&format!("left out: {} that systems leave behind", count(material.litter, "file")));
    }
    if material.expected.is_empty() {
        context.output.talk("no checksums came with it");
    }
}

/// Says what an ingest left that was killed. Whether another one still works on it, nobody knows who looks from another machine,
/// so a person removes it.
fn tell_left_over(context: &Context<'_>, place: &DestinationReply) {
    let above = Path::new(&place.path).parent().unwrap_or(Path::new("/"));
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(STAGE.as_bytes()) {
            let path = entry.path().display().to_string();
            context.output.talk(&format!(
                "{} is of an ingest that runs, or was killed: remove it if none runs",
                escape(&path)
            ));
        }
    }
}

/// Puts the version together beside its place, verifies it and gives it its name. Returns how many files have a checksum that
/// came with them. On an error nothing is left.
fn assemble(
    files: &[(PathBuf, RelPath, String)],
    material: &Material,
    place: &DestinationReply,
) -> Result<u64, ApiError> {
    let dir = PathBuf::from(&place.path);
    let above = dir.parent().unwrap_or(Path::new("/")).to_owned();
    fs::create_dir_all(&above).map_err(|error| failed("make", &above, &error))?;
    let stage = tempfile::Builder::new().prefix(STAGE).tempdir_in(&above);
    let stage = stage.map_err(|error| failed("make a directory in", &above, &error))?;
    share(stage.path(), &above).map_err(|error| failed("open to others", stage.path(), &error))?;
    let mut verified = 0;
    for (from, to, inside) in files {
        let to = stage.path().join(to.as_str());
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(|error| failed("make", parent, &error))?;
        }
        let sums = copying::copy(from, &to).map_err(|error| failed("copy", from, &error))?;
        match material.expected.holds(inside, &sums) {
            Some(true) => verified += 1,
            Some(false) => {
                let message = format!(
                    "{inside} is not what {} says: nothing was ingested",
                    material.sum_files.join(", ")
                );
                return Err(
                    ApiError::new(ErrorCode::Damaged, message).with_hint("ask for the material again")
                );
            }
            None => {}
        }
    }
    copying::sync_dirs(stage.path()).map_err(|error| failed("sync", stage.path(), &error))?;
    copying::rename_new(stage.path(), &dir)
        .map_err(|error| failed("put the version in its place", &dir, &error))?;
    // It has another name now, and there is nothing to remove.
    drop(stage.keep());
    Ok(verified)
}

/// Gives the directory the mode of the one above: a temporary one is closed to others, and the daemon has to read it.
fn share(stage: &Path, above: &Path) -> std::io::Result<()> {
    fs::set_permissions(stage, fs::metadata(above)?.permissions())
}
