//! Where the vCPUs of one domain may be pinned, and because of whom, and which of them are left alone: what `check DOMAIN`
//! shows. Reads the host and the journal, and writes nothing.

use std::io::Write;

use anyhow::anyhow;
use vcpu_policy_api::options::{closest, did_you_mean};

use super::Failure;
use crate::engine::constraints::explain::{HostFacts, explain};
use crate::engine::daemon::release_command;
use crate::engine::ledger::{Hold, Ledger};
use crate::engine::terms::Terms;
use crate::host::{DomainSample, Host, Sample};

/// Reads the host and says what holds for a domain, which is given by its name or its UUID. The ledger knows what was
/// recorded so far.
pub(super) fn check_domain(
    host: &mut dyn Host,
    ledger: &mut Ledger,
    terms: &Terms,
    domain: &str,
    output: &mut dyn Write,
) -> Result<(), Failure> {
    let sample = host.sample().map_err(Failure::world)?;
    ledger.observe(&sample, terms);
    let found = find(&sample, domain)?;
    let facts = HostFacts {
        topology: &sample.topology,
        isolated: &sample.isolated,
    };
    let text = explain(&terms.constraints, facts, found);
    output.write_all(text.as_bytes())?;
    write_left_alone(ledger, found, output)?;
    Ok(())
}

fn write_left_alone(ledger: &Ledger, domain: &DomainSample, output: &mut dyn Write) -> std::io::Result<()> {
    let mut is_first = true;
    for vcpu in &domain.vcpus {
        let number = vcpu.number;
        let key = domain.key().vcpu(number);
        let why = match ledger.custody(&key).and_then(|custody| custody.hold.as_ref()) {
            None => continue,
            Some(Hold::Manual(_)) => "by another hand",
            Some(Hold::Initial(_)) => "when it was first seen",
        };
        if std::mem::take(&mut is_first) {
            writeln!(output)?;
        }
        writeln!(
            output,
            "vCPU {number} is left alone: it was pinned {why}; `{}` lets it be moved",
            release_command(&domain.name, number)
        )?;
    }
    Ok(())
}

/// The domain of that name, or else of that UUID: a name may look like one.
fn find<'a>(sample: &'a Sample, wanted: &str) -> Result<&'a DomainSample, Failure> {
    let named = sample.domains.iter().find(|domain| *domain.name == *wanted);
    let by_uuid = || {
        let uuid = uuid::Uuid::try_parse(wanted).ok()?.into_bytes();
        sample.domains.iter().find(|domain| domain.uuid.0 == uuid)
    };
    named.or_else(by_uuid).ok_or_else(|| {
        let running: Vec<&str> = sample.domains.iter().map(|domain| &*domain.name).collect();
        Failure::Caller(match running.len() {
            0 => anyhow!("no domain \"{wanted}\" is running; the host runs none"),
            _ => anyhow!(
                "no domain \"{wanted}\" is running{}",
                did_you_mean(closest(wanted, &running).copied())
            ),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::engine::terms::InitialPins;
    use crate::host::simulated::{Scenario, SimulatedHost};

    fn check(scenario: &str, domain: &str) -> Result<String, Failure> {
        check_under(&Terms::default(), scenario, domain)
    }

    fn check_under(terms: &Terms, scenario: &str, domain: &str) -> Result<String, Failure> {
        let scenario = Scenario::parse(scenario, "test", Path::new("")).expect("a valid scenario");
        let mut output = Vec::new();
        check_domain(
            &mut SimulatedHost::new(scenario),
            &mut Ledger::unkept(),
            terms,
            domain,
            &mut output,
        )?;
        Ok(String::from_utf8(output).expect("text"))
    }

    const SCENARIO: &str = "{host: {cpus: 4}, domains: [{name: web, count: 2, cpuset: 1-2}]}";

    #[test]
    fn a_domain_is_found_by_name_and_by_uuid() {
        let by_name = check(SCENARIO, "web-1").expect("there");
        assert!(by_name.contains("only 1-2: the definition's cpuset"), "{by_name}");
        let uuid = uuid::Uuid::from_bytes(vcpu_policy_api::document::uuid_from_name("web-1"));
        let by_uuid = check(SCENARIO, &uuid.to_string().to_uppercase()).expect("there");
        assert_eq!(by_uuid, by_name);
    }

    #[test]
    fn a_domain_that_is_not_there_is_the_callers_mistake() {
        let said = |scenario: &str, domain: &str| match check(scenario, domain) {
            Err(Failure::Caller(error)) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            said(SCENARIO, "webb-1"),
            "no domain \"webb-1\" is running (did you mean \"web-1\"?)"
        );
        assert_eq!(said(SCENARIO, "database"), "no domain \"database\" is running");
        assert_eq!(
            said("{host: {cpus: 4}, domains: []}", "web"),
            "no domain \"web\" is running; the host runs none"
        );
    }

    #[test]
    fn what_is_left_alone_is_said_with_the_way_out() {
        let terms = Terms {
            initial_pins: InitialPins::Respect,
            ..Terms::default()
        };
        let scenario = "{host: {cpus: 4}, domains: [{name: my web, vcpus: 2, pin: 1-2}]}";
        let said = check_under(&terms, scenario, "my web").expect("there");
        let line = "vCPU 1 is left alone: it was pinned when it was first seen; \
                    `vcpu-scheduler release 'my web/1'` lets it be moved\n";
        assert!(said.ends_with(line), "{said}");
        let taken = check(scenario, "my web").expect("there");
        assert!(!taken.contains("left alone"), "{taken}");
    }

    #[test]
    fn a_host_that_cannot_be_read_is_the_worlds() {
        let scenario = "{host: {cpus: 4}, domains: [{name: a}], events: [{at: 1, fail: {call: disconnect}}]}";
        let scenario = Scenario::parse(scenario, "test", Path::new("")).expect("a valid scenario");
        let mut host = SimulatedHost::new(scenario);
        host.sample().expect("the baseline");
        let failure = check_domain(
            &mut host,
            &mut Ledger::unkept(),
            &Terms::default(),
            "a",
            &mut Vec::new(),
        );
        assert!(matches!(failure, Err(Failure::World(_))), "{failure:?}");
    }
}
