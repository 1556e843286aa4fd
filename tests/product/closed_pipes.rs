//! A closed output pipe does not end a command: the exit code still reports the result, and nothing panics.

use std::process::{Command, Stdio};

use weir_tests::WeirFixture;

/// Returns the writing end of a pipe whose reading end is closed.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Runs a command with the given standard output. Returns its exit code and standard error.
fn run_with_stdout(mut command: Command, out: Stdio) -> (Option<i32>, String) {
    let ended = command.stdin(Stdio::null()).stdout(out).output().unwrap();
    (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into())
}

#[test]
fn closed_pipe_changes_no_exit_code_and_prints_no_pipe_error() {
    let weir = WeirFixture::new();
    let file = weir.write_file("good.pdf", &weir_samples::generate_book(2, 7));
    let file = file.to_str().unwrap();
    let ran = weir.ingest_files(&[file]);
    let job = ran.stdout_lines[0]["job"].as_str().unwrap();
    let created = weir.run_command(&["tenant", "create", "ours"]);
    assert_eq!(created.exit_code, 0, "{}", created.stderr);
    let other = weir_tests::test_component_path("text-only");
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
                let mut command = weir.weir_command(arguments);
                if json {
                    command.arg("--json");
                }
                command
            };
            let (code, stderr) = run_with_stdout(command(), Stdio::null());
            assert!(
                code.is_some_and(|code| code <= 2),
                "{arguments:?}: {code:?} {stderr}"
            );
            let (piped, errors) = run_with_stdout(command(), closed_pipe());
            assert_eq!(piped, code, "{arguments:?}: {errors}");
            assert!(
                !errors.contains("panicked") && !errors.contains("pipe"),
                "{arguments:?}: {errors}"
            );
            let mut both = command();
            let status = both
                .stdin(Stdio::null())
                .stdout(closed_pipe())
                .stderr(closed_pipe())
                .status();
            assert_eq!(
                status.unwrap().code(),
                code,
                "{arguments:?} with both pipes closed"
            );
        }
    }
}
