//! The program that a plugin runs in. It uses nothing of the scheduler's library, and so links no libvirt.

fn main() -> std::process::ExitCode {
    vcpu_policy_host::main(vcpu_policy_host::offer::load)
}
