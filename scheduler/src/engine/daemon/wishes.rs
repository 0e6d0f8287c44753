//! What domains' metadata asks of the scheduler, and what changed about that while the daemon runs.
//!
//! In goes each sample; out comes a sentence for each change of a wish, which says what the wish is now and what that means
//! for the domain's vCPUs. What a domain asks when it is first seen is no news. Nothing is worked out for domains of which
//! nothing changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vcpu_policy_api::cpuset::OsCpuSet;

use crate::engine::constraints::explain::Numbers;
use crate::engine::constraints::{Constraints, Management, Standing};
use crate::engine::ledger::Ledger;
use crate::host::{Definition, DomainKey, DomainSample, Sample, Wish};

/// What each domain asked when it was seen last. See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Wishes(BTreeMap<DomainKey, Arc<Definition>>);

/// A domain that asks for something else than it did.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) domain: Arc<str>,
    pub(super) what: String,
}

impl Wishes {
    /// Takes in what a sample shows.
    pub(super) fn observe(
        &mut self,
        sample: &Sample,
        constraints: &Constraints,
        ledger: &Ledger,
    ) -> Vec<Changed> {
        let mut changes = Vec::new();
        for domain in &sample.domains {
            let now = Arc::clone(&domain.definition);
            let Some(before) = self.0.insert(domain.key(), now) else {
                continue;
            };
            if Arc::ptr_eq(&before, &domain.definition) || before.wish == domain.definition.wish {
                continue;
            }
            let change = Change {
                before: &before.wish,
                domain,
                standing: constraints.of_domain(&domain.name, domain.uuid, &domain.definition),
            };
            let said = [change.of_management(ledger), change.of_cpus(sample, constraints)];
            changes.extend(said.into_iter().flatten().map(|what| Changed {
                domain: Arc::clone(&domain.name),
                what,
            }));
        }
        if self.0.len() > sample.domains.len() {
            let mut there: BTreeSet<DomainKey> = sample.domains.iter().map(DomainSample::key).collect();
            there.extend(&sample.unread);
            self.0.retain(|key, _| there.contains(key));
        }
        changes
    }
}

struct Change<'a> {
    before: &'a Wish,
    domain: &'a DomainSample,
    standing: Standing<'a>,
}

