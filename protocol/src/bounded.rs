//! Lists and maps out of a peer's bytes that are refused at the element that is one too many.
//!
//! To count them afterwards is too late: an element of one byte on the wire takes 24 and more in memory, so that a frame of
//! 4 MiB would take 100, and a manifest of 32 MiB nearly 800.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

/// Reads a list of at most `MOST` elements; for `#[serde(deserialize_with)]`.
///
/// # Errors
/// When there are more.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(List::<T, MOST>(PhantomData))
}

/// Reads a map of at most `MOST` pairs, those with a key that was there before included.
///
/// # Errors
/// When there are more.
pub(crate) fn map<'de, D, K, V, const MOST: usize>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
{
    deserializer.deserialize_map(Map::<K, V, MOST>(PhantomData))
}

struct List<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MOST} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        // A length that is over the bound is refused before the first element; one that lies takes no memory.
        if elements.size_hint().is_some_and(|count| count > MOST) {
            return Err(A::Error::custom("too many elements"));
        }
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            if list.len() == MOST {
                return Err(A::Error::custom("too many elements"));
            }
            list.push(element);
        }
        Ok(list)
    }
}

struct Map<K, V, const MOST: usize>(PhantomData<(K, V)>);

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, const MOST: usize> Visitor<'de>
    for Map<K, V, MOST>
{
    type Value = BTreeMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MOST} pairs")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<BTreeMap<K, V>, A::Error> {
        let (mut map, mut count) = (BTreeMap::new(), 0);
        while let Some((key, value)) = pairs.next_entry()? {
            if count == MOST {
                return Err(A::Error::custom("too many pairs"));
            }
            count += 1;
            map.insert(key, value);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Three {
        #[serde(deserialize_with = "list::<_, _, 3>")]
        list: Vec<String>,
        #[serde(deserialize_with = "map::<_, _, _, 2>")]
        map: BTreeMap<String, u8>,
    }

    fn three(list: usize, map: usize) -> Three {
        Three { list: vec![String::new(); list], map: (0..map).map(|n| (n.to_string(), 1)).collect() }
    }

    #[test]
    fn what_is_within_the_bound_is_read_and_one_more_is_not() {
        for (list, map, good) in [(0, 0, true), (3, 2, true), (4, 0, false), (0, 3, false)] {
            let written = three(list, map);
            let bytes = postcard::to_stdvec(&written).unwrap();
            assert_eq!(postcard::from_bytes(&bytes).ok(), good.then_some(written), "{list} {map}");
            let json = serde_json::to_string(&three(list, map)).unwrap();
            assert_eq!(serde_json::from_str::<Three>(&json).is_ok(), good, "{json}");
        }
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        assert!(postcard::from_bytes::<Three>(&[3, 0]).is_err());
        assert!(postcard::from_bytes::<Three>(&[0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
    }
}
