//! The one check of a snapshot's block: what makes a view safe to follow.
//!
//! In goes memory from anywhere; out comes a [`Snapshot`] in which every reference has its row and every measure is a
//! number or unknown, or a [`SnapshotError`] that names the table, the row and the field.

use thiserror::Error;

use super::rows::{self, HEADER_FIRST_SIZE, Header, MAGIC, Row, Rows, TableRef};
use super::{MAX_SLOTS, Snapshot, measure};

/// Why a block of memory is not a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SnapshotError {
    /// It is too short or not aligned, or does not begin as one does.
    #[error("the block does not begin with a snapshot header")]
    NotASnapshot,
    /// A table reaches beyond the block, is not aligned, or has rows smaller than the first version's.
    #[error("the table of {table} does not lie in the block as a table should")]
    Table {
        /// The table's name.
        table: &'static str,
    },
    /// A field of a row is out of range.
    #[error("{table} row {row}: {field} is out of range")]
    Field {
        /// The table's name.
        table: &'static str,
        /// The row's index.
        row: usize,
        /// The field's name.
        field: &'static str,
    },
}

pub(super) fn view(block: &[u8]) -> Result<Snapshot<'_>, SnapshotError> {
    let header = header(block)?;
    let snapshot = Snapshot {
        bytes: block,
        header,
        cpus: table(block, header.cpus, "cpus")?,
        cores: table(block, header.cores, "cores")?,
        llcs: table(block, header.llcs, "llcs")?,
        nodes: table(block, header.nodes, "nodes")?,
        distances: table(block, header.distances, "distances")?,
        domains: table(block, header.domains, "domains")?,
        vcpus: table(block, header.vcpus, "vcpus")?,
        sets: sets(block, &header)?,
        text: text(block, header.text)?,
    };
    check_sets(&snapshot)?;
    check_topology(&snapshot)?;
    check_domains(&snapshot)?;
    check_vcpus(&snapshot)?;
    Ok(snapshot)
}

fn header(block: &[u8]) -> Result<Header, SnapshotError> {
    // What the writer did not know is zero: a table that is not there.
    let mut header: Header = bytemuck::Zeroable::zeroed();
    let first = block
        .get(..HEADER_FIRST_SIZE)
        .ok_or(SnapshotError::NotASnapshot)?;
    bytemuck::bytes_of_mut(&mut header)[..first.len()].copy_from_slice(first);
    let known = (header.size as usize).min(size_of::<Header>());
    let whole = block.get(..known).ok_or(SnapshotError::NotASnapshot)?;
    bytemuck::bytes_of_mut(&mut header)[..known].copy_from_slice(whole);
    let sound = block.as_ptr().addr().is_multiple_of(rows::ALIGNMENT)
        && header.magic == MAGIC
        && header.size as usize >= HEADER_FIRST_SIZE
        && header.total_size == block.len() as u64
        && header.interval_ns > 0;
    if sound {
        Ok(header)
    } else {
        Err(SnapshotError::NotASnapshot)
    }
}

fn table<'a, T: Row>(
    block: &'a [u8],
    at: TableRef,
    table: &'static str,
) -> Result<Rows<'a, T>, SnapshotError> {
    Rows::new(block, at).ok_or(SnapshotError::Table { table })
}

fn bytes(block: &[u8], at: TableRef, length: Option<usize>) -> Option<&[u8]> {
    let offset = usize::try_from(at.offset).ok()?;
    block.get(offset..offset.checked_add(length?)?)
}

fn sets<'a>(block: &'a [u8], header: &Header) -> Result<&'a [u64], SnapshotError> {
    let width = header.set_words as usize;
    let needed = (header.cpus.count as usize).div_ceil(u64::BITS as usize);
    let stated = header.sets.stride as usize == width * size_of::<u64>();
    bytes(
        block,
        header.sets,
        (header.sets.count as usize).checked_mul(width * size_of::<u64>()),
    )
    .filter(|_| stated && width == needed)
    .and_then(|bytes| bytemuck::try_cast_slice(bytes).ok())
    .ok_or(SnapshotError::Table { table: "sets" })
}

fn text(block: &[u8], at: TableRef) -> Result<&str, SnapshotError> {
    bytes(block, at, Some(at.count as usize))
        .filter(|_| at.stride == 1)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .ok_or(SnapshotError::Table { table: "text" })
}

fn check_sets(snapshot: &Snapshot<'_>) -> Result<(), SnapshotError> {
    let width = snapshot.header.set_words as usize;
    let beyond_last_cpu = match snapshot.cpus.len() % u64::BITS as usize {
        0 => 0,
        used => u64::MAX << used,
    };
    let bad = |set: &[u64]| set.last().is_some_and(|word| word & beyond_last_cpu != 0);
    match snapshot.sets.chunks(width.max(1)).position(bad) {
        Some(row) => Err(SnapshotError::Field {
            table: "sets",
            row,
            field: "members",
        }),
        None => Ok(()),
    }
}

