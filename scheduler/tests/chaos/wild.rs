//! A policy without manners: it asks for what it likes, fails when it likes, and panics when it likes.
//!
//! Its panics go around the panic hook, so that they do not fill the terminal; for the engine they are panics as any other.

use vcpu_policy_api::cpuset::CpuSet;
use vcpu_policy_api::ids::{CpuIx, VcpuIx};
use vcpu_policy_api::plan::Plan;
use vcpu_policy_api::policy::{Decide, PolicyError};
use vcpu_policy_api::snapshot::{Snapshot, Vcpu};

use crate::dice::Dice;
use crate::world::Shared;

pub(crate) struct Wild {
    dice: Dice,
    world: Shared,
}

impl Wild {
    pub(crate) fn new(seed: u64, world: Shared) -> Self {
        Self {
            dice: Dice::new(seed),
            world,
        }
    }

    fn rows(&mut self, count: u32) -> CpuSet {
        let mut rows = CpuSet::new();
        for _ in 0..=self.dice.below(3) {
            rows.insert(CpuIx(self.dice.below(count)));
        }
        rows
    }

    fn gain(&mut self) -> f64 {
        match self.dice.below(24) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            _ => f64::from(self.dice.below(100)) - 50.0,
        }
    }

    /// Any vCPU, anywhere, also where there is none.
    fn nonsense(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan, count: u32) {
        let (cpus, _, vcpus) = snapshot.counts();
        for _ in 0..count {
            let vcpu = VcpuIx(self.dice.below(small(vcpus) + 3));
            let rows = if self.dice.one_in(10) {
                CpuSet::new()
            } else {
                self.rows(small(cpus) + 2)
            };
            let gain = self.gain();
            plan.pin(vcpu, rows.as_ref(), "wild", gain);
        }
    }

    /// Some of the CPUs that a vCPU is allowed.
    fn sense(&mut self, vcpu: &Vcpu<'_>, plan: &mut Plan) {
        let allowed: Vec<CpuIx> = vcpu.allowed().iter().collect();
        let mut rows = CpuSet::new();
        for _ in 0..=self.dice.below(2) {
            rows.extend(self.dice.pick(&allowed).copied());
        }
        plan.pin(vcpu.ix(), rows.as_ref(), "wild", 1.0);
    }
}

/// The model has few of anything.
fn small(count: usize) -> u32 {
    u32::try_from(count).expect("few")
}

impl Decide for Wild {
    fn decide(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) -> Result<(), PolicyError> {
        let calm = self.world.lock().look_at_snapshot(snapshot);
        if !calm {
            match self.dice.below(400) {
                0 => std::panic::resume_unwind(Box::new("wild")),
                1 => return Err(PolicyError::new("wild")),
                2 => return Err(PolicyError::lost("wild")),
                3 => self.nonsense(snapshot, plan, 3000),
                4..100 => self.nonsense(snapshot, plan, 4),
                100..250 => return Ok(()),
                _ => {}
            }
        }
        for vcpu in snapshot.vcpus() {
            if calm || self.dice.one_in(3) {
                self.sense(&vcpu, plan);
            }
            if self.dice.one_in(9) {
                self.sense(&vcpu, plan);
            }
        }
        if !calm && self.dice.one_in(500) {
            std::panic::resume_unwind(Box::new("wild".to_owned()));
        }
        Ok(())
    }
}
