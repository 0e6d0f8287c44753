//! Sets of pCPUs.
//!
//! The same bits serve two kinds of number: [`CpuSet`] holds rows of a snapshot's CPU table, [`OsCpuSet`] holds the
//! kernel's numbers and is what people read and write (`"0-3,8"`). The types keep the two apart. Each has a borrowed
//! form ([`CpuSetRef`]), which is how the sets of a snapshot's arena are seen without a copy.
//!
//! A set has no width of its own: numbers beyond its words are simply not in it, and trailing empty words never make
//! two sets unequal.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use thiserror::Error;

use crate::ids::{CpuIx, Index, OsCpuId};

/// The largest kernel CPU number accepted in text, so that a slip of the keyboard cannot ask for gigabytes.
/// Linux itself is built for at most 8192 CPUs on any architecture.
pub const MAX_OS_CPU: u32 = 65_535;

const WORD_BITS: usize = 64;

/// An owned set of indexes of one kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits<I> {
    /// Never ends in a zero word, so that equal sets are equal values.
    words: Vec<u64>,
    kind: PhantomData<I>,
}

/// A borrowed set of indexes of one kind.
pub struct BitsRef<'a, I> {
    words: &'a [u64],
    kind: PhantomData<I>,
}

/// A set of rows of the snapshot's CPU table.
pub type CpuSet = Bits<CpuIx>;
/// A borrowed [`CpuSet`].
pub type CpuSetRef<'a> = BitsRef<'a, CpuIx>;
/// A set of pCPUs by the kernel's numbers.
pub type OsCpuSet = Bits<OsCpuId>;

impl<I: Index> Bits<I> {
    /// The set without members.
    pub const fn new() -> Self {
        Self {
            words: Vec::new(),
            kind: PhantomData,
        }
    }

    /// The set of the first `count` indexes.
    pub fn first(count: usize) -> Self {
        (0..count).filter_map(I::from_index).collect()
    }

    /// The set whose members are the one bits of `words`, least significant bit of the first word first.
    pub fn from_words(words: &[u64]) -> Self {
        Self {
            words: trimmed(words).to_vec(),
            kind: PhantomData,
        }
    }

    /// Adds a member.
    pub fn insert(&mut self, member: I) {
        let (word, bit) = position(member);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= bit;
    }

    /// Takes a member out, if it is one.
    pub fn remove(&mut self, member: I) {
        let (word, bit) = position(member);
        if let Some(word) = self.words.get_mut(word) {
            *word &= !bit;
            self.trim();
        }
    }

    /// Takes out all members; keeps the memory.
    pub fn clear(&mut self) {
        self.words.clear();
    }

    /// Keeps only what is also in `other`.
    pub fn intersect(&mut self, other: BitsRef<'_, I>) {
        self.words.truncate(other.words.len());
        for (word, mask) in self.words.iter_mut().zip(other.words) {
            *word &= mask;
        }
        self.trim();
    }

    /// Takes out whatever is in `other`.
    pub fn subtract(&mut self, other: BitsRef<'_, I>) {
        for (word, mask) in self.words.iter_mut().zip(other.words) {
            *word &= !mask;
        }
        self.trim();
    }

    /// Adds whatever is in `other`.
    pub fn unite(&mut self, other: BitsRef<'_, I>) {
        let other = trimmed(other.words);
        if other.len() > self.words.len() {
            self.words.resize(other.len(), 0);
        }
        for (word, mask) in self.words.iter_mut().zip(other) {
            *word |= mask;
        }
    }

    /// This set, borrowed.
    pub fn as_ref(&self) -> BitsRef<'_, I> {
        BitsRef {
            words: &self.words,
            kind: PhantomData,
        }
    }

    /// Whether `member` is in the set.
    pub fn contains(&self, member: I) -> bool {
        self.as_ref().contains(member)
    }

    /// Whether the set has no members.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// How many members the set has.
    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    /// The members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = I> + '_ {
        self.as_ref().iter()
    }

    fn trim(&mut self) {
        self.words.truncate(trimmed(&self.words).len());
    }
}

impl<I: Index> Default for Bits<I> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I: Index> FromIterator<I> for Bits<I> {
    fn from_iter<T: IntoIterator<Item = I>>(members: T) -> Self {
        let mut set = Self::new();
        set.extend(members);
        set
    }
}

impl<I: Index> Extend<I> for Bits<I> {
    fn extend<T: IntoIterator<Item = I>>(&mut self, members: T) {
        for member in members {
            self.insert(member);
        }
    }
}

