//! Where the vCPUs of one domain may be pinned, and because of whom: what `check DOMAIN` shows.

use std::io::Write;

use anyhow::anyhow;
use vcpu_policy_api::options::{closest, did_you_mean};

use super::Failure;
use crate::engine::constraints::Constraints;
use crate::engine::constraints::explain::{HostFacts, explain};
use crate::host::{DomainSample, Host, Sample};

/// Reads the host and says what holds for a domain, which is given by its name or its UUID.
pub(super) fn check_domain(
    host: &mut dyn Host,
    constraints: &Constraints,
    domain: &str,
    output: &mut dyn Write,
) -> Result<(), Failure> {
    let sample = host.sample().map_err(Failure::world)?;
    let facts = HostFacts {
        topology: &sample.topology,
        isolated: &sample.isolated,
    };
    let text = explain(constraints, facts, find(&sample, domain)?);
    output.write_all(text.as_bytes())?;
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
    use crate::host::simulated::{Scenario, SimulatedHost};

    fn check(scenario: &str, domain: &str) -> Result<String, Failure> {
        let scenario = Scenario::parse(scenario, "test", Path::new("")).expect("a valid scenario");
        let mut output = Vec::new();
        check_domain(
            &mut SimulatedHost::new(scenario),
            &Constraints::default(),
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
    fn a_host_that_cannot_be_read_is_the_worlds() {
        let scenario = "{host: {cpus: 4}, domains: [{name: a}], events: [{at: 1, fail: {call: disconnect}}]}";
        let scenario = Scenario::parse(scenario, "test", Path::new("")).expect("a valid scenario");
        let mut host = SimulatedHost::new(scenario);
        host.sample().expect("the baseline");
        let failure = check_domain(&mut host, &Constraints::default(), "a", &mut Vec::new());
        assert!(matches!(failure, Err(Failure::World(_))), "{failure:?}");
    }
}
