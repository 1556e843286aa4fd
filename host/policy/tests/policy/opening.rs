//! Components that cannot be used, and how often one that can is compiled.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use weir_core::manifest::{Capability, ComponentFile, Role};
use weir_core::{JobId, PolicyError, TenantId};
use weir_policy::{PolicyConfig, PolicyHost};

use crate::asking::ask;
use crate::support::*;

/// A host with a cache of its own.
fn fresh(folder: &Path, change: impl FnOnce(&mut PolicyConfig)) -> Arc<PolicyHost> {
    let mut config = config();
    config.cache = folder.join("compiled");
    change(&mut config);
    PolicyHost::new(config).unwrap()
}

/// Why a component cannot be opened.
async fn refusal(host: &PolicyHost, component: &ComponentFile, role: Role) -> String {
    match open(host, &only(&[role], component), &Arc::new(Port::default())).await {
        Err(PolicyError::Unusable {
            component: name,
            reason,
        }) => {
            assert_eq!(name, component.name);
            assert!(!reason.contains('\n'), "{reason}");
            reason
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{} was opened", component.name),
    }
}

#[tokio::test]
async fn an_import_that_is_not_granted_is_named() {
    let host = host();
    for (name, grant) in [
        ("state", Capability::State),
        ("rasterizer", Capability::Rasterizer),
        ("inference", Capability::Inference),
    ] {
        let component = component(&format!("hostile-{name}"));
        let reason = refusal(&host, &component, Role::Routing).await;
        assert!(
            reason.contains(&format!("weir:pipeline/{name}@0.1.0")),
            "{reason}"
        );
        assert!(
            reason.contains(&format!("add \"{name}\" to [capabilities] grant")),
            "{reason}"
        );

        let mut granted = only(&[Role::Routing], &component);
        granted.manifest.capabilities.grant = vec![grant];
        let port = Arc::new(Port::default());
        let job = open(&host, &granted, &port).await.unwrap();
        ask(&job, "routing.page").await.unwrap();
        assert_eq!(
            port.generated.load(Ordering::Relaxed),
            usize::from(name == "inference")
        );
    }
}

#[tokio::test]
async fn state_lasts_from_job_to_job_for_one_tenant() {
    let state = Arc::new(MemoryState::default());
    let mut config = config();
    config.state = Arc::clone(&state) as _;
    let host = PolicyHost::new(config).unwrap();
    let mut pipeline = only(&[Role::Routing], &component("hostile-state"));
    pipeline.manifest.capabilities.grant = vec![Capability::State];
    let (one, two): (TenantId, TenantId) = ("one".parse().unwrap(), "two".parse().unwrap());
    for tenant in [&one, &one, &two] {
        let job = host
            .open_job(weir_core::ports::PolicyRequest {
                tenant,
                job: JobId::new(),
                pipeline: &pipeline,
                capabilities: Arc::new(Port::default()),
            })
            .await
            .unwrap();
        ask(&job, "routing.page").await.unwrap();
    }
    let values = state.values.lock();
    let value = |tenant: &TenantId| values[&(tenant.clone(), "test".into(), "calls".into())].len();
    assert_eq!((value(&one), value(&two)), (2, 1));
}

#[tokio::test]
async fn what_is_not_a_component_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let host = fresh(folder.path(), |_| {});
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        file(&path)
    };
    let whole = fs::read(component("routing").path).unwrap();
    for (file, word) in [
        (write("empty.wasm", b""), "unexpected end"),
        (write("text.wasm", b"hello, this is no WebAssembly"), "magic"),
        (write("module.wasm", b"\0asm\x01\0\0\0"), "module"),
        (write("cut.wasm", &whole[..whole.len() / 2]), ""),
    ] {
        let reason = refusal(&host, &file, Role::Routing).await;
        assert!(reason.to_lowercase().contains(word), "{}: {reason}", file.name);
    }
    let missing = ComponentFile {
        name: "missing".into(),
        path: folder.path().join("missing.wasm"),
        digest: [0; 32],
    };
    assert!(
        refusal(&host, &missing, Role::Routing)
            .await
            .contains("cannot be read")
    );
    let changed = write("changed.wasm", &whole);
    fs::write(&changed.path, b"something else").unwrap();
    assert!(
        refusal(&host, &changed, Role::Routing)
            .await
            .contains("has changed")
    );
    assert_leaves_nothing(folder.path());
}

/// No temporary file stays behind.
fn assert_leaves_nothing(folder: &Path) {
    for entry in fs::read_dir(folder.join("compiled")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.ends_with(".cwasm"), "{name}");
    }
}

