//! What goes wrong, and how often.

use vcpu_scheduler::host::{HostError, PinError};

use crate::dice::Dice;

/// How rare each kind of fault is: one in so many; 0 is never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// Of the calls that change or read one vCPU or domain.
    pub(crate) call: u32,
    /// Of the samples.
    pub(crate) sample: u32,
    /// Of what a sample says of one domain.
    pub(crate) lie: u32,
    /// Of the appends to the journal.
    pub(crate) journal: u32,
    /// Of the ticks: the process is killed in it.
    pub(crate) death: u32,
    /// Of the moments between two calls: someone else does something.
    pub(crate) hand: u32,
}

impl Faults {
    pub(crate) const NONE: Self = Self {
        call: 0,
        sample: 0,
        lie: 0,
        journal: 0,
        death: 0,
        hand: 0,
    };

    /// Another weather for each seed: some of it may be fine all the time.
    pub(crate) fn any(dice: &mut Dice) -> Self {
        let mut rarity = |least: u32| match dice.below(4) {
            0 => 0,
            1 => least,
            2 => least * 4,
            _ => least * 20,
        };
        Self {
            call: rarity(4),
            sample: rarity(6),
            lie: rarity(20),
            journal: rarity(4),
            death: rarity(15),
            hand: rarity(8),
        }
    }

    pub(crate) fn journal(self, dice: &mut Dice) -> bool {
        dice.one_in(self.journal)
    }

    /// What becomes of a call that would work.
    pub(crate) fn call(self, dice: &mut Dice) -> Fate {
        if !dice.one_in(self.call) {
            return Fate::Works;
        }
        match dice.below(40) {
            0..10 => Fate::Fails(PinError::Busy { source: cause() }),
            10..15 => Fate::Fails(PinError::Refused { source: cause() }),
            15..18 => Fate::FailsAfterwards,
            18..22 => Fate::Fails(PinError::Gone),
            22..25 => Fate::Fails(PinError::Unsupported { source: cause() }),
            25..29 => Fate::Fails(PinError::Host(HostError::Failed {
                operation: "chaos".to_owned(),
                source: cause(),
            })),
            29 => Fate::Fails(PinError::Forbidden { source: cause() }),
            30..33 => Fate::Lost,
            33..37 => Fate::LostAfterwards,
            _ => Fate::Hangs,
        }
    }
}

pub(crate) enum Fate {
    Works,
    /// It has no effect.
    Fails(PinError),
    /// It takes effect, but the host says that it refuses it.
    FailsAfterwards,
    /// The connection breaks, and the call has no effect.
    Lost,
    /// It takes effect, but the connection breaks before the answer.
    LostAfterwards,
    /// Patience ends: the connection counts as lost, and the call takes effect some time later.
    Hangs,
}

pub(crate) fn lost() -> HostError {
    HostError::Lost {
        operation: "chaos".to_owned(),
        source: cause(),
    }
}

pub(crate) fn cause() -> vcpu_scheduler::host::Cause {
    "chaos".into()
}
