//! Whose decision a vCPU's affinity is.
//!
//! For each vCPU this holds the affinity it had before us, the one that is known to hold now, and those that were asked
//! for without an answer. In goes the affinity that is seen; out comes whether it is one of these, or somebody else's
//! decision. Pure.
//!
//! Promises:
//! - An affinity that is neither the one known to hold nor one asked for is somebody else's. The vCPU is then left alone
//!   until its original affinity is seen again, or it is released.
//! - What the kernel does by itself is nobody's decision. A mask whose last CPU goes offline is widened by the kernel, and
//!   one that is shown with or without its offline CPUs is the same mask. So nothing that is left alone is given free while
//!   no CPU of the mask is online that it was left alone with.
//! - The original never changes, whatever is seen later.

mod scene;

use vcpu_policy_api::cpuset::OsCpuSet;

pub use self::scene::Scene;
use self::scene::{is_everything, is_offline, is_wide, same};
use crate::engine::terms::{InitialPins, ManualPins};
use crate::host::{Kept, Original};

/// What is known of one vCPU's affinity. See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Custody {
    /// What it is given back.
    pub original: Original,
    /// The affinity last known to hold: seen first, or confirmed last; of what is left alone, seen last.
    pub expected: OsCpuSet,
    /// Affinities that may come to hold yet: asked for without an answer, or stated once and widened by the kernel.
    pub asked: Vec<OsCpuSet>,
    /// The affinity that is about to be asked for. Whoever is seen to have it already has it from somebody else.
    pub intended: Option<OsCpuSet>,
    /// Why it is left alone, if it is.
    pub hold: Option<Hold>,
    /// Whether it was ever asked to be pinned, so that there is something to give back.
    pub touched: bool,
}

/// Why a vCPU is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// Someone else pinned it, to this.
    Manual(OsCpuSet),
    /// It had this affinity when it was first seen, and such are respected.
    Initial(OsCpuSet),
}

/// What an affinity that was seen turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Nothing new.
    Unchanged,
    /// One that was asked for without an answer holds.
    Confirmed,
    /// The kernel widened a mask of which no CPU is online.
    Displaced,
    /// Somebody else's decision: the vCPU is left alone from now on.
    Taken,
    /// Somebody else's decision, which was expected not to be respected: the vCPU may be moved from there.
    Overridden,
    /// Somebody else has set the original again, or nothing of its own: the vCPU may be moved from there.
    Returned,
}

impl Finding {
    /// Whether it is somebody else's doing.
    pub fn is_decision(&self) -> bool {
        matches!(self, Self::Taken | Self::Overridden | Self::Returned)
    }
}

/// An affinity that is seen, among those that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mask {
    /// The one that is known to hold.
    Expected,
    /// The one at this place of those asked for.
    Asked(usize),
    /// The one known to hold, less CPUs that came back online: some kernels take an offline CPU out for good.
    Shrunk,
    /// What the kernel makes of one of which no CPU is online.
    Widened,
    /// None of them.
    Other,
}

/// More answers than this are never outstanding: a connection that hangs is opened anew.
const MOST_ASKED: usize = 4;

impl Custody {
    /// A vCPU that is seen for the first time, with nothing known about it.
    pub fn first_seen(seen: &OsCpuSet, scene: Scene<'_>, pins: InitialPins) -> Self {
        let original = if is_everything(seen, scene) {
            Original::Inherit
        } else {
            Original::Cpus(seen.clone())
        };
        let respected = pins == InitialPins::Respect && !same(seen, scene.inherited, scene.online);
        Self {
            hold: (respected && original != Original::Inherit).then(|| Hold::Initial(seen.clone())),
            original,
            expected: seen.clone(),
            asked: Vec::new(),
            intended: None,
            touched: false,
        }
    }