impl<'a, I: Index> BitsRef<'a, I> {
    /// The set whose members are the one bits of `words`, least significant bit of the first word first.
    pub const fn from_words(words: &'a [u64]) -> Self {
        Self {
            words,
            kind: PhantomData,
        }
    }

    /// The bits, possibly with trailing empty words.
    pub const fn words(self) -> &'a [u64] {
        self.words
    }

    /// The bits without trailing empty words: the same for equal sets.
    pub(crate) fn significant_words(self) -> &'a [u64] {
        trimmed(self.words)
    }

    /// Whether `member` is in the set.
    pub fn contains(self, member: I) -> bool {
        let (word, bit) = position(member);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Whether the set has no members.
    pub fn is_empty(self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// How many members the set has.
    pub fn len(self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The members in ascending order.
    pub fn iter(self) -> impl Iterator<Item = I> + 'a {
        self.words.iter().enumerate().flat_map(|(at, &word)| {
            std::iter::successors((word != 0).then_some(word), |&word| {
                let rest = word & (word - 1);
                (rest != 0).then_some(rest)
            })
            .filter_map(move |word| I::from_index(at * WORD_BITS + word.trailing_zeros() as usize))
        })
    }

    /// The only member of a set of one.
    pub fn single(self) -> Option<I> {
        let mut members = self.iter();
        members.next().filter(|_| members.next().is_none())
    }

    /// Whether every member is also in `other`.
    pub fn is_subset(self, other: BitsRef<'_, I>) -> bool {
        self.words
            .iter()
            .enumerate()
            .all(|(at, word)| word & !other.words.get(at).copied().unwrap_or(0) == 0)
    }

    /// An owned copy.
    pub fn to_owned(self) -> Bits<I> {
        Bits::from_words(self.words)
    }
}

impl<I> Clone for BitsRef<'_, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I> Copy for BitsRef<'_, I> {}

impl<I> PartialEq for BitsRef<'_, I> {
    fn eq(&self, other: &Self) -> bool {
        trimmed(self.words) == trimmed(other.words)
    }
}

impl<I> Eq for BitsRef<'_, I> {}

impl<I: Index> fmt::Debug for Bits<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl<I: Index> fmt::Debug for BitsRef<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", Ranges(*self))
    }
}

/// Writes the members as a cpulist: ranges and single numbers in ascending order, `0-3,8`.
impl fmt::Display for OsCpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ranges(self.as_ref()).fmt(f)
    }
}

struct Ranges<'a, I>(BitsRef<'a, I>);

impl<I: Index> fmt::Display for Ranges<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut members = self.0.iter().map(Index::index).peekable();
        let mut separator = "";
        while let Some(low) = members.next() {
            let mut high = low;
            while let Some(next) = members.next_if_eq(&(high + 1)) {
                high = next;
            }
            match high - low {
                0 => write!(f, "{separator}{low}")?,
                _ => write!(f, "{separator}{low}-{high}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

/// Why a text is not a cpulist.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CpuListError {
    /// There is no number in it.
    #[error("the CPU list is empty; expected numbers and ranges such as \"0-3,8\"")]
    Empty,
    /// A part is neither a number, a range nor an exclusion.
    #[error(
        "\"{part}\" in CPU list \"{list}\" is not a CPU number or a range; expected for example \"0-3,8\""
    )]
    Malformed {
        /// The part between two commas.
        part: String,
        /// The whole text.
        list: String,
    },
    /// A range ends before it starts.
    #[error("the range {low}-{high} in a CPU list ends before it starts")]
    Backwards {
        /// The number before the dash.
        low: u32,
        /// The number behind it.
        high: u32,
    },
    /// A number that no kernel gives to a CPU.
    #[error("CPU {cpu} in a CPU list is beyond the largest supported number, {MAX_OS_CPU}")]
    TooLarge {
        /// The number.
        cpu: u32,
    },
}

/// Reads a cpulist: numbers and ranges separated by commas, as the kernel prints them, and `^N` or `^N-M` to take out
/// what an earlier part put in, as libvirt writes them. The result has at least one member.
impl FromStr for OsCpuSet {
    type Err = CpuListError;

