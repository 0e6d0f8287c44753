//! The laws: what the scheduler promises, held against the truth at every call and at the end of every tick.
//!
//! 1. *allowed*: what is set lies within what the vCPU was allowed by the last sample, worked out here a second time.
//! 2. *other hands*: what someone else set, and was noticed, stays; every pin is preceded by a reading.
//! 3. *no-op*: no pin asks for the mask that was read just before it.
//! 4. *budget*: attempts within the limits a tick and a minute, and a cooldown apart.
//! 5. *record*: before a pin its original is where a new process finds it, and as long as a mask of the scheduler stands.
//! 6. *restore*: what was given back is the original, nothing of the scheduler's is left.
//! 7. *runs*: no run of a domain gets what another one had.
//! 8. *stale*: nothing is pinned on what is not known by two samples in a row of the same connection.
//! 9. *progress*, 10. *determinism*, 11. *memory*: held in the [process](crate::process), its [time](crate::clockwork) and `main`.
//! 12. *dry run*: nothing is written to the host.

use std::time::Duration;

use vcpu_policy_api::cpuset::OsCpuSet;
use vcpu_scheduler::engine::terms::{ManualPins, Terms};
use vcpu_scheduler::host::{Original, VcpuKey, Wish};

use crate::host::name;
use crate::mask::Mask;
use crate::vcpu::{Setter, Vcpu};
use crate::world::{Guest, Phase, World};

const MINUTE_NS: u64 = 60_000_000_000;

impl World {
    fn rule(&self, guest: &Guest) -> Option<&Wish> {
        let rules = &self.terms.constraints.rules;
        let rule = rules
            .iter()
            .find(|rule| rule.matches.is_match(&guest.name, guest.uuid));
        rule.map(|rule| &rule.wish)
    }

    pub(crate) fn is_managed(&self, guest: usize) -> bool {
        let guest = &self.guests[guest];
        match self.rule(guest).and_then(|wish| wish.manage) {
            Some(manage) => manage,
            None => guest.definition.wish.manage.unwrap_or(true),
        }
    }

    pub(crate) fn allowed(&self, guest: usize, vcpu: usize) -> Mask {
        let guest = &self.guests[guest];
        let constraints = &self.terms.constraints;
        let words = [
            guest.definition.cpus_of(guest.vcpus[vcpu].number),
            guest.definition.wish.cpus.as_ref(),
            self.rule(guest).and_then(|wish| wish.cpus.as_ref()),
        ];
        let mut allowed = self.online;
        if let Some(reserved) = Mask::of(&constraints.reserved) {
            allowed = allowed.without(reserved);
        }
        if !constraints.use_isolated {
            allowed = allowed.without(self.isolated);
        }
        let words = words.into_iter().flatten().filter_map(Mask::of);
        words.fold(allowed, Mask::and)
    }

    /// A pin is asked for.
    pub(crate) fn laws_of_a_pin(&mut self, key: &VcpuKey, cpus: &OsCpuSet) {
        let vcpu = name(key);
        let Some(mask) = Mask::of(cpus).filter(|mask| !mask.is_empty()) else {
            return self.breaks(format_args!("1 allowed: {vcpu} is to get {cpus:?}"));
        };
        let phase = self.phase;
        if phase == Phase::Tick {
            self.laws_of_the_sample(key, mask);
            self.laws_of_the_budget(key);
        }
        let Some((guest, at)) = self.place(key) else {
            return;
        };
        let (guest, online) = (&self.guests[guest], self.online);
        let truth = &guest.vcpus[at];
        let (seen, now) = (truth.found, truth.mask);
        if let Some(law) = hands(truth, &self.terms) {
            return self.breaks(format_args!("2 other hands: {vcpu} {now} -> {mask}: {law}"));
        }
        if phase == Phase::Tick && seen == mask {
            return self.breaks(format_args!("3 no-op: {vcpu} has {mask} and is to get it"));
        }
        // What is given back need not be found again.
        if let Some(law) = self
            .law_of_the_record(guest, truth)
            .filter(|_| phase == Phase::Tick)
        {
            let origins = truth.origins.clone();
            return self.breaks(format_args!("5 record: {vcpu} -> {mask}: {law}: {origins:?}"));
        }
        if phase == Phase::Restore {
            let inherited = [guest.inherited(key.number, online), truth.inherited_shown];
            let due = truth.origins.iter().any(|origin| {
                [online, self.online_shown].into_iter().any(|online| {
                    inherited.into_iter().any(|inherited| {
                        let due = origin.resolve(inherited, online);
                        due == mask || due.and(self.online_shown) == mask
                    })
                })
            });
            if !due {
                let origins = truth.origins.clone();
                self.breaks(format_args!(
                    "6 restore, 7 runs: {vcpu} is given {mask} back, it had {origins:?}"
                ));
            }
        }
    }

    fn laws_of_the_sample(&mut self, key: &VcpuKey, mask: Mask) {
        let vcpu = name(key);
        if !self.connected {
            return;
        }
        let Some(shown) = self.shown.get(key) else {
            return self.breaks(format_args!("8 stale: {vcpu} is not in the last sample"));
        };
        let (measured, managed, allowed) = (shown.measured, shown.managed, shown.allowed);
        if self.stale || !measured {
            self.breaks(format_args!(
                "8 stale: {vcpu} is pinned without two readings in a row"
            ));
        }
        if !managed {
            self.breaks(format_args!("1 allowed: {vcpu} is not managed"));
        }
        if !mask.is_within(allowed) {
            self.breaks(format_args!(
                "1 allowed: {vcpu} is to get {mask}, allowed are {allowed}"
            ));
        }
    }

