//! The world as the scheduler may call it: what [`Watched`](vcpu_scheduler::host::watched) makes of a host.
//!
//! A call that hangs ends, for the caller, in a lost connection when patience ends; what was asked for takes effect some
//! time later, but before the next sample is read, since a new thread is not begun before the old one is out of its call.
//! Once the connection is lost, all is gone that a sample showed, until the next sample opens it again: with another origin
//! of its clock, and perhaps with other ids.

use std::collections::BTreeMap;
use std::sync::Arc;

use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_scheduler::host::{
    DomainKey, DomainSample, Host, HostError, HostIdentity, Instance, Keepsake, PinError, Sample, VcpuKey,
    VcpuSample,
};

use crate::faults::{Fate, cause, lost};
use crate::laws::hands_off;
use crate::mask::Mask;
use crate::vcpu::Setter;
use crate::world::{Landing, Phase, Shared, Shown, World};

pub(crate) struct Connection(pub(crate) Shared);

impl Host for Connection {
    fn identity(&mut self) -> Result<HostIdentity, HostError> {
        let world = self.0.lock();
        Ok(HostIdentity {
            name: "chaos".to_owned(),
            is_local: world.is_local,
            cpus: Mask::first(world.count).set(),
            isolated: OsCpuSet::new(),
        })
    }

    fn sample(&mut self) -> Result<Sample, HostError> {
        let mut world = self.0.lock();
        let sample = world.sample();
        let outcome = match &sample {
            Ok(sample) => format!("{} domains at {}", sample.domains.len(), sample.read_at_ns),
            Err(error) => format!("{error:?}"),
        };
        world.tell(format_args!("sample: {outcome}"));
        sample
    }

    fn pin(&mut self, vcpu: &VcpuKey, cpus: &OsCpuSet) -> Result<(), PinError> {
        let mut world = self.0.lock();
        let outcome = world.pin(vcpu, cpus);
        world.tell(format_args!("pin {} to {cpus}: {outcome:?}", name(vcpu)));
        outcome
    }

    fn affinity(&mut self, vcpu: &VcpuKey) -> Result<OsCpuSet, PinError> {
        let mut world = self.0.lock();
        let outcome = world.affinity(vcpu);
        world.tell(format_args!("affinity of {}: {outcome:?}", name(vcpu)));
        outcome
    }

    fn keep(&mut self, domain: &DomainKey, keepsake: Option<&Keepsake>) -> Result<(), PinError> {
        let mut world = self.0.lock();
        let outcome = world.keep(domain, keepsake);
        world.tell(format_args!(
            "keep {}:{} {keepsake:?}: {outcome:?}",
            domain.uuid.0[0], domain.instance.0
        ));
        outcome
    }
}

pub(crate) fn name(vcpu: &VcpuKey) -> String {
    format!("{}:{}/{}", vcpu.domain.0[0], vcpu.instance.0, vcpu.number)
}

impl World {
    fn sample(&mut self) -> Result<Sample, HostError> {
        if !self.step() {
            return Err(HostError::Stopped);
        }
        self.between_calls();
        self.land(None);
        let fails = self.dice.one_in(self.faults.sample);
        if fails {
            match self.dice.below(3) {
                0 => {
                    self.void();
                    return Err(HostError::Failed {
                        operation: "chaos".to_owned(),
                        source: cause(),
                    });
                }
                1 => {
                    self.lose();
                    return Err(lost());
                }
                _ => {
                    if let Some(last) = self.last.clone().filter(|_| self.connected) {
                        // The same reading again.
                        self.stale = true;
                        self.void = false;
                        return Ok(last);
                    }
                }
            }
        }
        if !self.connected {
            if self.dice.one_in(self.faults.sample) {
                return Err(lost());
            }
            self.reconnect();
        }
        self.stale = false;
        self.now_ns += 1;
        let sample = self.read();
        self.last = Some(sample.clone());
        Ok(sample)
    }

    /// No reading after this can be held against one before.
    pub(crate) fn void(&mut self) {
        self.void = true;
    }

    pub(crate) fn lose(&mut self) {
        self.connected = false;
        self.lost_ns = self.now_ns;
        self.void();
    }

    fn reconnect(&mut self) {
        self.connected = true;
        self.connection += 1;
        self.last = None;
        if !self.dice.one_in(3) {
            // Its clock begins after the other connection was lost.
            let age = u64::from(self.dice.below(3000)) * 1_000_000;
            self.origin_ns = self.now_ns.saturating_sub(age).max(self.lost_ns);
        }
        if self.faults.sample > 0 && self.dice.one_in(3) {
            // A session daemon that began anew counts its ids from 1.
            let offset = self.dice.below(3);
            for at in 0..self.guests.len() {
                let instance = Instance(u64::from(offset) + at as u64 + 1);
                if self.guests[at].instance != instance {
                    self.guests[at].instance = instance;
                    self.forget(at, false);
                }
            }
        }
        // Without an incarnation and a keepsake nothing tells that it is the same run.
        for at in 0..self.guests.len() {
            if !self.is_local && self.guests[at].keepsake.is_none() {
                self.forget(at, false);
            }
        }
    }

