//! What can be used as it is, and is hardly what was meant.
//!
//! In goes a configuration, and the host where that is known; out comes, for each part that cannot do what it says, a line for
//! the operator with the path of its key. Nothing is guessed: a rule is only said never to hold where the patterns prove it.

use vcpu_policy_api::cpuset::OsCpuSet;

use super::{Effective, IsolatedCpus};
use crate::engine::constraints::DomainMatch;
use crate::host::HostIdentity;
use crate::host::pattern::Reach;

impl Effective {
    /// What of it cannot do what it says, here: on this host, or without one on any.
    pub fn doubts(&self, host: Option<&HostIdentity>) -> Vec<String> {
        let mut doubts = self.rules_that_never_hold();
        if let Some(host) = host {
            doubts.extend(self.reserved_and_absent(host));
            doubts.extend(self.without_a_cpu(host));
        }
        doubts
    }

    /// A rule is compared with patterns alone: one for a single name hides at most its own repetition, which is refused.
    fn rules_that_never_hold(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        let mut patterns: Vec<(usize, Reach<'_>)> = Vec::new();
        for (at, rule) in self.domains.0.iter().enumerate() {
            let reach = match rule.matches.matches() {
                DomainMatch::Name(pattern) => Some(Reach::of(pattern)),
                DomainMatch::Uuid(_) => None,
            };
            let covers = |before: &Reach<'_>| match &reach {
                Some(reach) => before.covers(reach),
                None => before.is_every_name(),
            };
            if let Some((first, _)) = patterns.iter().find(|(_, before)| covers(before)) {
                let (text, by) = (&rule.matches, &self.domains.0[*first].matches);
                doubts.push(format!(
                    "domains[{at}]: it never holds: every guest that \"{text}\" matches is matched by \"{by}\" in \
                     domains[{first}], which comes first"
                ));
            }
            patterns.extend(
                reach
                    .filter(|reach| !reach.is_one_name())
                    .map(|reach| (at, reach)),
            );
        }
        doubts
    }

    fn reserved_and_absent(&self, host: &HostIdentity) -> Option<String> {
        let mut absent = self.reserved_cpus.get().clone();
        absent.subtract(host.cpus.as_ref());
        let cpus = &host.cpus;
        (!absent.is_empty()).then(|| {
            format!("host.reserved-cpus: the host has no CPU {absent}, so nothing is reserved by that; its CPUs are {cpus}")
        })
    }

    /// What leaves guests no CPU that they may be placed on, offline ones counted: those come back.
    fn without_a_cpu(&self, host: &HostIdentity) -> Vec<String> {
        let reserved = self.reserved_cpus.get();
        let avoided = match self.isolated_cpus {
            IsolatedCpus::Avoid => host.isolated.clone(),
            IsolatedCpus::Use => OsCpuSet::new(),
        };
        let mut managed = host.cpus.clone();
        managed.subtract(reserved.as_ref());
        managed.subtract(avoided.as_ref());
        let mut left = format!("the host's CPUs are {}", host.cpus);
        for (cpus, why) in [(reserved, "reserved"), (&avoided, "isolated by the kernel")] {
            if !cpus.is_empty() {
                left = format!("{left}, {cpus} {why}");
            }
        }
        if managed.is_empty() {
            return vec![format!(
                "host.isolated-cpus: no CPU is left that guests may be placed on, so nothing is ever moved: {left}"
            )];
        }
        let rules = self.domains.0.iter().enumerate();
        let empty = rules.filter_map(|(at, rule)| {
            let cpus = rule.wish.cpus.as_ref()?;
            (!cpus.iter().any(|cpu| managed.contains(cpu))).then(|| {
                format!(
                    "domains[{at}].cpus: none of {cpus} is a CPU that guests may be placed on, so guests that \"{}\" \
                     matches are never moved: {left}",
                    rule.matches
                )
            })
        });
        empty.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, cross_check, parse};

    /// What is said of this configuration, on a host of CPUs 0 to 3 of which the kernel isolates 3.
    #[track_caller]
    fn check(config: &str, expect: &[&str]) {
        let sources = Sources {
            flags: parse(config.as_bytes()).expect("a configuration"),
            ..Sources::default()
        };
        let effective = sources.read().expect("good");
        cross_check::check(&effective).expect("it can be used");
        let host = HostIdentity {
            name: "test".to_owned(),
            is_local: true,
            cpus: "0-3".parse().expect("a list"),
            isolated: "3".parse().expect("a list"),
        };
        assert_eq!(effective.doubts(Some(&host)), expect, "{config}");
    }

    #[test]
    fn what_does_what_it_says_is_not_doubted() {
        check("", &[]);
        check(
            "host: {reserved-cpus: '0,2'}\ndomains: [{match: 'a*', cpus: '0-1'}]",
            &[],
        );
        check(
            "host: {isolated-cpus: use}\ndomains: [{match: 'a*', cpus: '3,7'}]",
            &[],
        );
        check(
            "domains: [{match: 'a', manage: false}, {match: '*', cpus: 1}]",
            &[],
        );
    }

    #[test]
    fn reserved_cpus_that_the_host_lacks_are_named() {
        check(
            "host: {reserved-cpus: '0,3,32-33'}",
            &[
                "host.reserved-cpus: the host has no CPU 32-33, so nothing is reserved by that; its CPUs are 0-3",
            ],
        );
    }

    #[test]
    fn a_rule_that_leaves_no_cpu_is_named_with_what_there_is() {
        check(
            "host: {reserved-cpus: 0}\ndomains: [{match: 'a*', cpus: '1'}, {match: 'b*', cpus: '0,3,8'}]",
            &[
                "domains[1].cpus: none of 0,3,8 is a CPU that guests may be placed on, so guests that \"b*\" matches are \
               never moved: the host's CPUs are 0-3, 0 reserved, 3 isolated by the kernel",
            ],
        );
        check(
            "domains: [{match: 'a*', cpus: '8-9'}]\nhost: {isolated-cpus: use}",
            &[
                "domains[0].cpus: none of 8-9 is a CPU that guests may be placed on, so guests that \"a*\" matches are \
               never moved: the host's CPUs are 0-3",
            ],
        );
    }

    #[test]
    fn a_host_without_a_cpu_to_use_is_said_once() {
        check(
            "host: {reserved-cpus: '0-2'}\ndomains: [{match: 'a*', cpus: '3'}]",
            &[
                "host.isolated-cpus: no CPU is left that guests may be placed on, so nothing is ever moved: \
               the host's CPUs are 0-3, 0-2 reserved, 3 isolated by the kernel",
            ],
        );
    }

    #[test]
    fn a_rule_that_never_holds_is_named_with_the_one_before_it() {
        check(
            "domains:\n- {match: 'web-*', cpus: 1}\n- {match: 'web-1', manage: false}\n- {match: '*', manage: true}\n\
             - {match: 6f1c0f4e-2c9b-4e0e-9d57-0d2f6a1b3c4d, manage: false}\n",
            &[
                "domains[1]: it never holds: every guest that \"web-1\" matches is matched by \"web-*\" in domains[0], \
                 which comes first",
                "domains[3]: it never holds: every guest that \"6f1c0f4e-2c9b-4e0e-9d57-0d2f6a1b3c4d\" matches is matched \
                 by \"*\" in domains[2], which comes first",
            ],
        );
    }
}