/// Names the first field of a row that does not hold.
fn first_bad(table: &'static str, row: usize, holds: &[(&'static str, bool)]) -> Result<(), SnapshotError> {
    match holds.iter().find(|(_, holds)| !holds) {
        Some(&(field, _)) => Err(SnapshotError::Field { table, row, field }),
        None => Ok(()),
    }
}

fn check_topology(snapshot: &Snapshot<'_>) -> Result<(), SnapshotError> {
    let Snapshot {
        cpus,
        cores,
        llcs,
        nodes,
        ..
    } = *snapshot;
    if cpus.len() == 0 {
        return Err(SnapshotError::Table { table: "cpus" });
    }
    if snapshot.distances.len() != nodes.len() * nodes.len() {
        return Err(SnapshotError::Table { table: "distances" });
    }
    let in_sets = |set: u32| within(set, snapshot.header.sets.count as usize);
    let mut previous = None;
    for (at, row) in cpus.iter().enumerate() {
        let ascending = previous.is_none_or(|previous| row.os_id > previous);
        first_bad(
            "cpus",
            at,
            &[
                ("os_id", ascending),
                ("core", within(row.core, cores.len())),
                ("llc", within(row.llc, llcs.len())),
                ("node", within(row.node, nodes.len())),
                ("capacity", row.capacity.is_finite() && row.capacity > 0.0),
                ("background", percent(row.background)),
            ],
        )?;
        previous = Some(row.os_id);
    }
    for (at, row) in cores.iter().enumerate() {
        first_bad(
            "cores",
            at,
            &[
                ("llc", within(row.llc, llcs.len())),
                ("node", within(row.node, nodes.len())),
                ("cpus", in_sets(row.cpus)),
            ],
        )?;
    }
    for (at, row) in llcs.iter().enumerate() {
        first_bad(
            "llcs",
            at,
            &[
                ("node", within(row.node, nodes.len())),
                ("cpus", in_sets(row.cpus)),
            ],
        )?;
    }
    for (at, row) in nodes.iter().enumerate() {
        first_bad("nodes", at, &[("cpus", in_sets(row.cpus))])?;
    }
    Ok(())
}

/// The domains divide the vCPUs among them: each begins where the one before ends.
fn check_domains(snapshot: &Snapshot<'_>) -> Result<(), SnapshotError> {
    let mut next_vcpu = 0;
    for (at, row) in snapshot.domains.iter().enumerate() {
        let end = next_vcpu + u64::from(row.vcpu_count);
        first_bad(
            "domains",
            at,
            &[
                ("name", snapshot.text_at(row.name).is_some()),
                ("first_vcpu", u64::from(row.first_vcpu) == next_vcpu),
                ("vcpu_count", end <= snapshot.vcpus.len() as u64),
                (
                    "memory_node",
                    row.memory_node == 0 || within(row.memory_node, snapshot.nodes.len()),
                ),
                ("weight", percent(row.weight)),
            ],
        )?;
        next_vcpu = end;
    }
    if next_vcpu == snapshot.vcpus.len() as u64 {
        Ok(())
    } else {
        Err(SnapshotError::Table { table: "vcpus" })
    }
}

fn check_vcpus(snapshot: &Snapshot<'_>) -> Result<(), SnapshotError> {
    let sets = snapshot.header.sets.count as usize;
    let cpus = snapshot.cpus.len();
    let mut at = 0;
    for (domain, domain_row) in snapshot.domains.iter().enumerate() {
        for _ in 0..domain_row.vcpu_count {
            let row = snapshot
                .vcpus
                .get(at)
                .ok_or(SnapshotError::Table { table: "vcpus" })?;
            first_bad(
                "vcpus",
                at,
                &[
                    ("domain", row.domain as usize == domain + 1),
                    ("cpu", row.cpu == 0 || within(row.cpu, cpus)),
                    ("affinity", within(row.affinity, sets)),
                    ("allowed", within(row.allowed, sets)),
                    ("slot", row.slot < MAX_SLOTS),
                    ("load", percent(row.load)),
                    ("wait", percent(row.wait)),
                ],
            )?;
            at += 1;
        }
    }
    Ok(())
}

/// Whether index + 1 refers to one of `count` rows.
fn within(index_plus_1: u32, count: usize) -> bool {
    (1..=count).contains(&(index_plus_1 as usize))
}

/// Whether a measure is unknown, or a number that a measure can be.
fn percent(stored: f64) -> bool {
    measure(stored).is_none_or(|value| value.is_finite() && value >= 0.0)
}

const _: () = assert!(size_of::<Header>().is_multiple_of(rows::ALIGNMENT));