    fn read(&mut self) -> Sample {
        let mut before = std::mem::take(&mut self.shown);
        if std::mem::take(&mut self.void) {
            before.clear();
        }
        // What a dry run sees nobody remembers.
        if self.phase != Phase::Dry {
            self.online_before = self.online_shown;
            self.online_shown = self.online;
        }
        let read_at_ns = self.now_ns - self.origin_ns;
        let mut sample = Sample {
            read_at_ns,
            topology: Arc::clone(&self.topology),
            isolated: self.isolated.set(),
            domains: Vec::new(),
            unread: Vec::new(),
            connection: self.connection,
        };
        for at in 0..self.guests.len() {
            match self.dice.one_in(self.faults.lie).then(|| self.dice.below(4)) {
                Some(0) => sample.unread.push(self.guests[at].key()),
                // A host that says of a domain that it is gone is believed when all is given back.
                Some(1) if self.phase == Phase::Tick => self.forget(at, false),
                // One sample in a row: of a vCPU that is missing for longer nobody can say that it is there.
                Some(2) if !self.guests[at].bare => {
                    self.guests[at].bare = true;
                    self.forget_cooldowns(at);
                    sample.domains.push(self.bare(at));
                }
                lie => {
                    let domain = self.show(at, lie.is_some(), read_at_ns, &mut before);
                    sample.domains.push(domain);
                }
            }
        }
        sample
    }

    fn forget_cooldowns(&mut self, at: usize) {
        for vcpu in &mut self.guests[at].vcpus {
            vcpu.attempted = None;
        }
    }

    /// A domain as a sample shows it, without its vCPUs.
    fn bare(&self, at: usize) -> DomainSample {
        let guest = &self.guests[at];
        DomainSample {
            uuid: guest.uuid,
            instance: guest.instance,
            name: Arc::clone(&guest.name),
            definition: Arc::clone(&guest.definition),
            incarnation: self.is_local.then(|| guest.incarnation.clone()),
            keepsake: guest.keepsake.clone(),
            vcpus: Vec::new(),
        }
    }

    fn show(
        &mut self,
        at: usize,
        counters_lie: bool,
        read_at_ns: u64,
        before: &mut BTreeMap<VcpuKey, Shown>,
    ) -> DomainSample {
        let mut sample = self.bare(at);
        let managed = self.is_managed(at);
        self.guests[at].bare = false;
        self.guests[at].was_managed |= managed;
        for number in self.guests[at].unplugged.keys().copied().collect::<Vec<_>>() {
            let inherited = self.guests[at].inherited(number, self.online);
            if self.phase != Phase::Dry
                && let Some(out) = self.guests[at].unplugged.get_mut(&number)
            {
                out.samples += 1;
                out.vcpu.inherited_shown = inherited;
            }
        }
        for index in 0..self.guests[at].vcpus.len() {
            if self.phase != Phase::Dry {
                self.look(at, index);
                let number = self.guests[at].vcpus[index].number;
                self.guests[at].vcpus[index].inherited_shown = self.guests[at].inherited(number, self.online);
            }
            let allowed = self.allowed(at, index);
            let backwards = counters_lie && self.dice.one_in(2);
            let busy = u64::from(self.dice.below(900)) * 1_000_000;
            let (mask, last_cpu) = {
                let mask = self.guests[at].vcpus[index].mask;
                let cpus: Vec<_> = mask.and(self.online).cpus().collect();
                (mask, self.dice.pick(&cpus).copied())
            };
            let guest = &mut self.guests[at];
            let key = VcpuKey {
                domain: guest.uuid,
                instance: guest.instance,
                number: guest.vcpus[index].number,
            };
            let vcpu = &mut guest.vcpus[index];
            if counters_lie {
                vcpu.run_ns = if backwards { vcpu.run_ns / 2 } else { vcpu.run_ns };
            } else {
                vcpu.run_ns += busy;
            }
            let known = before.remove(&key);
            let measured =
                known.is_some_and(|known| known.read_at_ns < read_at_ns && known.run_ns <= vcpu.run_ns);
            sample.vcpus.push(VcpuSample {
                number: vcpu.number,
                read_at_ns,
                run_ns: vcpu.run_ns,
                delay_ns: (!counters_lie).then_some(vcpu.run_ns / 3),
                last_cpu,
                affinity: mask.set(),
            });
            let shown = Shown {
                run_ns: vcpu.run_ns,
                read_at_ns,
                measured,
                allowed,
                managed,
            };
            self.shown.insert(key, shown);
        }
        sample
    }

