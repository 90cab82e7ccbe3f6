//! Putting the records of several commits together into groups within the limits.

use avalon_protocol::{
    limits::{MAX_GROUP_BYTES, MAX_GROUP_RECORDS, MAX_RECORD_BYTES},
    record::RawRecord,
};

/// Room in a group for the certificate that `seal` may add.
const GROUP_RECORDS: usize = MAX_GROUP_RECORDS - 1;
/// Likewise, and for the group's own fields.
const GROUP_PAYLOAD_BYTES: usize = MAX_GROUP_BYTES - MAX_RECORD_BYTES - (8 << 10);
/// Most bytes that a record takes in a group besides its payload: kind, version and length as varints.
const RECORD_OVERHEAD_BYTES: usize = 16;

/// The records of several commits, put together into groups.
#[derive(Default)]
pub(super) struct Packed {
    pub(super) groups: Vec<PackedGroup>,
}

/// The records of one group, and when the last of them was handed in.
#[derive(Default)]
pub(super) struct PackedGroup {
    pub(super) records: Vec<RawRecord>,
    payload_bytes: usize,
    pub(super) written_at_ms: u64,
}

/// Where the records of one commit are.
pub(super) struct Part {
    pub(super) first_group: usize,
    pub(super) first_record: usize,
    pub(super) last_group: usize,
}

impl Packed {
    /// Adds the records of one commit; `None` when there are none, an error with the length when one is too long.
    pub(super) fn add(&mut self, records: Vec<RawRecord>, written_at_ms: u64) -> Result<Option<Part>, usize> {
        if let Some(long) =
            records.iter().map(|raw| raw.payload.len()).find(|bytes| *bytes > MAX_RECORD_BYTES)
        {
            return Err(long);
        }
        let mut part: Option<Part> = None;
        for record in records {
            let bytes = record.payload.len() + RECORD_OVERHEAD_BYTES;
            let fits = self.groups.last().is_some_and(|group| {
                group.records.len() < GROUP_RECORDS && group.payload_bytes + bytes <= GROUP_PAYLOAD_BYTES
            });
            if !fits {
                self.groups.push(PackedGroup::default());
            }
            let last_group = self.groups.len() - 1;
            let Some(group) = self.groups.last_mut() else { continue };
            let first = Part { first_group: last_group, first_record: group.records.len(), last_group };
            part.get_or_insert(first).last_group = last_group;
            group.records.push(record);
            group.payload_bytes += bytes;
            group.written_at_ms = group.written_at_ms.max(written_at_ms);
        }
        Ok(part)
    }
}
