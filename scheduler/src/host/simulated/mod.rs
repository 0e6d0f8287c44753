//! A host that is not there: guests and their loads from a [scenario file](scenario), shared out by arithmetic.
//!
//! It stands behind the same [`Host`] trait as a real one, so that what a policy does here is what it would do there. In
//! goes a [`Scenario`]; what comes out of [`Host::sample`] are counters, and what goes in by [`Host::pin`] takes effect
//! from the next interval on. Nothing reads a clock and nothing sleeps.
//!
//! **Time.** The first sample is the baseline, tick 0. Each further one lets one interval pass. An event at tick n acts
//! right after sample n-1, so the interval that ends with sample n is the first to feel it. Samples lie on a grid; where
//! slow calls have run over it, the next sample is at its next point. A failed sample is a tick too: time and guests go
//! on.
//!
//! **Service.** In each interval a vCPU wants what its domain's load and noise say, 0 to 100 percent of a pCPU, and gets
//! [its max-min fair share](fair_share). Wants do not carry over, and do not depend on what was pinned: two policies meet the
//! same guests and the same noise. `wait` is the part of what it wanted that it did not get, 100 (1 - served / wanted)
//! percent of the interval. So usage is censored as on a real host: four hogs on one pCPU read 25 % each.
//!
//! **Attribution.** Of each vCPU the host says only [where it ran last](attribution). One that wanted nothing stays where
//! it was.
//!
//! **Guests.** They come in the order of the file, created ones and restored ones behind. A guest that is destroyed and
//! created again has the same UUID, another instance and incarnation, and carries nothing of the run before. One that is
//! saved (libvirt's managed save) is gone until it is restored, and then has another instance and incarnation and new
//! counters, but its affinities and its keepsake are those it was saved with. What happens meanwhile to guests of its name
//! passes it by. A paused guest wants nothing. A reboot is what it is under libvirt: the QEMU process
//! stays, with it threads, counters and pins, so there is nothing to see. Plugged vCPUs have the affinity of the stored
//! definition, or all CPUs; unplugged ones are gone from the sample. The stored definition never changes by a pin.
//!
//! **CPUs.** A CPU that goes offline leaves every affinity as it was stated; a vCPU of which no CPU is left online runs
//! anywhere until one of them comes back. So libvirt's own record of a mask has it. (The kernel's mask may differ
//! meanwhile, and afterwards: whether a thread falls back to its old mask depends on the kernel.) Isolated CPUs are only
//! said to be so; guests that may run on them do. Background load of a CPU, where the scenario states it, is served before
//! any guest.
//!
//! **Pins.** As Linux and libvirt do, the host refuses a set with a CPU that it does not have, and one of which no CPU is
//! online; any other becomes the affinity exactly as stated.
//!
//! **Faults.** `call: pin`: pins of a domain fail for so many ticks, as a busy domain's do ([`PinError::Busy`]) or as ones
//! that the host refuses ([`PinError::Refused`]); `call: affinity` and `call: keep` are the same for [`Host::affinity`] and
//! [`Host::keep`]. `call: sample`: samples fail ([`HostError::Failed`]). `call: disconnect`:
//! every call fails ([`HostError::Lost`]). `call: slow`: every call takes so long in simulated time; counters are read at
//! the end of a slow sample and say so.
//!
//! [`HostError::Failed`]: super::HostError::Failed
//! [`HostError::Lost`]: super::HostError::Lost

mod attribution;
mod chance;
mod cpus;
mod fair_share;
mod fault;
mod guest;
pub mod scenario;
mod sharing;

use std::sync::Arc;
use std::time::Duration;

use vcpu_policy_api::cpuset::OsCpuSet;

use self::chance::Chance;
use self::cpus::Cpus;
use self::fault::Faults;
use self::guest::{Demand, Guest};
use self::scenario::{Action, DomainCall, DomainSpec};
pub use self::scenario::{Scenario, ScenarioError};
use super::{
    Definition, DomainKey, Host, HostError, HostIdentity, Instance, Keepsake, PinError, Sample, VcpuKey,
};