    /// Lets pins take effect whose answer nobody waits for: all of them, or those that are due.
    pub(crate) fn land(&mut self, due_ns: Option<u64>) {
        let landing = std::mem::take(&mut self.landing);
        for pin in landing {
            if due_ns.is_some_and(|due| pin.at_ns > due) {
                self.landing.push(pin);
                continue;
            }
            let place = self
                .guests
                .iter()
                .position(|guest| guest.incarnation == pin.incarnation);
            let Some(guest) = place else { continue };
            let vcpus = &self.guests[guest].vcpus;
            let Some(vcpu) = vcpus.iter().position(|vcpu| vcpu.number == pin.key.number) else {
                continue;
            };
            let done = self.set(guest, vcpu, pin.mask, Setter::Us);
            self.tell(format_args!(
                "late pin {} to {}: {done}",
                name(&pin.key),
                pin.mask
            ));
        }
    }

    /// Sets an affinity; the kernel refuses one without a CPU that is online.
    pub(crate) fn set(&mut self, guest: usize, vcpu: usize, mask: Mask, setter: Setter) -> bool {
        let online = self.online;
        let vcpu = &mut self.guests[guest].vcpus[vcpu];
        if mask.and(online).is_empty() {
            return false;
        }
        if setter == Setter::Us {
            vcpu.touched = true;
            vcpu.read = false;
            vcpu.noticed = false;
            vcpu.respected = None;
        } else if vcpu.mask == mask {
            return true;
        } else {
            vcpu.read = false;
            vcpu.noticed = false;
        }
        vcpu.widened = None;
        vcpu.mask = mask;
        vcpu.setter = setter;
        if self.phase == Phase::Restore && setter == Setter::Us {
            // Given back; the law of a pin has looked at what.
            vcpu.setter = Setter::Found;
        }
        true
    }

    fn pin(&mut self, key: &VcpuKey, cpus: &OsCpuSet) -> Result<(), PinError> {
        if !self.step() {
            return Err(PinError::Host(HostError::Stopped));
        }
        let place = self.place(key);
        if self.phase == Phase::Dry {
            self.breaks(format_args!("12 dry run: {} is pinned", name(key)));
        }
        self.laws_of_a_pin(key, cpus);
        let (Some((guest, at)), true, Some(mask)) = (place, self.connected, Mask::of(cpus)) else {
            return self.pin_unplugged(key, cpus);
        };
        let fate = self.faults.call(&mut self.dice);
        let vcpu = &mut self.guests[guest].vcpus[at];
        vcpu.ask(mask);
        match fate {
            Fate::Fails(PinError::Gone) if self.phase == Phase::Restore => {
                Err(PinError::Busy { source: cause() })
            }
            Fate::Fails(error) => Err(error),
            Fate::FailsAfterwards => {
                self.set(guest, at, mask, Setter::Us);
                // Giving back then tries the CPUs that are online.
                self.guests[guest].vcpus[at].read = true;
                Err(PinError::Refused { source: cause() })
            }
            Fate::Lost => {
                self.lose();
                Err(PinError::Host(lost()))
            }
            Fate::LostAfterwards => {
                self.set(guest, at, mask, Setter::Us);
                self.lose();
                Err(PinError::Host(lost()))
            }
            Fate::Hangs => {
                let at_ns = self.now_ns + u64::from(self.dice.below(8)) * 1_000_000_000;
                let incarnation = self.guests[guest].incarnation.clone();
                self.landing.push(Landing {
                    key: *key,
                    incarnation,
                    mask,
                    at_ns,
                });
                self.lose();
                Err(PinError::Host(lost()))
            }
            Fate::Works => {
                // Some kernels take offline CPUs out of the mask. That they may have gone and come back since the sample is
                // left out: nothing but a hand's narrower mask looks like that.
                let trims = self.faults.lie > 0 && self.dice.one_in(2);
                let known = self.online.or(self.online_shown);
                let set = if trims { mask.and(known) } else { mask };
                if !self.set(guest, at, set, Setter::Us) {
                    return Err(PinError::Refused { source: cause() });
                }
                self.pins += u64::from(self.phase == Phase::Tick);
                if self.step() {
                    self.answered += u64::from(self.phase == Phase::Tick);
                    Ok(())
                } else {
                    Err(PinError::Host(HostError::Stopped))
                }
            }
        }
    }

