//! The scenario's host: the shape that a snapshot's has too, and what only a kernel can say.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_policy_api::document::HostShape;

/// `host`: any shape of a host, and `isolated` beside it.
#[derive(Debug, Clone)]
pub(crate) struct HostSpec {
    pub(crate) shape: HostShape,
    /// The CPUs that the kernel was told to keep free.
    pub(crate) isolated: OsCpuSet,
}

const ISOLATED: &str = "isolated";

/// Hand-written, so that the shape reads its own keys, and each mistake keeps its line.
impl<'de> Deserialize<'de> for HostSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = HostSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a host such as {cpus: 4}")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HostSpec, A::Error> {
                let mut isolated = None;
                let shape = HostShape::deserialize(MapAccessDeserializer::new(KeysOfTheShape {
                    map,
                    isolated: &mut isolated,
                }))?;
                Ok(HostSpec {
                    shape,
                    isolated: isolated.unwrap_or_default(),
                })
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// All keys but `isolated`, which is read in passing.
struct KeysOfTheShape<'a, A> {
    map: A,
    isolated: &'a mut Option<OsCpuSet>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for KeysOfTheShape<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, mut seed: K) -> Result<Option<K::Value>, A::Error> {
        loop {
            match self.map.next_key_seed(Key(seed))? {
                None => return Ok(None),
                Some(Read::OfTheShape(key)) => return Ok(Some(key)),
                Some(Read::Isolated(unused)) => {
                    if self.isolated.replace(self.map.next_value()?).is_some() {
                        return Err(A::Error::duplicate_field(ISOLATED));
                    }
                    seed = unused;
                }
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Reads a key as its seed would, unless it is `isolated`.
struct Key<K>(K);

enum Read<K, V> {
    /// The seed has not been needed.
    Isolated(K),
    OfTheShape(V),
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<K> {
    type Value = Read<K, K::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, K: DeserializeSeed<'de>> Visitor<'de> for Key<K> {
    type Value = Read<K, K::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key of a host")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        if key == ISOLATED {
            return Ok(Read::Isolated(self.0));
        }
        self.0
            .deserialize(StrDeserializer::new(key))
            .map(Read::OfTheShape)
    }
}
