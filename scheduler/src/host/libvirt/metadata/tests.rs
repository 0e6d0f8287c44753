use std::error::Error;

use proptest::prelude::*;
use vcpu_policy_api::ids::OsCpuId;

use super::*;
use crate::host::Original;

/// A domain that carries these elements, as libvirt writes them.
fn domain(metadata: &str) -> String {
    format!("<domain type='kvm' id='3'><name>a</name><metadata>{metadata}</metadata><vcpu>2</vcpu></domain>")
}

fn read<T>(xml: &str, read: impl FnOnce(Node<'_, '_>) -> Result<T, MetadataError>) -> Result<T, String> {
    let document = roxmltree::Document::parse(xml).expect("well-formed");
    read(document.root_element()).map_err(|error| match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    })
}

#[track_caller]
fn check_wish(attributes: &str, expect: Result<&str, &str>) {
    let xml = domain(&format!(
        "<other:thing xmlns:other='urn:other' manage='never'/><vs:placement xmlns:vs='{PLACEMENT}' {attributes}/>"
    ));
    let text = read(&xml, wish).map(|Wish { manage, cpus }| {
        let cpus = cpus.map_or("-".to_owned(), |cpus| cpus.to_string());
        format!("manage {manage:?} cpus {cpus}")
    });
    assert_eq!(text.as_deref().map_err(String::as_str), expect, "{attributes}");
}

#[test]
fn a_wish_is_read() {
    check_wish("", Ok("manage None cpus -"));
    check_wish("manage='no'", Ok("manage Some(false) cpus -"));
    check_wish("manage='yes' cpus='2-15'", Ok("manage Some(true) cpus 2-15"));
    check_wish("cpus='0-7,^3'", Ok("manage None cpus 0-2,4-7"));
    assert_eq!(read(&domain(""), wish), Ok(Wish::default()));
    assert_eq!(read("<domain/>", wish), Ok(Wish::default()));
}

#[test]
fn of_a_wish_nothing_is_guessed() {
    check_wish(
        "manage='false'",
        Err("manage=\"false\" in <placement>; expected yes or no"),
    );
    check_wish(
        "managed='no'",
        Err("<placement> has no attribute \"managed\"; expected manage or cpus"),
    );
    check_wish(
        "cpus=''",
        Err("cpus in <placement>: the CPU list is empty; expected numbers and ranges such as \"0-3,8\""),
    );
    let list = read(
        &domain(&format!("<vs:placement xmlns:vs='{PLACEMENT}' cpus='all'/>")),
        wish,
    );
    assert!(list.is_err_and(|error| error.starts_with("cpus in <placement>: ")));
    let other = read(&domain(&format!("<vs:place xmlns:vs='{PLACEMENT}'/>")), wish);
    assert_eq!(
        other,
        Err("<place> is not known there; expected <placement>".to_owned())
    );
}

#[test]
fn two_wishes_bind_together() {
    let wish = |manage, cpus: Option<&str>| Wish {
        manage,
        cpus: cpus.map(|list| list.parse().expect("a cpulist")),
    };
    let (yes, no) = (Some(true), Some(false));
    for (one, other, together) in [
        (wish(None, None), wish(None, None), wish(None, None)),
        (wish(yes, None), wish(None, Some("1")), wish(yes, Some("1"))),
        (
            wish(yes, Some("0-3")),
            wish(no, Some("2-5")),
            wish(no, Some("2-3")),
        ),
        (wish(yes, None), wish(yes, None), wish(yes, None)),
    ] {
        assert_eq!(both(one.clone(), other.clone()), together);
        assert_eq!(both(other, one), together);
    }
    let nowhere = both(wish(None, Some("0")), wish(None, Some("1")));
    assert!(nowhere.cpus.is_some_and(|cpus| cpus.is_empty()));
}

#[track_caller]
fn check_keepsake(attributes: &str, vcpus: &str, expect: &str) {
    let xml = domain(&format!(
        "<vs:originals xmlns:vs='{ORIGINALS}' {attributes}>{vcpus}</vs:originals>"
    ));
    let found = match read(&xml, keepsake) {
        Ok(found) => element(&found.expect("one is there")).expect("it was read"),
        Err(error) => error,
    };
    assert_eq!(found, expect, "{attributes} {vcpus}");
}

