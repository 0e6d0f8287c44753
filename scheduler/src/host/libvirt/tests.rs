//! The live host against libvirt's test driver, which runs inside the client library.

use super::*;

#[test]
fn default() {
    let mut host = LibvirtHost::open(Some("test:///default"), Access::ReadWrite).unwrap();
    println!("{:#?}", host.sample());
    println!("{:#?}", host.sample());
    let s = host.sample().unwrap();
    let k = VcpuKey {
        domain: s.domains[0].uuid,
        instance: s.domains[0].instance,
        number: 1,
    };
    for (n, c) in [(1, "3"), (1, "40"), (7, "3"), (1, "0-15")] {
        println!(
            "{n} {c} {:?}",
            host.pin(&VcpuKey { number: n, ..k }, &c.parse().unwrap())
        );
        println!("{:#?}", host.sample().unwrap().domains[0].vcpus[1]);
    }
}