    fn laws_of_the_budget(&mut self, key: &VcpuKey) {
        let (now_ns, limits, vcpu) = (self.now_ns, self.terms.limits, name(key));
        self.attempts_in_tick += 1;
        self.attempts.push_back(now_ns);
        while self.attempts.front().is_some_and(|&at| now_ns - at >= MINUTE_NS) {
            self.attempts.pop_front();
        }
        if let Some(limit) = limits
            .moves_per_tick
            .filter(|&limit| self.attempts_in_tick > limit)
        {
            self.breaks(format_args!("4 budget: more than {limit} attempts in a tick"));
        }
        let in_minute = u32::try_from(self.attempts.len()).unwrap_or(u32::MAX);
        if let Some(limit) = limits.moves_per_minute.filter(|limit| in_minute > limit.get()) {
            self.breaks(format_args!("4 budget: more than {limit} attempts in a minute"));
        }
        let Some((guest, at)) = self.place(key) else {
            return;
        };
        let attempted = self.guests[guest].vcpus[at]
            .attempted
            .replace((now_ns, limits.cooldown));
        if let Some((at_ns, cooldown)) = attempted
            && Duration::from_nanos(now_ns - at_ns) < cooldown
        {
            let after = Duration::from_nanos(now_ns - at_ns);
            self.breaks(format_args!(
                "4 budget: {vcpu} is moved again after {after:?}, while it cools down for {cooldown:?}"
            ));
        }
    }

    /// What is wrong with the record of a vCPU, if anything is.
    fn law_of_the_record(&self, guest: &Guest, vcpu: &Vcpu) -> Option<&'static str> {
        let kept = guest
            .keepsake
            .as_ref()
            .and_then(|keepsake| keepsake.vcpus.get(&vcpu.number));
        let entry = self.entry(guest, vcpu.number);
        if kept.is_none() && entry.is_none() {
            return Some("it would not be found after a crash");
        }
        let originals = kept
            .map(|kept| &kept.original)
            .into_iter()
            .chain(entry.map(|entry| &entry.original));
        let mut untrue = originals.filter(|original| {
            !vcpu.origins.iter().any(|origin| match original {
                Original::Inherit => origin.inherits,
                Original::Cpus(cpus) => Mask::of(cpus) == Some(origin.mask),
            })
        });
        untrue.next().map(|_| "the recorded original is not what it had")
    }

    /// At the end of each tick.
    pub(crate) fn laws_of_a_tick(&mut self) {
        for guest in 0..self.guests.len() {
            let vcpus = self.guests[guest].vcpus.len();
            for at in 0..vcpus + self.guests[guest].unplugged.len() {
                let (of, online) = (&self.guests[guest], self.online);
                let mut unplugged = of.unplugged.values();
                let vcpu = match at.checked_sub(vcpus) {
                    None => &of.vcpus[at],
                    Some(at) => &unplugged.nth(at).expect("counted").vcpu,
                };
                let inherited = of.inherited(vcpu.number, online);
                let is_ours = vcpu.setter == Setter::Us
                    && !vcpu
                        .origins
                        .iter()
                        .any(|origin| origin.resolve(inherited, online).same(vcpu.mask, online));
                if is_ours && !self.is_on_record(of, vcpu.number) {
                    let (uuid, number, mask) = (of.uuid.0[0], vcpu.number, vcpu.mask);
                    self.breaks(format_args!(
                        "5 record: {uuid}/{number} has our {mask}, and nobody knows"
                    ));
                }
            }
        }
    }

    /// After all was given back.
    pub(crate) fn laws_of_the_end(&mut self) {
        let online = self.online;
        let seen = |guest: &Guest| {
            let sample = self.last.as_ref();
            sample.is_some_and(|sample| {
                sample
                    .domains
                    .iter()
                    .any(|domain| domain.uuid == guest.uuid && domain.instance == guest.instance)
            })
        };
        // Those that came after the sample are for the next process.
        let seen: Vec<usize> = (0..self.guests.len())
            .filter(|&at| seen(&self.guests[at]))
            .collect();
        for guest in seen {
            let of = &self.guests[guest];
            let uuid = of.uuid.0[0];
            let unplugged = of.unplugged.values().map(|out| &out.vcpu);
            let leftover = of.vcpus.iter().chain(unplugged).find(|vcpu| {
                let inherited = of.inherited(vcpu.number, online);
                vcpu.setter == Setter::Us
                    && !vcpu
                        .origins
                        .iter()
                        .any(|origin| origin.resolve(inherited, online).same(vcpu.mask, online))
            });
            if let Some(vcpu) = leftover {
                let (number, mask, origins) = (vcpu.number, vcpu.mask, vcpu.origins.clone());
                return self.breaks(format_args!(
                    "6 restore: {uuid}/{number} is left with our {mask}, it had {origins:?}"
                ));
            }
            if of.keepsake.is_some() {
                return self.breaks(format_args!("6 restore: domain {uuid} still carries a keepsake"));
            }
        }
        if !self.holds.is_empty() {
            let left = self.holds.values().next().cloned();
            self.breaks(format_args!("6 restore: the journal still holds {left:?}"));
        }
    }
}

fn hands(vcpu: &Vcpu, terms: &Terms) -> Option<&'static str> {
    if vcpu.read {
        hands_off(vcpu, terms)
    } else {
        Some("it was not read just before")
    }
}

/// Why a vCPU is to be left alone, if it is.
pub(crate) fn hands_off(vcpu: &Vcpu, terms: &Terms) -> Option<&'static str> {
    if vcpu.taken && terms.manual_pins == ManualPins::Respect {
        Some("someone else pinned it just now")
    } else if vcpu.noticed && terms.manual_pins == ManualPins::Respect {
        Some("someone else pinned it")
    } else if vcpu.respected.is_some() {
        Some("it was so at first sight, and such are respected")
    } else {
        None
    }
}