#[test]
fn a_keepsake_is_read() {
    check_keepsake("token='a-1'", "", "<originals token='a-1'></originals>");
    check_keepsake(
        "token='a'",
        "<vs:vcpu original='inherit' number='7'/>\n<vs:vcpu number='0' original='3,0-2' hands-off='yes'/>",
        "<originals token='a'><vcpu number='0' original='0-3' hands-off='yes'/><vcpu number='7' original='inherit'/></originals>",
    );
    check_keepsake(
        "token='a'",
        "<vcpu number='0' original='5' hands-off='no'/>",
        "<originals token='a'><vcpu number='0' original='5'/></originals>",
    );
    assert_eq!(read(&domain(""), keepsake), Ok(None));
}

#[test]
fn of_a_keepsake_nothing_is_guessed() {
    let token = "expected letters, digits and hyphens, 64 at most";
    check_keepsake("", "", &format!("token=\"\" in <originals>; {token}"));
    check_keepsake(
        "token='a b'",
        "",
        &format!("token=\"a b\" in <originals>; {token}"),
    );
    check_keepsake(
        "token='a' more='1'",
        "",
        "<originals> has no attribute \"more\"; expected token",
    );
    check_keepsake(
        "token='a'",
        "<pcpu/>",
        "<pcpu> is not known there; expected <vcpu>",
    );
    check_keepsake(
        "token='a'",
        "<vcpu original='0'/>",
        "number=\"\" in <vcpu>; expected the number of a vCPU",
    );
    check_keepsake(
        "token='a'",
        "<vcpu number='0' original='0' hands-off='1'/>",
        "hands-off=\"1\" in <vcpu>; expected yes or no",
    );
    check_keepsake(
        "token='a'",
        "<vcpu number='0' original='0'/><vcpu number='0' original='1'/>",
        "vCPU 0 is there twice",
    );
    check_keepsake(
        "token='a'",
        "<vcpu number='0' original='0'><x/></vcpu>",
        "<x> is not known there; expected <nothing>",
    );
    let list = read(
        &domain(&format!(
            "<vs:originals xmlns:vs='{ORIGINALS}' token='a'><vcpu number='0'/></vs:originals>"
        )),
        keepsake,
    );
    assert!(list.is_err_and(|error| error.starts_with("original=\"\" in <vcpu>: ")));
}

#[test]
fn a_token_that_would_not_come_back_is_not_written() {
    for token in ["", "a'", "a&b", "ä", &"x".repeat(65)] {
        let keepsake = Keepsake {
            token: Token(token.into()),
            vcpus: BTreeMap::new(),
        };
        assert!(element(&keepsake).is_err(), "{token:?}");
    }
}

fn original() -> impl Strategy<Value = Original> {
    let cpus = prop::collection::btree_set(0u32..300, 1..20);
    prop_oneof![
        Just(Original::Inherit),
        cpus.prop_map(|cpus| Original::Cpus(cpus.into_iter().map(OsCpuId).collect())),
    ]
}

fn kept() -> impl Strategy<Value = Kept> {
    (original(), any::<bool>()).prop_map(|(original, hands_off)| Kept { original, hands_off })
}

proptest! {
    #[test]
    fn a_keepsake_reads_as_it_is_written(
        token in "[A-Za-z0-9-]{1,64}",
        vcpus in prop::collection::btree_map(any::<u32>(), kept(), 0..20),
    ) {
        let kept = Keepsake { token: Token(token.as_str().into()), vcpus };
        let written = element(&kept).expect("a plain token");
        // libvirt gives the outermost element its namespace, and no other.
        let named = written
            .replacen("<originals", &format!("<vs:originals xmlns:vs='{ORIGINALS}'"), 1)
            .replace("</originals", "</vs:originals");
        prop_assert_eq!(read(&domain(&named), keepsake), Ok(Some(kept)));
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}", attribute in "[a-z]{1,9}") {
        let text = text.replace(['<', '&', '\'', '>'], "");
        for (namespace, name) in [(PLACEMENT, "placement"), (ORIGINALS, "originals")] {
            let xml = domain(&format!("<vs:{name} xmlns:vs='{namespace}' {attribute}='{text}'><vcpu number='{text}' original='{text}'/></vs:{name}>"));
            let _ = read(&xml, wish);
            let _ = read(&xml, keepsake);
        }
    }
}
