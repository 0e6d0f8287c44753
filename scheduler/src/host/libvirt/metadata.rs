//! What a domain's metadata says to the scheduler, and what the scheduler leaves there.
//!
//! libvirt keeps in each domain's XML, under `<metadata>`, one element for every namespace that somebody writes to. Two
//! of them are ours:
//!
//! - [`PLACEMENT`], the operator's: `<placement manage='no' cpus='2-15'/>`, both attributes optional. It says whether
//!   the domain may be moved and where it is to stay.
//! - [`ORIGINALS`], the scheduler's own: a [`Keepsake`].
//!
//! In goes the XML of a domain or a keepsake, out comes the other form. What cannot be understood is an error and
//! nothing is guessed: an attribute or element that is not known may be one that matters. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use roxmltree::Node;
use thiserror::Error;
use vcpu_policy_api::cpuset::{CpuListError, OsCpuSet};

use super::xml::child;
use crate::host::{Keepsake, KeepsakeError, Kept, Token, Wish};

/// The namespace of what operators ask for.
pub(super) const PLACEMENT: &str = "urn:vcpu-scheduler:placement:1";
/// The namespace of what the scheduler keeps in a running domain.
pub(super) const ORIGINALS: &str = "urn:vcpu-scheduler:originals:1";
/// The prefix that stands for the scheduler's namespace in a domain's XML.
pub(super) const PREFIX: &str = "vs";

/// A token is this long at most.
const LONGEST_TOKEN: usize = 64;

/// Why metadata in a namespace of ours could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MetadataError {
    /// The namespace has no such element at this place.
    #[error("<{found}> is not known there; expected <{expected}>")]
    Element {
        /// What is there.
        found: String,
        /// What may be there.
        expected: &'static str,
    },
    /// The element has no such attribute.
    #[error("<{element}> has no attribute \"{attribute}\"; expected {expected}")]
    Attribute {
        /// The element.
        element: &'static str,
        /// The attribute that is there.
        attribute: String,
        /// Those that may be there.
        expected: &'static str,
    },
    /// An attribute says something that it cannot say, or is missing.
    #[error("{attribute}={value:?} in <{element}>; expected {expected}")]
    Value {
        /// The element.
        element: &'static str,
        /// The attribute.
        attribute: &'static str,
        /// What it says; empty if it is missing.
        value: String,
        /// What it may say.
        expected: &'static str,
    },
    /// A list of CPUs is none.
    #[error("{attribute} in <{element}>")]
    List {
        /// The element.
        element: &'static str,
        /// The attribute.
        attribute: &'static str,
        /// What is wrong with it.
        #[source]
        source: CpuListError,
    },
    /// An original affinity is none.
    #[error("original={value:?} in <vcpu>")]
    Original {
        /// What it says.
        value: String,
        /// What is wrong with it.
        #[source]
        source: KeepsakeError,
    },
    /// A vCPU is there twice.
    #[error("vCPU {number} is there twice")]
    Twice {
        /// The vCPU.
        number: u32,
    },
}

/// What the operator asks for in the metadata of `domain`, the root element of its XML.
pub(super) fn wish(domain: Node<'_, '_>) -> Result<Wish, MetadataError> {
    const ELEMENT: &str = "placement";
    let Some(placement) = ours(domain, PLACEMENT, ELEMENT)? else {
        return Ok(Wish::default());
    };
    attributes(placement, ELEMENT, &["manage", "cpus"], "manage or cpus")?;
    no_children(placement)?;
    let manage = match placement.attribute("manage") {
        Some(said) => Some(yes_or_no(ELEMENT, "manage", said)?),
        None => None,
    };
    let cpus = match placement.attribute("cpus") {
        Some(list) => {
            let cpus: Result<OsCpuSet, _> = list.parse();
            Some(cpus.map_err(|source| MetadataError::List {
                element: ELEMENT,
                attribute: "cpus",
                source,
            })?)
        }
        None => None,
    };
    Ok(Wish { manage, cpus })
}

/// What two places ask for together: either may forbid, and a domain stays where both let it.
pub(super) fn both(one: Wish, other: Wish) -> Wish {
    let manage = match (one.manage, other.manage) {
        (Some(one), Some(other)) => Some(one && other),
        (one, other) => one.or(other),
    };
    let cpus = match (one.cpus, other.cpus) {
        (Some(mut one), Some(other)) => {
            one.intersect(other.as_ref());
            Some(one)
        }
        (one, other) => one.or(other),
    };
    Wish { manage, cpus }
}