impl Change<'_> {
    /// Whether it begins or ceases to ask to be left alone.
    fn of_management(&self, ledger: &Ledger) -> Option<String> {
        let asks = |wish: &Wish| wish.manage == Some(false);
        let now = &self.domain.definition.wish;
        if asks(self.before) == asks(now) {
            return None;
        }
        let says = if asks(now) {
            "asks to leave it alone"
        } else {
            "does not ask to leave it alone any more"
        };
        let means = match self.standing.management() {
            Management::Default => "its vCPUs may be moved".to_owned(),
            Management::ByRule(rule) => format!("its vCPUs may be moved all the same, because of {rule}"),
            Management::ExcludedByRule(rule) => {
                format!("its vCPUs are not moved in any case, because of {rule}")
            }
            Management::ExcludedByMetadata => match self.pinned(ledger) {
                None => "its load counts, and its vCPUs are not moved".to_owned(),
                Some(pinned) => format!(
                    "its load counts, and its vCPUs are not moved any more; where the scheduler has put them they stay \
                     until it ends: {pinned}"
                ),
            },
        };
        Some(format!("its metadata {says}: {means}"))
    }

    /// The vCPUs that are where the scheduler has put them.
    fn pinned(&self, ledger: &Ledger) -> Option<String> {
        let pinned = self.domain.vcpus.iter().filter(|vcpu| {
            let key = self.domain.key().vcpu(vcpu.number);
            let custody = ledger.custody(&key);
            custody.is_some_and(|custody| custody.touched && custody.hold.is_none())
                && ledger.original(&key).as_ref() != Some(&vcpu.affinity)
        });
        in_words(pinned.map(|vcpu| vcpu.number))
    }

    /// Whether it asks for other CPUs.
    fn of_cpus(&self, sample: &Sample, constraints: &Constraints) -> Option<String> {
        let now = &self.domain.definition.wish.cpus;
        if self.before.cpus == *now {
            return None;
        }
        let says = match now {
            Some(cpus) => format!("keeps it to CPUs {cpus}"),
            None => "does not keep it to certain CPUs any more".to_owned(),
        };
        let means = if self.standing.management().is_managed() {
            self.of_placement(sample, constraints)
        } else {
            "it is not moved in any case".to_owned()
        };
        Some(format!("its metadata {says}: {means}"))
    }

    /// Where its vCPUs may be pinned, and which of them are elsewhere.
    fn of_placement(&self, sample: &Sample, constraints: &Constraints) -> String {
        let managed = constraints.managed(&sample.topology, &sample.isolated);
        let mut groups: Vec<(OsCpuSet, Vec<u32>)> = Vec::new();
        let mut outside = Vec::new();
        for vcpu in &self.domain.vcpus {
            let rows = self.standing.allowed(&sample.topology, &managed, vcpu.number);
            let allowed = sample.topology.os_ids(rows.as_ref());
            if !allowed.is_empty() && !vcpu.affinity.as_ref().is_subset(allowed.as_ref()) {
                outside.push(vcpu.number);
            }
            match groups.iter_mut().find(|(cpus, _)| *cpus == allowed) {
                Some((_, numbers)) => numbers.push(vcpu.number),
                None => groups.push((allowed, vec![vcpu.number])),
            }
        }
        let group = |(cpus, numbers): (OsCpuSet, Vec<u32>)| {
            let vcpus = in_words(numbers)?;
            Some(if cpus.is_empty() {
                format!("{vcpus} may be pinned to no CPU, so not moved")
            } else {
                format!("{vcpus} may be pinned to {cpus}")
            })
        };
        let mut means: Vec<String> = groups.into_iter().filter_map(group).collect();
        means.extend(
            in_words(outside).map(|vcpus| format!("not there yet, until the policy moves it: {vcpus}")),
        );
        means.join("; ")
    }
}

