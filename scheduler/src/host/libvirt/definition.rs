//! From a domain's stored definition to what in it binds the domain's placement.
//!
//! In goes the XML that libvirt would start the domain from next (`VIR_DOMAIN_XML_INACTIVE`). A transient domain has
//! no stored definition: its XML is that of the running one, in which a live pin cannot be told from the operator's
//! `<vcpupin>`, so of such a domain `<vcpupin>` is not read.

use std::collections::BTreeMap;

use roxmltree::Node;
use thiserror::Error;
use vcpu_policy_api::cpuset::{CpuListError, OsCpuSet};

use super::xml::{child, children};
use crate::host::{Definition, Wish};

/// Why a definition could not be understood. Nothing is guessed then: what it says may bind the domain's placement.
#[derive(Debug, Error)]
pub enum DefinitionError {
    /// It is no XML.
    #[error("the domain's definition is not well-formed XML")]
    Xml(#[from] roxmltree::Error),
    /// A list of CPUs or nodes is none.
    #[error("{attribute} of <{element}> in the domain's definition")]
    List {
        /// The element.
        element: &'static str,
        /// The attribute.
        attribute: &'static str,
        /// What is wrong with it.
        #[source]
        source: CpuListError,
    },
    /// A number is none.
    #[error("\"{value}\" in <{element}> of the domain's definition is not a number")]
    Number {
        /// The element.
        element: &'static str,
        /// What it says.
        value: String,
    },
}

/// What the XML of a domain binds.
pub(super) fn definition(xml: &str, persistent: bool) -> Result<Definition, DefinitionError> {
    let document = roxmltree::Document::parse(xml)?;
    let domain = document.root_element();
    let cpuset = match child(domain, "vcpu") {
        Some(vcpu) => list(vcpu, "vcpu", "cpuset")?,
        None => None,
    };
    let mut vcpupin = BTreeMap::new();
    let mut weight = None;
    if let Some(tune) = child(domain, "cputune") {
        for pin in children(tune, "vcpupin").filter(|_| persistent) {
            let vcpu = number(pin.attribute("vcpu").unwrap_or_default(), "vcpupin")?;
            if let Some(cpus) = list(pin, "vcpupin", "cpuset")? {
                vcpupin.insert(vcpu, cpus);
            }
        }
        if let Some(shares) = child(tune, "shares").and_then(|shares| shares.text()) {
            weight = Some(f64::from(number(shares, "shares")?));
        }
    }
    let memory_node = match child(domain, "numatune") {
        Some(tune) => memory_node(tune)?,
        None => None,
    };
    Ok(Definition {
        cpuset,
        vcpupin,
        memory_node,
        weight,
        wish: Wish::default(),
    })
}

/// The one host node that all of a domain's memory has to come from. `<memnode>`, of one guest node, goes before
/// `<memory>`, of all others.
fn memory_node(tune: Node<'_, '_>) -> Result<Option<u32>, DefinitionError> {
    let mut nodes = OsCpuSet::new();
    for name in ["memory", "memnode"] {
        for memory in children(tune, name) {
            // A preference may be overruled by the kernel; without a mode libvirt is strict.
            if memory.attribute("mode") == Some("preferred") {
                return Ok(None);
            }
            if let Some(stated) = list(memory, "numatune", "nodeset")? {
                nodes.unite(stated.as_ref());
            }
        }
    }
    Ok(nodes.as_ref().single().map(|node| node.0))
}

/// A list of CPUs, or of nodes, which libvirt writes in the same way.
fn list(
    node: Node<'_, '_>,
    element: &'static str,
    attribute: &'static str,
) -> Result<Option<OsCpuSet>, DefinitionError> {
    let Some(list) = node.attribute(attribute) else {
        return Ok(None);
    };
    list.parse().map(Some).map_err(|source| DefinitionError::List {
        element,
        attribute,
        source,
    })
}

fn number(value: &str, element: &'static str) -> Result<u32, DefinitionError> {
    value.trim().parse().map_err(|_| DefinitionError::Number {
        element,
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(inner: &str, persistent: bool, expect: &str) {
        let xml = format!("<domain type='kvm'><name>a</name>{inner}</domain>");
        let text = match definition(&xml, persistent) {
            Ok(read) => {
                let pins = read.vcpupin.iter().map(|(vcpu, cpus)| format!(" {vcpu}={cpus}"));
                format!(
                    "cpuset {} pins{} node {} weight {}",
                    read.cpuset.map_or("-".to_owned(), |cpus| cpus.to_string()),
                    pins.collect::<String>(),
                    read.memory_node.map_or("-".to_owned(), |node| node.to_string()),
                    read.weight.map_or("-".to_owned(), |weight| weight.to_string()),
                )
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(text, expect, "{inner}");
    }

    #[test]
    fn what_binds_is_read() {
        check(
            "<vcpu placement='static'>2</vcpu>",
            true,
            "cpuset - pins node - weight -",
        );
        check(
            "<vcpu cpuset='0-3,^2'>2</vcpu>",
            true,
            "cpuset 0-1,3 pins node - weight -",
        );
        check(
            "<vcpu>2</vcpu><cputune><shares>2048</shares><vcpupin vcpu='1' cpuset='4-5'/><vcpupin vcpu='0' cpuset='3'/></cputune>",
            true,
            "cpuset - pins 0=3 1=4-5 node - weight 2048",
        );
    }

    #[test]
    fn a_transient_domains_pins_may_be_live_ones() {
        check(
            "<vcpu cpuset='0-7'>2</vcpu><cputune><vcpupin vcpu='1' cpuset='4'/></cputune>",
            false,
            "cpuset 0-7 pins node - weight -",
        );
    }

    #[test]
    fn a_memory_node_is_one_that_all_memory_is_bound_to() {
        for (tune, node) in [
            ("<memory mode='strict' nodeset='1'/>", "1"),
            ("<memory nodeset='1'/>", "1"),
            ("<memory mode='interleave' nodeset='0-1'/>", "-"),
            ("<memory mode='preferred' nodeset='1'/>", "-"),
            ("<memory mode='strict' placement='auto'/>", "-"),
            (
                "<memnode cellid='0' mode='strict' nodeset='1'/><memnode cellid='1' mode='strict' nodeset='1'/>",
                "1",
            ),
            (
                "<memnode cellid='0' mode='strict' nodeset='0'/><memnode cellid='1' mode='strict' nodeset='1'/>",
                "-",
            ),
            (
                "<memory mode='strict' nodeset='0'/><memnode cellid='1' mode='strict' nodeset='1'/>",
                "-",
            ),
        ] {
            check(
                &format!("<numatune>{tune}</numatune>"),
                true,
                &format!("cpuset - pins node {node} weight -"),
            );
        }
    }

    #[test]
    fn nothing_is_guessed() {
        check(
            "<vcpu cpuset='all'>1</vcpu>",
            true,
            "cpuset of <vcpu> in the domain's definition",
        );
        check(
            "<cputune><vcpupin cpuset='1'/></cputune>",
            true,
            "\"\" in <vcpupin> of the domain's definition is not a number",
        );
        check(
            "<cputune><shares>lots</shares></cputune>",
            true,
            "\"lots\" in <shares> of the domain's definition is not a number",
        );
    }
}