/// The keepsake in the metadata of `domain`, the root element of its XML.
pub(super) fn keepsake(domain: Node<'_, '_>) -> Result<Option<Keepsake>, MetadataError> {
    const ELEMENT: &str = "originals";
    const VCPU: &str = "vcpu";
    let Some(originals) = ours(domain, ORIGINALS, ELEMENT)? else {
        return Ok(None);
    };
    attributes(originals, ELEMENT, &["token"], "token")?;
    let token = originals.attribute("token").unwrap_or_default();
    if !is_token(token) {
        return Err(value(
            ELEMENT,
            "token",
            token,
            "letters, digits and hyphens, 64 at most",
        ));
    }
    let mut vcpus = BTreeMap::new();
    for vcpu in originals.children().filter(Node::is_element) {
        named(vcpu, VCPU)?;
        attributes(
            vcpu,
            VCPU,
            &["number", "original", "hands-off"],
            "number, original or hands-off",
        )?;
        no_children(vcpu)?;
        let number = vcpu.attribute("number").unwrap_or_default();
        let number = number
            .parse()
            .map_err(|_| value(VCPU, "number", number, "the number of a vCPU"))?;
        let original = vcpu.attribute("original").unwrap_or_default();
        let original = original.parse().map_err(|source| MetadataError::Original {
            value: original.to_owned(),
            source,
        })?;
        let hands_off = match vcpu.attribute("hands-off") {
            Some(said) => yes_or_no(VCPU, "hands-off", said)?,
            None => false,
        };
        if vcpus.insert(number, Kept { original, hands_off }).is_some() {
            return Err(MetadataError::Twice { number });
        }
    }
    Ok(Some(Keepsake {
        token: Token(token.into()),
        vcpus,
    }))
}

/// The element that a domain is to carry for a keepsake. libvirt gives it its namespace.
pub(super) fn element(keepsake: &Keepsake) -> Result<String, MetadataError> {
    let token = &keepsake.token.0;
    if !is_token(token) {
        return Err(value(
            "originals",
            "token",
            token,
            "letters, digits and hyphens, 64 at most",
        ));
    }
    let mut xml = format!("<originals token='{token}'>");
    for (number, Kept { original, hands_off }) in &keepsake.vcpus {
        let hands_off = if *hands_off { " hands-off='yes'" } else { "" };
        write!(xml, "<vcpu number='{number}' original='{original}'{hands_off}/>")
            .expect("a string takes any text");
    }
    xml.push_str("</originals>");
    Ok(xml)
}

/// A token needs no escape in XML, in a log, or in a file's name.
fn is_token(token: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=LONGEST_TOKEN).contains(&token.len()) && token.bytes().all(plain)
}

/// The element of a namespace of ours, of which libvirt lets there be one.
fn ours<'a, 'input>(
    domain: Node<'a, 'input>,
    namespace: &str,
    name: &'static str,
) -> Result<Option<Node<'a, 'input>>, MetadataError> {
    let Some(metadata) = child(domain, "metadata") else {
        return Ok(None);
    };
    let mut found = metadata
        .children()
        .filter(|node| node.is_element() && node.tag_name().namespace() == Some(namespace));
    let element = found.next();
    if let Some(element) = element {
        named(element, name)?;
    }
    Ok(element)
}

fn named(node: Node<'_, '_>, expected: &'static str) -> Result<(), MetadataError> {
    let found = node.tag_name().name();
    if found == expected {
        return Ok(());
    }
    Err(MetadataError::Element {
        found: found.to_owned(),
        expected,
    })
}

fn attributes(
    node: Node<'_, '_>,
    element: &'static str,
    known: &[&str],
    expected: &'static str,
) -> Result<(), MetadataError> {
    let strange = node
        .attributes()
        .find(|attribute| attribute.namespace().is_some() || !known.contains(&attribute.name()));
    strange.map_or(Ok(()), |attribute| {
        Err(MetadataError::Attribute {
            element,
            attribute: attribute.name().to_owned(),
            expected,
        })
    })
}

fn no_children(node: Node<'_, '_>) -> Result<(), MetadataError> {
    let within = node.children().find(Node::is_element);
    within.map_or(Ok(()), |within| {
        Err(MetadataError::Element {
            found: within.tag_name().name().to_owned(),
            expected: "nothing",
        })
    })
}

fn yes_or_no(element: &'static str, attribute: &'static str, said: &str) -> Result<bool, MetadataError> {
    match said {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(value(element, attribute, said, "yes or no")),
    }
}

fn value(
    element: &'static str,
    attribute: &'static str,
    said: &str,
    expected: &'static str,
) -> MetadataError {
    MetadataError::Value {
        element,
        attribute,
        value: said.to_owned(),
        expected,
    }
}

#[cfg(test)]
mod tests;
