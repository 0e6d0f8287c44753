//! `include/vcpu_policy.h` says what the Rust types say, and C and C++ compilers take it without a word.
//!
//! The header is made here, of the same sources that the library is compiled from, and compared with the one that is
//! committed. After a change to one of them, `make header` brings it up to date: it runs this test with
//! `UPDATE_HEADER` set.

#![cfg(feature = "yaml")]
#![expect(
    clippy::disallowed_methods,
    reason = "the test reads and writes files and runs compilers"
)]

use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

use vcpu_policy_api::abi::types::{Host, Options, PlanTable, PolicyLibrary, PolicyTable, Text};
use vcpu_policy_api::snapshot::rows::{
    CoreRow, CpuRow, DomainRow, Header, LlcRow, NodeRow, TableRef, TextRef, VcpuRow,
};

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(package().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of the sources' comments, as C knows them.
const C_NAMES: &[(&str, &str)] = &[
    ("[`MAGIC`]", "\"VCPUSNAP\" in ASCII"),
    ("[`ALIGNMENT`]", "8"),
    ("[`flags::FRESH`]", "VCPU_SNAPSHOT_FRESH"),
    ("[`flags::MANAGED`]", "VCPU_MANAGED"),
    ("[`flags::MOVABLE`]", "VCPU_MOVABLE"),
    ("[`NO_LIMIT`]", "VCPU_NO_LIMIT"),
    ("[`MAX_SLOTS`]", "VCPU_MAX_SLOTS"),
    ("[`Header::budget`]", "The budget"),
    ("[`CpuRow`]s", "Rows of struct vcpu_cpu_row"),
    ("[`CoreRow`]s", "Rows of struct vcpu_core_row"),
    ("[`LlcRow`]s", "Rows of struct vcpu_llc_row"),
    ("[`NodeRow`]s", "Rows of struct vcpu_node_row"),
    ("[`DomainRow`]s", "Rows of struct vcpu_domain_row"),
    ("[`VcpuRow`]s", "Rows of struct vcpu_vcpu_row"),
];

fn header() -> String {
    let config =
        cbindgen::Config::from_file(package().join("include/source/cbindgen.toml")).expect("a configuration");
    let mut declarations = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_src(package().join("src/snapshot/rows.rs"))
        .with_src(package().join("src/abi/types.rs"))
        .generate()
        .expect("sources that cbindgen understands")
        .write(&mut declarations);
    let mut declarations = String::from_utf8(declarations).expect("text");
    for (rust, c) in C_NAMES {
        declarations = declarations.replace(rust, c);
    }
    assert!(
        !declarations.contains("[`"),
        "a comment has a link that C_NAMES does not know"
    );
    let begin = "#ifdef __cplusplus\nextern \"C\" {\n#endif  // __cplusplus\n";
    let end = "#ifdef __cplusplus\n}  // extern \"C\"\n#endif  // __cplusplus\n";
    declarations = declarations.replacen(begin, "", 1).replacen(end, "", 1);
    format!(
        "{}\n\n{}\n\n{}\n{}",
        read("include/source/begin.h").trim_end(),
        declarations.trim(),
        assertions().trim_end(),
        read("include/source/end.h")
    )
}

/// What the C compiler has to find as well.
fn assertions() -> String {
    let mut text = String::from("// What both sides have to agree on to the byte.\n");
    macro_rules! layout {
        ($type:ty as $name:literal: $($field:ident),+) => {
            text += &format!("VCPU_ASSERT(sizeof(struct {}) == {});\n", $name, size_of::<$type>());
            $(text += &format!(
                "VCPU_ASSERT(offsetof(struct {}, {}) == {});\n",
                $name, stringify!($field), offset_of!($type, $field)
            );)+
        };
    }
    layout!(TableRef as "vcpu_table": offset, count, stride);
    layout!(TextRef as "vcpu_text_ref": offset, length);
    layout!(Header as "vcpu_snapshot": magic, size, flags, total_size, tick, now_ns, interval_ns, seed, budget,
        set_words, cpus, cores, llcs, nodes, distances, domains, vcpus, sets, text);
    layout!(CpuRow as "vcpu_cpu_row": os_id, flags, core, llc, node, reserved, capacity, background);
    layout!(CoreRow as "vcpu_core_row": llc, node, cpus, reserved);
    layout!(LlcRow as "vcpu_llc_row": node, cpus);
    layout!(NodeRow as "vcpu_node_row": os_id, cpus);
    layout!(DomainRow as "vcpu_domain_row": uuid, name, first_vcpu, vcpu_count, flags, memory_node, weight);
    layout!(VcpuRow as "vcpu_vcpu_row": domain, number, cpu, affinity, allowed, flags, slot, reserved, born, load,
        wait);
    layout!(Text as "vcpu_text": bytes, length);
    layout!(PolicyLibrary as "vcpu_policy_library": size, major, magic, policy_count, reserved, policies);
    layout!(PolicyTable as "vcpu_policy": size, reserved, name, version, summary, defaults, create, decide, destroy,
        extension);
    layout!(Host as "vcpu_host": size, reserved, context, log, fail, extension);
    layout!(Options as "vcpu_options": size, reserved, yaml, flat);
    layout!(PlanTable as "vcpu_plan": size, reserved, context, pin, note);
    text
}

#[test]
fn the_header_is_what_the_sources_make_of_it() {
    let (made, path) = (header(), package().join("include/vcpu_policy.h"));
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&path, &made).expect("a writable header");
    }
    let committed = std::fs::read_to_string(&path).expect("the header");
    if committed != made {
        let differing = committed
            .lines()
            .zip(made.lines())
            .position(|(old, new)| old != new);
        panic!(
            "include/vcpu_policy.h is not what the sources say, from line {} on; run make header",
            differing.unwrap_or(committed.lines().count()) + 1
        );
    }
}

