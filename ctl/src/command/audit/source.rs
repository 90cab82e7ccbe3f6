//! Where entries come from: the daemon, or a copy of its files.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

use avalon_protocol::{
    audit::{AuditLine, Checker, Known, segment_first},
    control::{ApiError, AuditVerifyReply, ErrorCode, route},
};
use jiff::Timestamp;

use super::Wanted;
use crate::{context::Context, escape::escape, failure::Failure};

/// Read at once.
const PIECE_BYTES: usize = 256 << 10;

/// Hands the bytes of every wanted line to `each`, without its newline.
pub(super) async fn lines(
    context: &Context<'_>,
    dir: Option<&Path>,
    wanted: &Wanted,
    each: &mut dyn FnMut(&[u8]),
) -> Result<(), Failure> {
    match dir {
        Some(dir) => lines_of(dir, wanted, each),
        None => ask(context, wanted, each).await,
    }
}

async fn ask(context: &Context<'_>, wanted: &Wanted, each: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
    let ms = |time: Option<Timestamp>| time.map(|time| time.as_millisecond().max(0).to_string());
    let pairs = [
        ("since_ms", ms(wanted.since)),
        ("until_ms", ms(wanted.until)),
        ("last", wanted.last.map(|last| last.to_string())),
    ];
    let pairs = pairs.iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
    let query = pairs.collect::<Vec<_>>().join("&");
    let mut text = context.client.download(&format!("{}?{query}", route::AUDIT)).await?;
    let mut partial: Vec<u8> = Vec::new();
    while let Some(piece) = text.next().await? {
        partial.extend_from_slice(&piece);
        while let Some(end) = partial.iter().position(|byte| *byte == b'\n') {
            let rest = partial.split_off(end + 1);
            each(partial.get(..end).unwrap_or_default());
            partial = rest;
        }
        if context.output.is_closed() {
            break;
        }
    }
    Ok(())
}

fn lines_of(dir: &Path, wanted: &Wanted, each: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
    let mut kept = VecDeque::new();
    read(dir, &Known::default(), &mut |line, bytes| {
        let at: Option<Timestamp> = line.entry.at.parse().ok();
        let is_in = |at: Timestamp| {
            wanted.since.is_none_or(|since| at >= since) && wanted.until.is_none_or(|until| at < until)
        };
        if !at.is_none_or(is_in) {
            return;
        }
        match wanted.last {
            None => each(bytes),
            Some(last) => {
                kept.push_back(bytes.to_vec());
                if kept.len() as u64 > last {
                    kept.pop_front();
                }
            }
        }
    })?;
    kept.iter().for_each(|line| each(line));
    Ok(())
}

/// Checks a copy.
pub(super) fn verify(dir: &Path, known: &Known) -> Result<AuditVerifyReply, Failure> {
    read(dir, known, &mut |_, _| {})
}

fn read(
    dir: &Path,
    known: &Known,
    each: &mut dyn FnMut(&AuditLine, &[u8]),
) -> Result<AuditVerifyReply, Failure> {
    let unusable = |path: &Path, error: &io::Error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => ErrorCode::NotFound,
            io::ErrorKind::PermissionDenied => ErrorCode::Denied,
            _ => ErrorCode::Internal,
        };
        let path = path.display().to_string();
        Failure::Said(ApiError::new(code, format!("{} cannot be read: {error}", escape(&path))))
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| unusable(dir, &error))? {
        let name = entry.map_err(|error| unusable(dir, &error))?.file_name();
        names.extend(name.to_str().filter(|name| segment_first(name).is_some()).map(str::to_owned));
    }
    if names.is_empty() {
        let message = format!("{} has no file of an audit", escape(&dir.display().to_string()));
        let error = ApiError::new(ErrorCode::NotFound, message);
        return Err(Failure::Said(
            error.with_hint("name a copy of {state_dir}/audit; its files begin with audit-"),
        ));
    }
    names.sort();
    let mut checker = Checker::new(known);
    let mut piece = vec![0; PIECE_BYTES];
    for name in names {
        let path = dir.join(&name);
        let mut file = File::open(&path).map_err(|error| unusable(&path, &error))?;
        checker.begin_file(&name);
        loop {
            let bytes = file.read(&mut piece).map_err(|error| unusable(&path, &error))?;
            if bytes == 0 {
                break;
            }
            checker.bytes(piece.get(..bytes).unwrap_or_default(), &mut *each);
        }
        checker.end_file();
    }
    Ok(checker.finish().into())
}