    /// A vCPU of a domain that carries this about it. Whatever affinity it is seen to have first, it left with.
    pub fn carried(kept: &Kept) -> Self {
        Self {
            original: kept.original.clone(),
            expected: OsCpuSet::new(),
            asked: Vec::new(),
            intended: None,
            hold: kept.hands_off.then(|| Hold::Manual(OsCpuSet::new())),
            touched: true,
        }
    }

    /// Whether it is known only by what its domain carries.
    pub fn is_unseen(&self) -> bool {
        self.expected.is_empty()
    }

    /// It is seen, and was perhaps not before.
    pub fn meet(&mut self, seen: &OsCpuSet) {
        if self.is_unseen() {
            self.expected.clone_from(seen);
            if let Some(Hold::Manual(held)) = &mut self.hold {
                held.clone_from(seen);
            }
        }
    }

    /// What a domain is to carry about it; `None` if that is nothing.
    pub fn kept(&self) -> Option<Kept> {
        self.is_on_record().then(|| Kept {
            original: self.original.clone(),
            hands_off: matches!(self.hold, Some(Hold::Manual(_))),
        })
    }

    /// Whether it has to outlive this process.
    pub fn is_on_record(&self) -> bool {
        self.touched || matches!(self.hold, Some(Hold::Manual(_)))
    }

    /// Judges the affinity that is seen, and remembers it.
    pub fn observe(&mut self, seen: &OsCpuSet, scene: Scene<'_>, manual: ManualPins) -> Finding {
        let shown = std::mem::replace(&mut self.expected, seen.clone());
        match &mut self.hold {
            Some(Hold::Manual(_)) if manual == ManualPins::Override => {
                self.settle(seen, scene.online);
                Finding::Returned
            }
            Some(Hold::Manual(held) | Hold::Initial(held))
                if is_offline(held, scene.online) && (*seen == shown || is_wide(seen, scene)) =>
            {
                Finding::Unchanged
            }
            Some(Hold::Manual(held)) => {
                held.clone_from(seen);
                if same(seen, &self.resolve(scene), scene.online) {
                    self.settle(seen, scene.online);
                    return Finding::Returned;
                }
                Finding::Unchanged
            }
            Some(Hold::Initial(held)) => {
                let moved = !same(seen, held, scene.online);
                held.clone_from(seen);
                if moved && same(seen, scene.inherited, scene.online) {
                    self.settle(seen, scene.online);
                    return Finding::Returned;
                }
                Finding::Unchanged
            }
            None => {
                self.expected = shown;
                self.judge(seen, scene, manual)
            }
        }
    }

    fn judge(&mut self, seen: &OsCpuSet, scene: Scene<'_>, manual: ManualPins) -> Finding {
        match self.recognise(seen, scene) {
            Mask::Expected => Finding::Unchanged,
            Mask::Asked(at) => {
                self.expected = self.asked.remove(at);
                Finding::Confirmed
            }
            Mask::Shrunk => {
                self.expected.clone_from(seen);
                Finding::Unchanged
            }
            Mask::Widened => {
                let stated = std::mem::replace(&mut self.expected, seen.clone());
                if is_offline(&stated, scene.online) {
                    self.remember(stated);
                }
                Finding::Displaced
            }
            Mask::Other if same(seen, &self.resolve(scene), scene.online) => {
                self.settle(seen, scene.online);
                Finding::Returned
            }
            Mask::Other if manual == ManualPins::Override => {
                self.settle(seen, scene.online);
                Finding::Overridden
            }
            Mask::Other => {
                self.expected.clone_from(seen);
                self.hold = Some(Hold::Manual(seen.clone()));
                Finding::Taken
            }
        }
    }

    /// Which of the known affinities this is.
    fn recognise(&self, seen: &OsCpuSet, scene: Scene<'_>) -> Mask {
        let is_expected = |online| same(seen, &self.expected, online);
        let is_asked = |asked: &OsCpuSet| same(seen, asked, scene.online);
        if is_expected(scene.online) {
            Mask::Expected
        } else if let Some(at) = self.asked.iter().position(is_asked) {
            Mask::Asked(at)
        } else if scene.online != scene.online_before && is_expected(scene.online_before) {
            Mask::Shrunk
        } else if self.may_be_widened(scene.online) && is_wide(seen, scene) {
            Mask::Widened
        } else {
            Mask::Other
        }
    }

