//! The truth about one vCPU's affinity: who set it, what it was before, and what the scheduler has had a chance to see.

use std::collections::VecDeque;
use std::time::Duration;

use vcpu_scheduler::engine::terms::{InitialPins, ManualPins, Terms};

use crate::mask::Mask;

/// How many masks asked for are remembered as possibly on their way: as many as the ledger remembers, and some.
const ASKS: usize = 6;

/// Who set an affinity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Setter {
    /// It was so when the vCPU came to be, or was set so by its rightful owner again.
    Found,
    /// The scheduler, or the kernel from what the scheduler had set.
    Us,
    /// Someone else.
    Hand,
    /// Someone else, but it may be taken for the scheduler's.
    Unclear,
}

/// What a vCPU is to be given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    pub(crate) mask: Mask,
    /// It bound to nothing, and nor did the definition.
    pub(crate) inherits: bool,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that are true or not, each by itself"
)]
#[derive(Clone, Debug)]
pub(crate) struct Vcpu {
    pub(crate) number: u32,
    pub(crate) mask: Mask,
    pub(crate) setter: Setter,
    /// Someone else's mask was shown to the scheduler, and cannot be mistaken.
    pub(crate) noticed: bool,
    /// What it had at first sight; more than one where it cannot be told which of them the scheduler knows.
    pub(crate) origins: Vec<Origin>,
    /// Whether another one may join them at the next look.
    pub(crate) vague: bool,
    /// Whether that was so once: it may then also have been taken for one that is respected.
    pub(crate) uncertain: bool,
    /// It had this at first sight, and such are respected.
    pub(crate) respected: Option<Mask>,
    /// A pin of the scheduler took effect.
    pub(crate) touched: bool,
    /// What the scheduler saw last.
    pub(crate) seen: Mask,
    /// It was read since the scheduler last acted on it or another hand did.
    pub(crate) read: bool,
    /// It came back from a managed save and was not looked at since: it may have left with any mask.
    pub(crate) arrives: bool,
    /// What was read then.
    pub(crate) found: Mask,
    /// That is someone else's, and cannot be mistaken.
    pub(crate) taken: bool,
    /// What its definition said in the last sample.
    pub(crate) inherited_shown: Mask,
    /// What the scheduler has asked for of late.
    pub(crate) asks: VecDeque<Mask>,
    /// What the journal says that was or will be asked for.
    pub(crate) journalled: Vec<Mask>,
    /// The mask that the kernel widened, and whose that was.
    pub(crate) widened: Option<(Mask, Setter)>,
    pub(crate) run_ns: u64,
    /// When a pin was last asked for, and the shortest cooldown in force since.
    pub(crate) attempted: Option<(u64, Duration)>,
}

impl Vcpu {
    pub(crate) fn new(number: u32, mask: Mask) -> Self {
        Self {
            number,
            mask,
            setter: Setter::Found,
            noticed: false,
            origins: Vec::new(),
            vague: false,
            uncertain: false,
            respected: None,
            touched: false,
            seen: mask,
            read: false,
            arrives: false,
            found: mask,
            taken: false,
            inherited_shown: Mask::NONE,
            asks: VecDeque::new(),
            journalled: Vec::new(),
            widened: None,
            run_ns: 0,
            attempted: None,
        }
    }

    /// It is asked for, or stated once and widened by the kernel: it may come to hold yet.
    pub(crate) fn ask(&mut self, mask: Mask) {
        self.asks.push_back(mask);
        if self.asks.len() > ASKS {
            self.asks.pop_front();
        }
    }

    pub(crate) fn look(&mut self, terms: &Terms, inherited: Mask, [online, shown, before]: [Mask; 3]) {
        let everything = self.mask.same(online, online) && inherited.same(online, online);
        if self.origins.is_empty() {
            self.seen = self.mask;
            let bound = !everything && !self.mask.same(inherited, online);
            if terms.initial_pins == InitialPins::Respect && bound {
                self.respected = Some(self.mask);
            }
        }
        if self.origins.is_empty() || self.vague {
            let origin = Origin {
                mask: self.mask,
                inherits: everything,
            };
            if !self.origins.contains(&origin) {
                self.origins.push(origin);
            }
            self.vague = false;
        }
        let widened = self.widened.is_some_and(|(mask, _)| mask.and(online).is_empty());
        // What was never shown nobody can have respected.
        let stays = widened && self.widened.map(|(mask, _)| mask) == self.respected;
        if !stays
            && self.respected.is_some_and(|held| !held.same(self.mask, online))
            && self.mask.same(inherited, online)
        {
            self.respected = None;
            self.noticed = false;
            self.setter = Setter::Unclear;
        }
        if let Some(held) = &mut self.respected
            && !stays
        {
            *held = self.mask;
        }
        if self.noticed && widened && terms.manual_pins == ManualPins::Respect {
            // That the kernel lets it run elsewhere gives nothing free.
        } else if self.setter == Setter::Hand {
            if terms.manual_pins == ManualPins::Override || self.is_original(inherited, online) {
                self.setter = Setter::Unclear;
                self.noticed = false;
            } else if !self.noticed {
                let mistaken = |mask: Mask| {
                    [online, shown, before]
                        .iter()
                        .any(|&online| mask.same(self.mask, online))
                };
                let known = self.asks.iter().chain(&self.journalled).chain([&self.seen]);
                let mut offline = known.clone().filter(|mask| mask.and(online).is_empty());
                let widened = offline.next().is_some() && online.and(before).is_within(self.mask);
                let returned = self.uncertain && self.mask.same(inherited, online);
                if known.clone().copied().any(mistaken) || widened || returned || self.arrives {
                    self.setter = Setter::Unclear;
                } else {
                    self.noticed = true;
                }
            }
        }
        self.seen = self.mask;
        self.arrives = false;
    }

    /// Whether it has what it would be given back, as far as the scheduler can know.
    pub(crate) fn has_original(&self, online: [Mask; 2]) -> bool {
        online
            .into_iter()
            .any(|online| self.is_original(self.inherited_shown, online))
    }

    fn is_original(&self, inherited: Mask, online: Mask) -> bool {
        let mut origins = self.origins.iter();
        origins.any(|origin| origin.resolve(inherited, online).same(self.mask, online))
    }

    pub(crate) fn forget(&mut self, certain: bool) {
        if certain {
            self.origins.clear();
            self.uncertain = false;
        } else {
            self.vague = true;
            self.uncertain = true;
        }
        self.noticed = false;
        self.respected = None;
        if certain {
            self.setter = Setter::Found;
            self.touched = false;
        }
    }
}

impl Origin {
    /// The affinity to give back now.
    pub(crate) fn resolve(self, inherited: Mask, online: Mask) -> Mask {
        let own = if self.inherits { inherited } else { self.mask };
        let choices = [own, inherited];
        choices
            .into_iter()
            .find(|mask| !mask.and(online).is_empty())
            .unwrap_or(online)
    }
}
