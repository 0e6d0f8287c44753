//! What a running domain's XML states, stored and running together.
//!
//! The stored definition says where the domain is bound. The metadata of the running domain begins as a copy of the stored
//! one and may then be changed without it, as may the stored one without the running domain: so the operator's wish is
//! looked for in both, and both bind. The scheduler's keepsake is in the running domain alone.
//!
//! What is malformed makes the domain stay where it is, which is said as a complaint: of a wish that is not understood, it
//! is taken that the domain is not to be moved. A keepsake that is not understood is an error to whoever wants to
//! replace it. A keepsake that stands in the stored definition too, with the same token, came into a run by copying (of
//! `virsh dumpxml` into `virsh define`), as one of a former run: it is not believed.

use virt::domain::Domain;

use super::definition::{DefinitionError, definition};
use super::error::LibvirtError;
use super::metadata::{self, MetadataError, ORIGINALS, PLACEMENT};
use super::omissions::GuestError;
use crate::host::{Definition, Keepsake, Wish};

/// What a domain's XML states.
#[derive(Debug, PartialEq)]
pub(super) struct Stated {
    pub(super) definition: Definition,
    pub(super) keepsake: Result<Option<Keepsake>, MetadataError>,
    /// What an operator should know, each to be said once.
    pub(super) complaints: Vec<String>,
}

/// Asks libvirt.
pub(super) fn read(domain: &Domain) -> Result<Stated, GuestError> {
    let persistent = domain.is_persistent().map_err(LibvirtError::from)?;
    let xml = |flags| domain.xml_desc(flags).map_err(LibvirtError::from);
    let stored = xml(virt_sys::VIR_DOMAIN_XML_INACTIVE)?;
    let running = xml(0)?;
    Ok(stated(&stored, &running, persistent)?)
}

fn stated(stored: &str, running: &str, persistent: bool) -> Result<Stated, DefinitionError> {
    let mut definition = definition(stored, persistent)?;
    let (stored, running) = (
        roxmltree::Document::parse(stored)?,
        roxmltree::Document::parse(running)?,
    );
    let (stored, running) = (stored.root_element(), running.root_element());
    let mut complaints = Vec::new();
    let mut wish = |node| {
        metadata::wish(node).unwrap_or_else(|error| {
            let complaint = format!(
                "its metadata in {PLACEMENT} is not understood, so it is not moved: {}",
                in_full(&error)
            );
            if !complaints.contains(&complaint) {
                complaints.push(complaint);
            }
            Wish {
                manage: Some(false),
                cpus: None,
            }
        })
    };
    definition.wish = metadata::both(wish(stored), wish(running));
    let mut keepsake = metadata::keepsake(running);
    if let Err(error) = &keepsake {
        complaints.push(format!(
            "its metadata in {ORIGINALS} is not understood, so it is left alone: {}",
            in_full(error)
        ));
    }
    // A transient domain has one XML for both.
    if persistent && let Ok(Some(copy)) = metadata::keepsake(stored) {
        if matches!(&keepsake, Ok(Some(carried)) if carried.token == copy.token) {
            keepsake = Ok(None);
        }
        complaints.push(format!(
            "its stored definition holds what a former run carried in {ORIGINALS}; that is not believed, and \
             can be removed with virsh metadata --config --remove"
        ));
    }
    Ok(Stated {
        definition,
        keepsake,
        complaints,
    })
}

/// An error and what caused it.
fn in_full(error: &dyn std::error::Error) -> String {
    let cause = error
        .source()
        .map_or(String::new(), |cause| format!(": {}", in_full(cause)));
    format!("{error}{cause}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(metadata: &str) -> String {
        format!(
            "<domain><metadata xmlns:p='{PLACEMENT}' xmlns:o='{ORIGINALS}'>{metadata}</metadata><vcpu>1</vcpu></domain>"
        )
    }

    #[track_caller]
    fn check(stored: &str, running: &str, persistent: bool, expect: &str) {
        let Stated {
            definition: Definition { wish, .. },
            keepsake,
            complaints,
        } = stated(&domain(stored), &domain(running), persistent).expect("XML");
        let manage = match wish.manage {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        let cpus = wish.cpus.map_or("-".to_owned(), |cpus| cpus.to_string());
        let token = match keepsake {
            Ok(Some(keepsake)) => keepsake.token.0.to_string(),
            Ok(None) => "-".to_owned(),
            Err(_) => "?".to_owned(),
        };
        let said = complaints.len();
        assert_eq!(
            format!("{manage} {cpus} {token} said {said}"),
            expect,
            "{stored} {running}"
        );
    }

    #[test]
    fn a_wish_binds_wherever_it_stands() {
        check("", "", true, "- - - said 0");
        check("<p:placement manage='no'/>", "", true, "no - - said 0");
        check("", "<p:placement manage='no'/>", true, "no - - said 0");
        check(
            "<p:placement cpus='0-3'/>",
            "<p:placement cpus='2-5'/>",
            true,
            "- 2-3 - said 0",
        );
    }

    #[test]
    fn a_malformed_wish_keeps_the_domain_in_place_and_is_said_once() {
        check("", "<p:placement manage='maybe'/>", true, "no - - said 1");
        let same = "<p:placement cpus='x'/>";
        check(same, same, true, "no - - said 1");
        check("<p:placement manage='yes'/>", same, true, "no - - said 1");
    }

    #[test]
    fn a_keepsake_is_that_of_this_run() {
        check("", "<o:originals token='a'/>", true, "- - a said 0");
        check("", "<o:originals/>", true, "- - ? said 1");
        check(
            "<o:originals token='a'/>",
            "<o:originals token='a'/>",
            true,
            "- - - said 1",
        );
        check(
            "<o:originals token='a'/>",
            "<o:originals token='b'/>",
            true,
            "- - b said 1",
        );
        check(
            "<o:originals token='a'/>",
            "<o:originals token='a'/>",
            false,
            "- - a said 0",
        );
    }
}