/// Compiles a file that includes nothing but the header.
fn check_compiles(compiler: &str, standard: &str, suffix: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let source: PathBuf = folder.path().join(format!("only.{suffix}"));
    std::fs::write(&source, "#include \"vcpu_policy.h\"\nint only_the_header;\n").expect("a source");
    let output = Command::new(compiler)
        .args([
            standard,
            "-Wall",
            "-Wextra",
            "-pedantic",
            "-Werror",
            "-fsyntax-only",
            "-I",
        ])
        .arg(package().join("include"))
        .arg(&source)
        .output()
        .unwrap_or_else(|error| panic!("{compiler}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{compiler} {standard}:\n{said}"
    );
}

#[test]
fn compilers_take_the_header() {
    check_compiles("cc", "-std=c11", "c");
    check_compiles("cc", "-std=c17", "c");
    check_compiles("c++", "-std=c++11", "cpp");
    check_compiles("c++", "-std=c++20", "cpp");
}

/// Under -ffast-math a compiler takes it for granted that there is no NaN and no infinity.
#[test]
fn an_option_is_a_finite_number_whatever_the_compiler_takes_for_granted() {
    let source = r#"
        #include "vcpu_policy.h"
        static int is_number(const char *flat) {
            struct vcpu_options options = {sizeof options, 0, {0, 0}, vcpu_text_of(flat)};
            double value;
            return vcpu_option_number(&options, "a", &value) == VCPU_OK;
        }
        int main(void) {
            const char *refused[] = {"a=inf\n", "a=-inf\n", "a=nan\n", "a=1e400\n", "a=\n", "a=5 %\n", "b=5\n"};
            for (int i = 0; i < 7; i++) {
                if (is_number(refused[i])) {
                    return i + 1;
                }
            }
            return is_number("b=1\na=5\n") && is_number("a=-1e300") ? 0 : 100;
        }
    "#;
    let folder = tempfile::tempdir().expect("a folder");
    let (file, program) = (folder.path().join("options.c"), folder.path().join("options"));
    std::fs::write(&file, source).expect("a source");
    for flag in ["-fno-fast-math", "-ffast-math"] {
        let compiled = Command::new("cc")
            .args(["-std=c11", "-O2", flag, "-I"])
            .arg(package().join("include"))
            .arg("-o")
            .args([&program, &file])
            .status()
            .expect("cc");
        assert!(compiled.success(), "{flag}");
        let status = Command::new(&program).status().expect("the program");
        assert_eq!(status.code(), Some(0), "{flag}");
    }
}
