//! The binary; see the library.

fn main() -> std::process::ExitCode {
    vcpu_scheduler::cli::main()
}
