//! Texture inventories: textures that did not change stay in the version that brought them.
//!
//! The reveries pipeline keeps, beside a `TexturePack`, a list `fileInventory` of `{"fpattern": ..., "version": ...}`: version
//! 12 of a texture set needs files of versions 3 and 7 of the same subset.

use std::io::Read as _;

use serde_json::Value;

use super::{Finds, InputScanner, ScanError, Source};

/// The longest inventory: ten thousand textures.
const MAX_BYTES: u64 = 8 << 20;

/// The key of the list.
const KEY: &str = "fileInventory";

/// Finds the versions in texture inventories; other JSON refers to nothing.
pub(super) struct Inventory;

impl InputScanner for Inventory {
    fn formats(&self) -> &'static [&'static str] {
        &["json"]
    }

    fn scan(&self, source: &mut dyn Source, finds: &mut Finds) -> Result<(), ScanError> {
        let mut bytes = Vec::new();
        source.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(ScanError::Read)?;
        // Whether it is an inventory is known before anything is built in memory: caches in JSON are long.
        if !bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes()) {
            return Ok(());
        }
        if bytes.len() as u64 > MAX_BYTES {
            return Err(ScanError::TooLarge { what: "the inventory", limit: MAX_BYTES });
        }
        let json: Value = serde_json::from_slice(&bytes)
            .map_err(|_| ScanError::Malformed { what: "an inventory that is not JSON" })?;
        let nested = json.as_object().into_iter().flat_map(|object| object.values());
        let lists = std::iter::once(&json).chain(nested).filter_map(|value| value.get(KEY)?.as_array());
        for version in lists.flatten().filter_map(|item| item.get("version")?.as_u64()) {
            if let Ok(version) = u32::try_from(version) {
                finds.subset_version(version);
            }
        }
        finds.complete()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::inputs::Find;

    fn scan(text: &str) -> Result<Vec<Find>, ScanError> {
        let mut finds = Finds::default();
        Inventory.scan(&mut Cursor::new(text), &mut finds)?;
        Ok(finds.into_found().into_iter().collect())
    }

    #[test]
    fn an_inventory_names_versions_of_its_own_subset() {
        let list = r#""fileInventory": [{"fpattern": "skin.<UDIM>.tx", "version": 3}, {"version": 12}, {"version": 3},
            {"version": "7"}, {"fpattern": "x"}]"#;
        let expected = [Find::SubsetVersion(3), Find::SubsetVersion(12)];
        assert_eq!(scan(&format!("{{{list}}}")).unwrap(), expected);
        assert_eq!(scan(&format!("{{\"data\": {{{list}}}}}")).unwrap(), expected);
        assert_eq!(scan("{\"relationships\": [1, 2]}").unwrap(), []);
        assert_eq!(scan("no json at all").unwrap(), []);
        assert!(matches!(scan("{\"fileInventory\": "), Err(ScanError::Malformed { .. })));
    }
}