/// Ascending numbers of vCPUs; `None` if there are none.
fn in_words(numbers: impl IntoIterator<Item = u32>) -> Option<String> {
    let mut numbers = numbers.into_iter();
    let first = numbers.next()?;
    let mut ranges = Numbers::one(first);
    let mut word = "vCPU";
    for number in numbers {
        ranges.add(number);
        word = "vCPUs";
    }
    Some(format!("{word} {ranges}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, parse};
    use crate::engine::terms::Terms;
    use crate::host::simulated::{Scenario, SimulatedHost};
    use crate::host::{Host, VcpuKey};

    /// A host of eight CPUs, 0 reserved, and one guest of three vCPUs, of which the last is bound to CPU 7.
    struct Watch {
        host: SimulatedHost,
        wish: Wish,
        constraints: Constraints,
        ledger: Ledger,
        wishes: Wishes,
    }

    impl Watch {
        fn new(config: &str) -> Self {
            let scenario = "{host: {cpus: 8}, ticks: 9, domains: [{name: web, vcpus: 3}]}";
            let scenario =
                Scenario::parse(scenario, "test", std::path::Path::new("")).expect("a valid scenario");
            let sources = Sources {
                flags: parse(config.as_bytes()).expect("a configuration"),
                ..Sources::default()
            };
            let mut watch = Self {
                host: SimulatedHost::new(scenario),
                wish: Wish::default(),
                constraints: sources.read().expect("good").constraints(),
                ledger: Ledger::unkept(),
                wishes: Wishes::default(),
            };
            assert_eq!(watch.asks(None, ""), "", "what is asked at first is no news");
            watch
        }

        fn sample(&mut self) -> Sample {
            let mut sample = self.host.sample().expect("a sample");
            for domain in &mut sample.domains {
                // Another one each time, as when it is read anew.
                domain.definition = Arc::new(Definition {
                    vcpupin: [(2, "7".parse().expect("a list"))].into(),
                    wish: self.wish.clone(),
                    ..Definition::default()
                });
            }
            sample
        }

        /// What is said when the metadata asks this.
        fn asks(&mut self, manage: Option<bool>, cpus: &str) -> String {
            self.wish = Wish {
                manage,
                cpus: (!cpus.is_empty()).then(|| cpus.parse().expect("a list")),
            };
            let sample = self.sample();
            self.ledger.observe(&sample, &Terms::default());
            let changes = self.wishes.observe(&sample, &self.constraints, &self.ledger);
            assert!(changes.iter().all(|change| &*change.domain == "web"));
            let said: Vec<String> = changes.into_iter().map(|change| change.what).collect();
            said.join("\n")
        }

        fn pin(&mut self, number: u32, cpus: &str) -> VcpuKey {
            let key = self.host.sample().expect("a sample").domains[0]
                .key()
                .vcpu(number);
            let cpus = cpus.parse().expect("a list");
            self.ledger.intend([(&key, &cpus)]).expect("recorded");
            self.host.pin(&key, &cpus).expect("pinned");
            self.ledger.confirm(&key, &cpus);
            key
        }
    }

    #[test]
    fn to_be_left_alone_is_said_once_and_so_is_its_end() {
        let mut watch = Watch::new("host: {reserved-cpus: 0}");
        let begins = "its metadata asks to leave it alone: its load counts, and its vCPUs are not moved";
        assert_eq!(watch.asks(Some(false), ""), begins);
        assert_eq!(watch.asks(Some(false), ""), "");
        let ends = "its metadata does not ask to leave it alone any more: its vCPUs may be moved";
        assert_eq!(watch.asks(None, ""), ends);
        assert_eq!(watch.asks(Some(true), ""), "", "nobody said otherwise");
        watch.pin(0, "1");
        watch.pin(1, "2");
        let pinned =
            format!("{begins} any more; where the scheduler has put them they stay until it ends: vCPUs 0-1");
        assert_eq!(watch.asks(Some(false), ""), pinned);
    }

    #[test]
    fn a_rule_has_the_last_word() {
        let mut managed = Watch::new("domains: [{match: 'web', manage: true}]");
        assert_eq!(
            managed.asks(Some(false), ""),
            "its metadata asks to leave it alone: its vCPUs may be moved all the same, because of rule 1 (web)"
        );
        let mut excluded = Watch::new("domains: [{match: 'w*', manage: false}]");
        assert_eq!(
            excluded.asks(Some(false), "3"),
            "its metadata asks to leave it alone: its vCPUs are not moved in any case, because of rule 1 (w*)\n\
             its metadata keeps it to CPUs 3: it is not moved in any case"
        );
    }

    #[test]
    fn other_cpus_are_said_with_what_is_left_for_whom() {
        let mut watch = Watch::new("host: {reserved-cpus: 0}");
        watch.pin(0, "2");
        assert_eq!(
            watch.asks(None, "0-3"),
            "its metadata keeps it to CPUs 0-3: vCPUs 0-1 may be pinned to 1-3; vCPU 2 may be pinned to no CPU, so not \
             moved; not there yet, until the policy moves it: vCPU 1"
        );
        assert_eq!(watch.asks(None, "0-3"), "");
        watch.pin(1, "3");
        watch.pin(2, "7");
        assert_eq!(
            watch.asks(None, ""),
            "its metadata does not keep it to certain CPUs any more: vCPUs 0-1 may be pinned to 1-7; vCPU 2 may be pinned \
             to 7"
        );
    }

    #[test]
    fn a_domain_that_could_not_be_read_is_remembered_and_one_that_is_gone_is_not() {
        let mut watch = Watch::new("");
        let mut sample = watch.sample();
        sample.unread = vec![sample.domains.remove(0).key()];
        watch.wishes.observe(&sample, &watch.constraints, &watch.ledger);
        assert_eq!(watch.wishes.0.len(), 1);
        assert_ne!(watch.asks(Some(false), ""), "");
        sample.unread.clear();
        watch.wishes.observe(&sample, &watch.constraints, &watch.ledger);
        assert!(watch.wishes.0.is_empty());
    }
}