#[tokio::test]
async fn a_component_without_the_role_is_said() {
    let reason = refusal(&host(), &component("routing"), Role::Batching).await;
    assert!(
        reason.contains("does not export weir:pipeline/batching@0.1.0")
            && reason.contains("exports weir:pipeline/routing@0.1.0"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_component_is_compiled_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = only(&[Role::Routing], &component("routing"));
    let port = Arc::new(Port::default());
    let host = fresh(folder.path(), |_| {});
    // Four at once wait for one compilation.
    let opened = futures::future::join_all((0..4).map(|_| open(&host, &pipeline, &port))).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!((host.stats().compilations, host.stats().loads), (1, 1));
    drop((opened, host));

    // Another process finds it on disk.
    let host = fresh(folder.path(), |_| {});
    open(&host, &pipeline, &port).await.unwrap();
    assert_eq!((host.stats().compilations, host.stats().loads), (0, 1));
    drop(host);

    // A damaged file counts as none, wherever the damage is.
    let compiled = fs::read_dir(folder.path().join("compiled"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let bytes = fs::read(compiled.path()).unwrap();
    let flipped = {
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        flipped
    };
    for damaged in [&bytes[..bytes.len() / 2], &flipped, b""] {
        fs::write(compiled.path(), damaged).unwrap();
        let host = fresh(folder.path(), |_| {});
        open(&host, &pipeline, &port).await.unwrap();
        assert_eq!((host.stats().compilations, host.stats().loads), (1, 1));
    }
    assert_leaves_nothing(folder.path());
}

#[tokio::test]
async fn compiling_is_limited() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.wasm");
    fs::write(&path, bomb()).unwrap();
    let bomb = file(&path);
    let host = fresh(folder.path(), |config| config.compile_seconds = 1);
    let reason = refusal(&host, &bomb, Role::Routing).await;
    assert!(reason.contains("more than the 1 s of CPU"), "{reason}");
    let host = fresh(folder.path(), |config| config.compile_bytes = 256 << 20);
    let reason = refusal(&host, &bomb, Role::Routing).await;
    assert!(reason.contains("more than the 268435456 bytes"), "{reason}");
    assert_leaves_nothing(folder.path());
}

#[tokio::test]
async fn a_compiler_that_cannot_be_started_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let host = fresh(folder.path(), |config| {
        config.compile_command = vec!["/nonexistent/weir".into()];
    });
    let reason = refusal(&host, &component("routing"), Role::Routing).await;
    assert!(reason.contains("cannot start /nonexistent/weir"), "{reason}");
}

#[tokio::test]
async fn a_compilation_nobody_waits_for_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let started = folder.path().join("pid");
    let host = fresh(folder.path(), |config| {
        let script = format!(
            "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600",
            started.display()
        );
        config.compile_command = vec!["/bin/sh".into(), "-c".into(), script.into()];
    });
    let (pipeline, port) = (only(&[Role::Routing], &component("routing")), Arc::default());
    let pid = {
        let opening = open(&host, &pipeline, &port);
        let running = async {
            while !started.exists() {
                tokio::task::yield_now().await;
            }
            fs::read_to_string(&started).unwrap().trim().to_owned()
        };
        tokio::select! {
            _ = opening => panic!("it cannot have ended"),
            pid = running => pid,
        }
    };
    // Gone, or at most waiting to be reaped.
    let alive = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while alive() {
        tokio::task::yield_now().await;
    }
    assert_leaves_nothing(folder.path());
}

/// A component of one core module with functions so large that compiling them takes minutes and gigabytes.
fn bomb() -> Vec<u8> {
    fn leb(mut n: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let byte = (n & 0x7f) as u8;
            n >>= 7;
            if n == 0 {
                bytes.push(byte);
                return bytes;
            }
            bytes.push(byte | 0x80);
        }
    }
    let sized = |bytes: Vec<u8>| [leb(bytes.len()), bytes].concat();
    let section = |id: u8, bytes: Vec<u8>| [vec![id], sized(bytes)].concat();
    const FUNCTIONS: usize = 16;
    // Each step: local 0 = local 0 * 2 + local 0, behind a block of its own.
    let step = [
        0x02, 0x40, 0x20, 0, 0x45, 0x0d, 0, 0x20, 0, 0x20, 0, 0x6a, 0x21, 0, 0x0b,
    ];
    let body = [vec![0], step.repeat(100_000), vec![0x20, 0, 0x0b]].concat();
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, vec![1, 0x60, 1, 0x7f, 1, 0x7f]),
        section(3, [leb(FUNCTIONS), vec![0; FUNCTIONS]].concat()),
        section(10, [leb(FUNCTIONS), sized(body).repeat(FUNCTIONS)].concat()),
    ]
    .concat();
    [b"\0asm\x0d\0\x01\0".to_vec(), section(1, module)].concat()
}