    /// Whether this affinity is one that was found, set or asked for, or that the kernel made of one: nobody else's.
    pub fn is_ours(&self, seen: &OsCpuSet, scene: Scene<'_>) -> bool {
        self.hold.is_none() && (self.is_unseen() || self.recognise(seen, scene) != Mask::Other)
    }

    /// Whether this is an affinity that it is known to have, or to have been asked to have, left alone or not.
    pub fn is_known(&self, seen: &OsCpuSet, scene: Scene<'_>) -> bool {
        match &self.hold {
            _ if self.is_unseen() => true,
            Some(Hold::Manual(held) | Hold::Initial(held)) => same(seen, held, scene.online),
            None => self.is_ours(seen, scene),
        }
    }

    /// Ends the hold on it: it may be moved from where it is. Whether there was one.
    pub fn release(&mut self) -> bool {
        match self.hold.take() {
            Some(Hold::Manual(held) | Hold::Initial(held)) => {
                // The kernel may have widened it, and find back to it.
                if held != self.expected {
                    self.remember(held);
                }
                true
            }
            None => false,
        }
    }

    /// It is about to be pinned to this.
    pub fn intend(&mut self, cpus: &OsCpuSet) {
        self.touched = true;
        self.intended = Some(cpus.clone());
    }

    /// What is intended is asked for now.
    pub fn ask(&mut self) {
        if let Some(cpus) = self.intended.take() {
            self.remember(cpus);
        }
    }

    /// It was pinned to this.
    pub fn confirm(&mut self, cpus: &OsCpuSet) {
        self.expected.clone_from(cpus);
        self.asked.clear();
        self.intended = None;
    }

    /// What was intended is not asked for after all. It may have been earlier, and that may come about yet.
    pub fn withdraw(&mut self) {
        self.intended = None;
    }

    /// This was asked for, and will not come about.
    pub fn retract(&mut self, cpus: &OsCpuSet) {
        self.asked.retain(|asked| asked != cpus);
    }

    /// The affinity to give back, as far as its CPUs are online; all that is inherited where none of them is.
    pub fn resolve(&self, scene: Scene<'_>) -> OsCpuSet {
        let mut cpus = match &self.original {
            Original::Inherit => scene.inherited.clone(),
            Original::Cpus(cpus) => cpus.clone(),
        };
        if cpus.iter().any(|cpu| scene.online.contains(cpu)) {
            return cpus;
        }
        cpus.clone_from(scene.inherited);
        if cpus.iter().any(|cpu| scene.online.contains(cpu)) {
            cpus
        } else {
            scene.online.clone()
        }
    }

    /// Whether the kernel may have widened a mask of it: one of which no CPU is online.
    fn may_be_widened(&self, online: &OsCpuSet) -> bool {
        let mut stated = std::iter::once(&self.expected).chain(&self.asked);
        stated.any(|cpus| is_offline(cpus, online))
    }

    /// Whether an affinity of ours may come to hold by itself: a pin without an answer may be on its way, and some kernels
    /// find back to a mask that they widened once its CPUs are online again.
    pub fn is_pending(&self) -> bool {
        !self.asked.is_empty()
    }

    fn settle(&mut self, seen: &OsCpuSet, online: &OsCpuSet) {
        self.hold = None;
        self.expected.clone_from(seen);
        // Whoever set this may have met one that the kernel had widened, and so may this only look like somebody's doing.
        self.asked.retain(|asked| is_offline(asked, online));
    }

    fn remember(&mut self, cpus: OsCpuSet) {
        self.asked.retain(|asked| *asked != cpus);
        self.asked.push(cpus);
        if self.asked.len() > MOST_ASKED {
            self.asked.remove(0);
        }
    }
}

#[cfg(test)]
mod tests;