/// A host that a scenario describes. See the [module](self).
#[derive(Debug)]
pub struct SimulatedHost {
    scenario: Scenario,
    cpus: Cpus,
    guests: Vec<Guest>,
    saved: Vec<Guest>,
    starts: u64,
    faults: Faults,
    /// The tick of the next sample.
    next_tick: u64,
    /// How many of the scenario's events have acted.
    acted: usize,
    now: Duration,
    wanted_total: f64,
    served_total: f64,
}

impl SimulatedHost {
    /// The host as the scenario finds it.
    pub fn new(scenario: Scenario) -> Self {
        let mut host = Self {
            cpus: Cpus::of(&scenario),
            guests: Vec::new(),
            saved: Vec::new(),
            starts: 0,
            faults: Faults::default(),
            next_tick: 0,
            acted: 0,
            now: Duration::ZERO,
            wanted_total: 0.0,
            served_total: 0.0,
            scenario,
        };
        for spec in host.scenario.domains.clone() {
            host.start(&spec);
        }
        host
    }

    /// The scenario.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// The host's CPUs, online or not.
    pub fn present_cpus(&self) -> &OsCpuSet {
        &self.cpus.present
    }

    /// The simulated time since the baseline: later than the last sample by what slow calls have taken since.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// What all vCPUs have wanted, summed over all ticks so far; percent of a pCPU.
    pub fn wanted_total(&self) -> f64 {
        self.wanted_total
    }

    /// What they got of it.
    pub fn served_total(&self) -> f64 {
        self.served_total
    }

    fn start(&mut self, spec: &DomainSpec) {
        for (copy, name) in spec.names().enumerate() {
            self.starts += 1;
            let instance = Instance(self.starts);
            let guest = Guest::start(
                spec,
                (copy, &name),
                instance,
                &self.cpus.present,
                &self.scenario.traces,
            );
            self.guests.push(guest);
        }
    }

    /// Lets what is due in a tick happen.
    fn act(&mut self, tick: u64) {
        self.faults.end(tick);
        while let Some(event) = self.scenario.events.get(self.acted)
            && u64::from(event.at) <= tick
        {
            let action = event.action.clone();
            self.acted += 1;
            self.happen(tick, &action);
        }
    }

    fn happen(&mut self, tick: u64, action: &Action) {
        match action {
            Action::Create(spec) => self.start(spec),
            Action::Destroy(domain) => self.guests.retain(|guest| !domain.matches(&guest.name)),
            Action::Pause(domain) => self.each(domain, |guest| guest.paused = true),
            Action::Resume(domain) => self.each(domain, |guest| guest.paused = false),
            Action::Save(domain) => {
                let saved = self.guests.extract_if(.., |guest| domain.matches(&guest.name));
                self.saved.extend(saved);
            }
            Action::Restore(domain) => {
                for guest in self.saved.extract_if(.., |guest| domain.matches(&guest.name)) {
                    self.starts += 1;
                    self.guests.push(guest.restored(Instance(self.starts)));
                }
            }
            // Under libvirt, the process and all that the host knows of it outlive a reboot.
            Action::Reboot(_) => {}
            Action::Load(change) => {
                self.each(&change.domain, |guest| {
                    guest.demand = Demand::Constant(change.percent.get());
                });
            }
            Action::Pin(pin) => self.each(&pin.domain, |guest| {
                if let Some(vcpu) = guest.vcpus.get_mut(pin.vcpu as usize) {
                    vcpu.affinity.clone_from(&pin.cpus);
                }
            }),
            Action::Vcpus(change) => {
                let present = self.cpus.present.clone();
                self.each(&change.domain, |guest| {
                    guest.plug(change.count.get() as usize, &present);
                });
            }
            Action::Cpuset(change) => self.each(&change.domain, |guest| {
                guest.definition = Arc::new(Definition {
                    cpuset: Some(change.cpus.clone()),
                    ..Definition::clone(&guest.definition)
                });
            }),
            Action::Offline(cpus) => self.cpus.switch(cpus, false),
            Action::Online(cpus) => self.cpus.switch(cpus, true),
            Action::Fail(fault) => self.faults.begin(tick, fault),
        }
    }

    fn each(&mut self, domain: &scenario::Pattern, act: impl Fn(&mut Guest)) {
        self.guests
            .iter_mut()
            .filter(|guest| domain.matches(&guest.name))
            .for_each(act);
    }