    /// What is set for a vCPU that is not plugged in waits for it.
    fn pin_unplugged(&mut self, key: &VcpuKey, cpus: &OsCpuSet) -> Result<(), PinError> {
        let guest = self
            .guests
            .iter()
            .position(|guest| guest.key() == key.domain_key());
        let (Some(guest), true, Some(mask)) = (guest, self.connected, Mask::of(cpus)) else {
            return Err(PinError::Gone);
        };
        let inherited = self.guests[guest].inherited(key.number, self.online);
        let phase = self.phase;
        let onlines = [self.online, self.online_shown];
        let Some(out) = self.guests[guest].unplugged.get_mut(&key.number) else {
            return Err(PinError::Gone);
        };
        let is_due = out.vcpu.origins.iter().any(|origin| {
            onlines.iter().any(|&online| {
                [inherited, out.vcpu.inherited_shown]
                    .into_iter()
                    .any(|inherited| origin.resolve(inherited, online) == mask)
            })
        });
        let is_free = hands_off(&out.vcpu, &self.terms).is_none();
        (out.vcpu.mask, out.vcpu.setter) = (mask, Setter::Found);
        if phase != Phase::Restore || !is_due || !is_free {
            let vcpu = name(key);
            let due = if is_due { "due" } else { "not due" };
            let free = if is_free { "free" } else { "left alone" };
            self.breaks(format_args!(
                "6 restore: {vcpu}, which is not plugged in and {free}, is to get {mask}, which is {due}"
            ));
        }
        Ok(())
    }

    fn affinity(&mut self, key: &VcpuKey) -> Result<OsCpuSet, PinError> {
        if !self.step() {
            return Err(PinError::Host(HostError::Stopped));
        }
        self.between_calls();
        let (Some((guest, at)), true) = (self.place(key), self.connected) else {
            return Err(PinError::Gone);
        };
        match self.faults.call(&mut self.dice) {
            Fate::Works => {
                self.read_back(guest, at);
                Ok(self.guests[guest].vcpus[at].mask.set())
            }
            Fate::Fails(PinError::Gone) if self.phase == Phase::Restore => {
                Err(PinError::Busy { source: cause() })
            }
            Fate::Fails(error) => Err(error),
            Fate::FailsAfterwards => Err(PinError::Refused { source: cause() }),
            Fate::Lost | Fate::LostAfterwards | Fate::Hangs => {
                self.lose();
                Err(PinError::Host(lost()))
            }
        }
    }

    fn keep(&mut self, key: &DomainKey, keepsake: Option<&Keepsake>) -> Result<(), PinError> {
        if !self.step() {
            return Err(PinError::Host(HostError::Stopped));
        }
        self.between_calls();
        let guest = self.guests.iter().position(|guest| guest.key() == *key);
        let (Some(guest), true) = (guest, self.connected) else {
            return Err(PinError::Gone);
        };
        if self.phase == Phase::Dry {
            self.breaks(format_args!("12 dry run: something is kept"));
        }
        if !self.keeps {
            return Err(PinError::Unsupported { source: cause() });
        }
        let before = &self.guests[guest];
        if keepsake.is_some() && before.keepsake.is_none() && !before.was_managed {
            let uuid = before.uuid.0[0];
            self.breaks(format_args!(
                "1 allowed: domain {uuid}, which is to be left alone, is to carry {keepsake:?}"
            ));
        }
        let fate = self.faults.call(&mut self.dice);
        let takes_effect = matches!(
            fate,
            Fate::Works | Fate::FailsAfterwards | Fate::LostAfterwards | Fate::Hangs
        );
        if takes_effect {
            self.guests[guest].keepsake = keepsake.cloned().map(Arc::new);
            // By its token the domain is found in the journal from now on.
            let of_domain = self.holds.values().filter(|entry| entry.domain == key.uuid);
            for entry in of_domain.cloned().collect::<Vec<_>>() {
                self.intended(&entry);
            }
        }
        if !takes_effect
            && !matches!(
                fate,
                Fate::Lost
                    | Fate::Fails(PinError::Busy { .. } | PinError::Gone | PinError::Unsupported { .. })
            )
        {
            self.guests[guest].refuses = true;
        }
        match fate {
            Fate::Works if self.step() => Ok(()),
            Fate::Works => Err(PinError::Host(HostError::Stopped)),
            // These words of the host are believed: nothing is left to do then.
            Fate::Fails(PinError::Unsupported { .. } | PinError::Gone) => {
                Err(PinError::Busy { source: cause() })
            }
            Fate::Fails(error) => Err(error),
            Fate::FailsAfterwards => Err(PinError::Refused { source: cause() }),
            Fate::Lost | Fate::LostAfterwards | Fate::Hangs => {
                self.lose();
                Err(PinError::Host(lost()))
            }
        }
    }
}
