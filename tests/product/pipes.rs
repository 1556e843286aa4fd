//! A reader that closes its pipe ends no command: the exit code is that of the work, and nothing panics.

use std::process::{Command, Stdio};

use weir_tests::Weir;

/// The writing end of a pipe that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Exit code and standard error, with standard output as given.
fn ended(mut command: Command, out: Stdio) -> (Option<i32>, String) {
    let ended = command.stdin(Stdio::null()).stdout(out).output().unwrap();
    (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into())
}

#[test]
fn closed_pipe_changes_no_exit_code_and_prints_nothing() {
    let weir = Weir::new();
    let file = weir.file("good.pdf", &weir_samples::book(2, 7));
    let file = file.to_str().unwrap();
    let ran = weir.ingest(&[file]);
    let job = ran.lines[0]["job"].as_str().unwrap();
    let made = weir.run(&["tenant", "create", "ours"]);
    assert_eq!(made.code, 0, "{}", made.errors);
    let other = weir_tests::component("text-only");
    let other = other.to_str().unwrap();
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["settings"],
        &["doctor"],
        &["documents"],
        &["search", "water"],
        &["tenant", "list"],
        &["key", "list", "ours"],
        &["key", "create", "ours"],
        &["log", job],
        &["replay", job],
        &["replay", job, "--with", other],
        &["run", file, "--summarize"],
        &["run", file, "no-such.pdf"],
        &["log", "00000000-0000-7000-8000-000000000000"],
        &["run"],
    ] {
        for json in [false, true] {
            let command = || {
                let mut command = weir.command(arguments);
                if json {
                    command.arg("--json");
                }
                command
            };
            let (code, said) = ended(command(), Stdio::null());
            assert!(
                code.is_some_and(|code| code <= 2),
                "{arguments:?}: {code:?} {said}"
            );
            let (piped, errors) = ended(command(), closed());
            assert_eq!(piped, code, "{arguments:?}: {errors}");
            assert!(
                !errors.contains("panicked") && !errors.contains("pipe"),
                "{arguments:?}: {errors}"
            );
            let mut both = command();
            let status = both
                .stdin(Stdio::null())
                .stdout(closed())
                .stderr(closed())
                .status();
            assert_eq!(status.unwrap().code(), code, "{arguments:?} without both");
        }
    }
}