    fn from_str(list: &str) -> Result<Self, CpuListError> {
        let mut set = Self::new();
        for part in list.split(',').map(str::trim).filter(|_| !list.trim().is_empty()) {
            let malformed = || CpuListError::Malformed {
                part: part.to_owned(),
                list: list.to_owned(),
            };
            let number = |text: &str| match text.trim().parse::<u32>() {
                Ok(cpu) if cpu > MAX_OS_CPU => Err(CpuListError::TooLarge { cpu }),
                Ok(cpu) if text.trim().bytes().all(|byte| byte.is_ascii_digit()) => Ok(cpu),
                _ => Err(malformed()),
            };
            let (range, exclude) = part.strip_prefix('^').map_or((part, false), |rest| (rest, true));
            let (low, high) = match range.split_once('-') {
                Some((low, high)) => (number(low)?, number(high)?),
                None => (number(range)?, number(range)?),
            };
            if high < low {
                return Err(CpuListError::Backwards { low, high });
            }
            for cpu in (low..=high).map(OsCpuId) {
                if exclude { set.remove(cpu) } else { set.insert(cpu) }
            }
        }
        if set.is_empty() {
            Err(CpuListError::Empty)
        } else {
            Ok(set)
        }
    }
}

impl serde::Serialize for OsCpuSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A cpulist in a file is a string; a bare number is taken for the list of that one CPU.
impl<'de> serde::Deserialize<'de> for OsCpuSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CpuList;
        impl serde::de::Visitor<'_> for CpuList {
            type Value = OsCpuSet;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a CPU list such as \"0-3,8\"")
            }
            fn visit_str<E: serde::de::Error>(self, list: &str) -> Result<OsCpuSet, E> {
                list.parse().map_err(E::custom)
            }
            fn visit_u64<E: serde::de::Error>(self, cpu: u64) -> Result<OsCpuSet, E> {
                self.visit_str(&cpu.to_string())
            }
        }
        deserializer.deserialize_any(CpuList)
    }
}

fn position<I: Index>(member: I) -> (usize, u64) {
    (member.index() / WORD_BITS, 1 << (member.index() % WORD_BITS))
}

fn trimmed(words: &[u64]) -> &[u64] {
    let length = words
        .iter()
        .rposition(|&word| word != 0)
        .map_or(0, |last| last + 1);
    &words[..length]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(list: &str, canonical: &str) {
        assert_eq!(
            list.parse::<OsCpuSet>().map(|set| set.to_string()),
            Ok(canonical.to_owned()),
            "{list}"
        );
    }

    #[test]
    fn cpulists_are_read_as_the_kernel_and_libvirt_write_them() {
        check("0", "0");
        check("0-3,8", "0-3,8");
        check("8,0-2,3", "0-3,8");
        check("0-7,^3", "0-2,4-7");
        check(" 1 , 2 - 4 ", "1-4");
        check("63,64,128", "63-64,128");
        check("0-15,^4-7,5", "0-3,5,8-15");
    }

    #[test]
    fn malformed_cpulists_say_what_was_expected() {
        for list in [
            "",
            " ",
            "a",
            "1,,2",
            "1-",
            "-1",
            "3-1",
            "0-4000000000",
            "70000",
            "0,^0",
            "+1",
            "0x3",
        ] {
            assert!(list.parse::<OsCpuSet>().is_err(), "{list:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn writing_and_reading_gives_the_same_set(cpus in prop::collection::btree_set(0u32..300, 1..40)) {
            let set: OsCpuSet = cpus.iter().copied().map(OsCpuId).collect();
            prop_assert_eq!(set.to_string().parse::<OsCpuSet>(), Ok(set.clone()));
            prop_assert_eq!(set.iter().map(|cpu| cpu.0).collect::<Vec<_>>(), cpus.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn set_operations_agree_with_a_model(
            left in prop::collection::btree_set(0u32..200, 0..30),
            right in prop::collection::btree_set(0u32..200, 0..30),
        ) {
            let bits = |members: &std::collections::BTreeSet<u32>| -> CpuSet { members.iter().copied().map(CpuIx).collect() };
            let (a, b) = (bits(&left), bits(&right));
            let with = |operation: fn(&mut CpuSet, CpuSetRef<'_>)| { let mut set = a.clone(); operation(&mut set, b.as_ref()); set };
            prop_assert_eq!(with(Bits::intersect), bits(&(&left & &right)));
            prop_assert_eq!(with(Bits::unite), bits(&(&left | &right)));
            prop_assert_eq!(with(Bits::subtract), bits(&(&left - &right)));
            prop_assert_eq!(a.as_ref().is_subset(b.as_ref()), left.is_subset(&right));
            prop_assert_eq!(a.as_ref().single().is_some(), left.len() == 1);
            prop_assert_eq!(a.len(), left.len());
        }
    }
}
