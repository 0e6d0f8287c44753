//! What [`stddev`](super) tells the operator: why this vCPU moves, or why none does.
//!
//! Every outcome of the rule has its own case here. The texts know CPUs by the kernel's numbers and vCPUs by their
//! domain's name, and are written without allocating.

use std::fmt;

use super::{Site, Victim};

/// A move that helps. Displayed as the reason for the pin.
pub(super) struct Move<'s> {
    pub(super) source: Site,
    pub(super) target: Site,
    pub(super) victim: Victim<'s>,
    /// The standard deviation now.
    pub(super) stddev: f64,
    /// The standard deviation after the move; not above the one now.
    pub(super) projected: f64,
}

impl fmt::Display for Move<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, target) = (self.source, self.target);
        write!(
            f,
            "cpu {} carries {:.1} %, cpu {} the least with {:.1} %: moving {:.1} %{} lowers stddev {:.2} to {:.2}",
            source.os_id,
            source.load,
            target.os_id,
            target.load,
            self.victim.load,
            if self.victim.heavier_stays {
                ", the heaviest that may move,"
            } else {
                ""
            },
            self.stddev,
            self.projected
        )
    }
}

/// Why nothing moves. Displayed as the plan's note.
pub(super) enum Stay<'s> {
    /// There are fewer than two managed pCPUs.
    NowhereToGo { managed: usize },
    /// There is no vCPU.
    NoVcpu,
    /// No vCPU has a known load.
    NoLoad,
    /// The loads, or their squares, are beyond what numbers can hold.
    Immense,
    /// The standard deviation is not above the threshold.
    EvenEnough { stddev: f64, threshold: f64 },
    /// Whatever the plan held would be refused.
    NoBudget,
    /// No vCPU on the source may be pinned to the target.
    NothingMayMove {
        source: Site,
        target: Site,
        obstacles: Obstacles,
    },
    /// The look-ahead: the move would not lower the standard deviation.
    NoHelp {
        source: Site,
        target: Site,
        victim: Victim<'s>,
        stddev: f64,
    },
}

impl fmt::Display for Stay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NowhereToGo { managed: 0 } => f.write_str("no cpu is managed: there is nothing to balance"),
            Self::NowhereToGo { .. } => f.write_str("only one cpu is managed: there is nowhere to move to"),
            Self::NoVcpu => f.write_str("there is no vCPU"),
            Self::NoLoad => f.write_str("no vCPU has a known load yet"),
            Self::Immense => f.write_str("the loads are too large to be compared"),
            // The deviation to the hundredth, the threshold as it was written.
            Self::EvenEnough { stddev, threshold } => {
                write!(f, "stddev {stddev:.2} is within the threshold of {threshold:?}")
            }
            Self::NoBudget => f.write_str("no more pins are allowed in this tick"),
            Self::NothingMayMove {
                source,
                target,
                obstacles,
            } => write!(
                f,
                "nothing on cpu {}, the busiest with {:.1} %, may move to cpu {}, the least busy with {:.1} %: {obstacles}",
                source.os_id, source.load, target.os_id, target.load
            ),
            Self::NoHelp {
                source,
                target,
                victim,
                stddev,
            } => write!(
                f,
                "moving {} ({:.1} %) from cpu {} to cpu {} would not lower stddev {stddev:.2}: \
                 cpu {} would carry {:.1} %, and cpu {} carries {:.1} % now",
                victim.vcpu,
                victim.load,
                source.os_id,
                target.os_id,
                target.os_id,
                target.load + victim.load,
                source.os_id,
                source.load
            ),
        }
    }
}

/// What keeps a vCPU from being pinned to the target.
#[derive(Debug, Clone, Copy)]
pub(super) enum Obstacle {
    /// Its domain is not managed.
    Unmanaged,
    /// It may not be pinned in this tick.
    NotMovable,
    /// The target is not among the CPUs it may be pinned to.
    NotAllowed,
    /// It is pinned to the target, though it ran elsewhere.
    PinnedThere,
}

/// How many vCPUs each obstacle keeps where they are.
#[derive(Debug, Default)]
pub(super) struct Obstacles {
    unmanaged: u32,
    not_movable: u32,
    not_allowed: u32,
    pinned_there: u32,
}

impl Obstacles {
    pub(super) fn count(&mut self, obstacle: Obstacle) {
        *match obstacle {
            Obstacle::Unmanaged => &mut self.unmanaged,
            Obstacle::NotMovable => &mut self.not_movable,
            Obstacle::NotAllowed => &mut self.not_allowed,
            Obstacle::PinnedThere => &mut self.pinned_there,
        } += 1;
    }
}

/// For example `1 unmanaged, 2 not allowed there`.
impl fmt::Display for Obstacles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.unmanaged, "unmanaged"),
            (self.not_movable, "not movable in this tick"),
            (self.not_allowed, "not allowed there"),
            (self.pinned_there, "pinned there already"),
        ];
        let mut separator = "";
        for (count, what) in counts.into_iter().filter(|&(count, _)| count > 0) {
            write!(f, "{separator}{count} {what}")?;
            separator = ", ";
        }
        Ok(())
    }
}