    /// Lets the guests want what they want in a tick, and shares the CPUs out.
    fn share(&mut self, tick: u64) {
        let interval = self.scenario.interval;
        let chance = Chance::new(self.scenario.seed, tick);
        let begin = interval.saturating_mul(u32::try_from(tick - 1).unwrap_or(u32::MAX));
        for guest in &mut self.guests {
            guest.want(tick, begin, chance);
        }
        let background = self.scenario.host.shape.background();
        let (wanted, served) = sharing::share(&self.cpus.topology, background, &mut self.guests, chance);
        self.wanted_total += wanted;
        self.served_total += served;
    }

    /// Lets time pass as this tick is shared out.
    fn pass(&mut self, time: Duration) {
        self.now = self.now.saturating_add(time);
        for guest in &mut self.guests {
            for vcpu in &mut guest.vcpus {
                vcpu.run(time);
            }
        }
    }

    /// The time to the next point of the grid of samples.
    fn time_to_next_sample(&self) -> Duration {
        let interval = self.scenario.interval.as_nanos();
        let into_it = self.now.as_nanos() % interval;
        nanoseconds_to_duration(interval - into_it)
    }

    /// The time that a call takes.
    fn call(&mut self) {
        let duration = self.faults.duration_of_a_call();
        if !duration.is_zero() {
            self.pass(duration);
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.now.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Host for SimulatedHost {
    fn identity(&mut self) -> Result<HostIdentity, HostError> {
        Ok(HostIdentity {
            name: "simulated".to_owned(),
            is_local: true,
            cpus: self.cpus.present.clone(),
            isolated: self.scenario.host.isolated.clone(),
        })
    }

    fn sample(&mut self) -> Result<Sample, HostError> {
        let tick = self.next_tick;
        self.next_tick += 1;
        if tick > 0 {
            self.act(tick);
            self.share(tick);
            self.pass(self.time_to_next_sample());
        }
        let read_at_ns = self.now_ns();
        self.call();
        self.faults.check_sample()?;
        let counters_read_at_ns = self.now_ns();
        Ok(Sample {
            read_at_ns,
            topology: Arc::clone(&self.cpus.topology),
            isolated: self.scenario.host.isolated.clone(),
            domains: self
                .guests
                .iter()
                .map(|guest| guest.sample(counters_read_at_ns))
                .collect(),
            unread: Vec::new(),
            connection: 0,
        })
    }

    fn pin(&mut self, key: &VcpuKey, cpus: &OsCpuSet) -> Result<(), PinError> {
        self.call();
        self.faults.check_connection(DomainCall::Pin)?;
        let guest = running(&mut self.guests, &key.domain_key())?;
        let vcpu = guest.vcpus.get_mut(key.number as usize).ok_or(PinError::Gone)?;
        self.faults.check(DomainCall::Pin, &guest.name)?;
        if let Some(why) = self.cpus.refusal(cpus) {
            return Err(PinError::Refused { source: why.into() });
        }
        vcpu.affinity.clone_from(cpus);
        Ok(())
    }

    fn affinity(&mut self, key: &VcpuKey) -> Result<OsCpuSet, PinError> {
        self.call();
        self.faults.check_connection(DomainCall::Affinity)?;
        let guest = running(&mut self.guests, &key.domain_key())?;
        let vcpu = guest.vcpus.get(key.number as usize).ok_or(PinError::Gone)?;
        self.faults.check(DomainCall::Affinity, &guest.name)?;
        Ok(vcpu.affinity.clone())
    }

    fn keep(&mut self, domain: &DomainKey, keepsake: Option<&Keepsake>) -> Result<(), PinError> {
        self.call();
        self.faults.check_connection(DomainCall::Keep)?;
        let guest = running(&mut self.guests, domain)?;
        self.faults.check(DomainCall::Keep, &guest.name)?;
        guest.keepsake = keepsake.cloned().map(Arc::new);
        Ok(())
    }
}

fn running<'a>(guests: &'a mut [Guest], domain: &DomainKey) -> Result<&'a mut Guest, PinError> {
    let mut guests = guests.iter_mut();
    guests
        .find(|guest| guest.uuid == domain.uuid && guest.instance == domain.instance)
        .ok_or(PinError::Gone)
}

fn nanoseconds_to_duration(nanoseconds: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
